//! Certificates of the cluster, made when they are missing, of another CA, or near their end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_ca::cluster::{CERT_TTL, ClusterCa, default_names};
use mesh_tls::{ClusterId, ClusterTls, Role};
use x509_parser::pem::parse_x509_pem;

use crate::error::ProvisionError;
use crate::secret::Secret;

/// A certificate that ends within this time is made anew when something is applied.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long what is made for one run is good.
const OWN_TTL: Duration = Duration::from_secs(24 * 3600);

/// A certificate with its key, PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: Secret,
}

fn wrong(error: impl ToString) -> ProvisionError {
    ProvisionError::invalid("tls.ca_pem, tls.ca_key", error.to_string())
}

/// Makes one.
pub(crate) fn issue(ca: &str, key: &Secret, role: Role, id: &str) -> Result<Pair, ProvisionError> {
    let ttl = match role {
        Role::Cli => OWN_TTL,
        _ => CERT_TTL,
    };
    let id = ClusterId::new(role, id).map_err(wrong)?;
    let authority = ClusterCa::from_pem(ca, key.expose()).map_err(wrong)?;
    let made = authority.issue(&id, &default_names(role), ttl, SystemTime::now());
    let made = made.map_err(wrong)?;
    Ok(Pair {
        certificate: made.certificate.clone(),
        key: Secret::new(made.key.as_str()),
    })
}

/// Whether a certificate and its key are this role's and name's, below this CA, and good for a while.
pub(crate) fn is_good(ca: &str, certificate: &str, key: &str, role: Role, id: &str) -> bool {
    let read = ClusterTls::from_pem(ca.as_bytes(), certificate.as_bytes(), key.as_bytes());
    let Ok(tls) = read else { return false };
    let is_its = tls
        .id()
        .is_some_and(|it| it.role() == role && it.id() == id);
    is_its && is_below(ca, certificate) && lasts(certificate)
}

/// One of the CA's certificates signed it.
fn is_below(ca: &str, certificate: &str) -> bool {
    let Ok((_, leaf)) = parse_x509_pem(certificate.as_bytes()) else {
        return false;
    };
    let Ok(leaf) = leaf.parse_x509() else {
        return false;
    };
    x509_parser::pem::Pem::iter_from_buffer(ca.as_bytes())
        .flatten()
        .any(|one| {
            one.parse_x509()
                .is_ok_and(|ca| ca.subject() == leaf.issuer() && same_key(&ca, &leaf))
        })
}

/// The key that signed, by its id where both name one.
fn same_key(
    ca: &x509_parser::certificate::X509Certificate<'_>,
    leaf: &x509_parser::certificate::X509Certificate<'_>,
) -> bool {
    use x509_parser::extensions::ParsedExtension::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
    let of_ca = ca
        .iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
    let of_leaf = leaf
        .iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
    match (of_ca, of_leaf) {
        (Some(of_ca), Some(of_leaf)) => of_ca == of_leaf,
        _ => true,
    }
}

fn lasts(certificate: &str) -> bool {
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else {
        return false;
    };
    let end = pem
        .parse_x509()
        .map(|it| it.validity().not_after.timestamp());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let until = i64::try_from((now + RENEW_BEFORE).as_secs()).unwrap_or(i64::MAX);
    end.is_ok_and(|end| end > until)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_ca::cluster::create_ca;

    #[test]
    fn a_certificate_is_kept_while_it_is_good() {
        let ca = |name: &str, ttl: Duration| {
            let made = create_ca(name, ttl, SystemTime::now()).unwrap();
            (made.certificate.clone(), Secret::new(made.key.as_str()))
        };
        let (pem, key) = ca("a", mesh_ca::cluster::CA_TTL);
        let made = issue(&pem, &key, Role::Server, "s-0").unwrap();
        let good =
            |ca: &str, role, id: &str| is_good(ca, &made.certificate, made.key.expose(), role, id);
        assert!(good(&pem, Role::Server, "s-0"));
        assert!(!good(&pem, Role::Server, "s-1"));
        assert!(!good(&pem, Role::Agent, "s-0"));
        let (other, _) = ca("a", mesh_ca::cluster::CA_TTL);
        assert!(
            !good(&other, Role::Server, "s-0"),
            "another CA of the same name"
        );
        assert!(
            good(&format!("{other}{pem}"), Role::Server, "s-0"),
            "both are trusted"
        );
        // It never outlives its CA, so one that ends soon is not good for a while.
        let (short, key) = ca("b", Duration::from_secs(3600));
        let made = issue(&short, &key, Role::Server, "s-0").unwrap();
        assert!(!is_good(
            &short,
            &made.certificate,
            made.key.expose(),
            Role::Server,
            "s-0"
        ));
    }
}

//! What a chain must be before its key is of any use.

use std::time::SystemTime;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use mesh_tls::TrustDomain;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::builtin::authority_uri;
use crate::error::CaError;
use crate::x509;

/// The longest chain that is taken; each of its certificates but the root goes over the wire with
/// every handshake.
const LONGEST: usize = 5;
/// How far apart clocks may be, in seconds.
const CLOCKS: u64 = 60;

/// Checks a chain, lowest first and the root last. `leaf_ttl` in seconds.
pub(super) fn check(
    chain: &[CertificateDer<'_>],
    domain: &TrustDomain,
    leaf_ttl: u64,
    now: SystemTime,
) -> Result<(), CaError> {
    if chain.len() > LONGEST {
        let reason = format!(
            "there are {}, and at most {LONGEST} are taken: those from the one whose key is given \
             up to the root, and no others",
            chain.len()
        );
        return Err(CaError::input("certificates", reason));
    }
    let mut links = Vec::with_capacity(chain.len());
    for (place, der) in chain.iter().enumerate() {
        let what = format!("certificate {}", place + 1);
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|_| CaError::input(&what, "it is not an X.509 certificate"))?;
        let what = format!("{what} ({})", certificate.subject());
        links.push(Link { what, certificate });
    }
    order(&links)?;
    let alone = links.len() == 1;
    for (place, link) in links.iter().enumerate() {
        // A root that is given alone signs an intermediate of ours.
        link.is_authority(place + usize::from(alone))?;
        link.lives(leaf_ttl, now)?;
        link.signs_identities(domain)?;
    }
    Ok(())
}

struct Link<'a> {
    /// For errors.
    what: String,
    certificate: X509Certificate<'a>,
}

/// Each is signed by the next, and the last by itself.
fn order(links: &[Link<'_>]) -> Result<(), CaError> {
    for pair in links.windows(2) {
        let [link, above] = pair else { continue };
        if link.certificate.issuer().as_raw() != above.certificate.subject().as_raw() {
            return Err(link.wrong(format!(
                "its issuer is {}, and not the one that follows, {}; write each certificate before \
                 the one that signed it, the root last, and no others",
                link.certificate.issuer(),
                above.certificate.subject()
            )));
        }
        if signed_by(&link.certificate, &above.certificate) == Some(false) {
            return Err(link.wrong(format!(
                "{} has the name of its issuer, but did not sign it: another one of that name did",
                above.what
            )));
        }
    }
    let Some(root) = links.last() else {
        return Err(CaError::input("certificates", "there is none"));
    };
    let (issuer, subject) = (root.certificate.issuer(), root.certificate.subject());
    let own = issuer.as_raw() == subject.as_raw()
        && signed_by(&root.certificate, &root.certificate) != Some(false);
    match own {
        true => Ok(()),
        false => Err(root.wrong(format!(
            "the chain ends here, and this is no root: {issuer} signed it; append that one's \
             certificate, and so on up to the root"
        ))),
    }
}

/// Whether one signed another; `None`: by an algorithm that is not looked at here. What signs
/// leaves is tried as a peer would in the end.
pub(crate) fn signed_by(one: &X509Certificate<'_>, above: &X509Certificate<'_>) -> Option<bool> {
    let p256 = above.public_key().subject_public_key.data.len() == 65;
    let by: &dyn VerificationAlgorithm = match one.signature_algorithm.oid().to_id_string().as_str()
    {
        "1.2.840.113549.1.1.11" => &RSA_PKCS1_2048_8192_SHA256,
        "1.2.840.113549.1.1.12" => &RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &RSA_PKCS1_2048_8192_SHA512,
        "1.2.840.10045.4.3.2" if p256 => &ECDSA_P256_SHA256_ASN1,
        "1.2.840.10045.4.3.2" => &ECDSA_P384_SHA256_ASN1,
        "1.2.840.10045.4.3.3" if p256 => &ECDSA_P256_SHA384_ASN1,
        "1.2.840.10045.4.3.3" => &ECDSA_P384_SHA384_ASN1,
        _ => return None,
    };
    let key = UnparsedPublicKey::new(by, &above.public_key().subject_public_key.data);
    let signed = key.verify(one.tbs_certificate.as_ref(), &one.signature_value.data);
    Some(signed.is_ok())
}

impl Link<'_> {
    fn wrong(&self, reason: impl ToString) -> CaError {
        CaError::input(&self.what, reason)
    }

    /// A CA, below which `below` others may stand.
    fn is_authority(&self, below: usize) -> Result<(), CaError> {
        let unread = |_| self.wrong("its extensions cannot be read");
        let basic = self.certificate.basic_constraints().map_err(unread)?;
        let Some(basic) = basic.filter(|basic| basic.value.ca) else {
            return Err(self.wrong(
                "it is not the certificate of a CA (basicConstraints does not say CA:TRUE); it \
                 cannot sign others",
            ));
        };
        if let Some(most) = basic.value.path_len_constraint
            && usize::try_from(most).is_ok_and(|most| most < below)
        {
            return Err(self.wrong(format!(
                "its path length is {most}, and {below} CA{} below it; it must be {below} or more, \
                 or not be said",
                if below == 1 { " stands" } else { "s stand" }
            )));
        }
        let usage = self.certificate.key_usage().map_err(unread)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(
                self.wrong("its key usage does not have keyCertSign; it cannot sign others")
            );
        }
        let extended = self.certificate.extended_key_usage().map_err(unread)?;
        // webpki, which judges in the mesh, takes `any` for nothing.
        if let Some(extended) = extended.map(|extended| extended.value)
            && !(extended.server_auth && extended.client_auth)
        {
            return Err(self.wrong(
                "its extended key usage does not have both serverAuth and clientAuth; sidecars \
                 are both, so it must have both, or none at all",
            ));
        }
        Ok(())
    }

    /// It is valid now, and for long enough.
    fn lives(&self, leaf_ttl: u64, now: SystemTime) -> Result<(), CaError> {
        let now = x509::unix(now);
        let at = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let (from, to) = (
            at(self.certificate.validity().not_before),
            at(self.certificate.validity().not_after),
        );
        if from > now.saturating_add(CLOCKS) {
            return Err(self.wrong(format!(
                "it is not valid before {}",
                self.certificate.validity().not_before
            )));
        }
        if to <= now {
            let ended = self.certificate.validity().not_after;
            return Err(self.wrong(format!("it has expired on {ended}; give a newer one")));
        }
        let least = leaf_ttl.saturating_mul(2);
        match to - now >= least {
            true => Ok(()),
            false => Err(self.wrong(format!(
                "it ends in {} s, before two lives of a sidecar's certificate (leaf_ttl: {leaf_ttl} \
                 s) have passed; give a newer one",
                to - now
            ))),
        }
    }

    /// What is signed below it may have the mesh's identities.
    fn signs_identities(&self, domain: &TrustDomain) -> Result<(), CaError> {
        let unread = |_| self.wrong("its extensions cannot be read");
        let subject = self.certificate.subject();
        if subject.iter_rdn().next().is_none()
            || subject.iter_rdn().any(|rdn| rdn.iter().count() == 0)
        {
            return Err(self.wrong("it has no name (subject); a CA needs one"));
        }
        if let Some(constraints) = self.certificate.name_constraints().map_err(unread)? {
            let lists = [
                &constraints.value.permitted_subtrees,
                &constraints.value.excluded_subtrees,
            ];
            let mut all = lists.into_iter().flatten().flatten();
            if all.any(|tree| matches!(tree.base, GeneralName::URI(_))) {
                return Err(self.wrong(
                    "it has name constraints for URIs. Identities are URIs, and sidecars refuse \
                     every chain with such a constraint, whatever it allows; use a CA without them: \
                     the mesh itself sees to it that only its own trust domain is taken",
                ));
            }
        }
        let names = self
            .certificate
            .subject_alternative_name()
            .map_err(unread)?;
        let own = authority_uri(domain.as_str());
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            let GeneralName::URI(uri) = name else {
                continue;
            };
            if uri.starts_with("spiffe://") && *uri != own {
                return Err(self.wrong(format!(
                    "it is of another trust domain ({uri}); this mesh is {own}. A mesh never \
                     changes its trust domain; a new one can be given that one as `trust_domain`"
                )));
            }
        }
        Ok(())
    }
}

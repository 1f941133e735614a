//! A new root, certified by the one before it: for programs that trust only that.
//!
//! What is certified is the new root itself, its name and its key, so that leaf and intermediate
//! are the same for everybody: who trusts the new root goes from the intermediate to it, and who
//! trusts only the old one goes on from there by this certificate. It stands at the end of the
//! chain that a leaf is given, for as long as the old root is trusted.
//!
//! It is made while a rotation begins, as the mesh's own parts do not need it: they trust the new
//! root before it signs. Where it cannot be made the rotation goes on, and [`Cross::missing`] says
//! why.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use crate::builtin::{BACKDATE, ROOT_KEY, authority_uri, issuer};
use crate::error::CaError;
use crate::import::signed_by;
use crate::key::CaKey;
use crate::seal::{Sealed, SealingKey};
use crate::state::{AWS_PCA, BUILT_IN, CaState, RootEntry, VAULT, short};
use crate::vault::Vault;
use crate::x509::{self, Validity};

/// How many of them follow a leaf at most: each goes over the wire with every handshake.
const MOST: usize = 2;
/// The longest chain that follows a leaf with them; webpki follows no longer one.
const LONGEST: usize = 6;

/// A root's name and key, certified by another root; or why they are not.
///
/// A field that is not known is no reason to refuse it: nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cross {
    /// The id of the root that certifies it.
    pub by: String,
    /// The certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The CA of a rotation that has just begun, with its new root certified by the old one, or with
/// the reason why it is not. It never fails, and may take as long as Vault does.
pub async fn cross_sign(
    begun: &CaState,
    vault: Option<&Vault>,
    sealing: &SealingKey,
    now: SystemTime,
) -> CaState {
    let mut state = begun.clone();
    let made = made(begun, vault, sealing, now).await;
    let by = begun.active_root().map(|root| root.id.clone());
    if let (Some(rotation), Some(by)) = (&mut state.rotation, by) {
        let (pem, missing) = match made {
            Ok(der) => (Some(x509::certificate_pem(&der)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        rotation.cross = Some(Cross { by, pem, missing });
    }
    state
}

/// Why the root that signs cannot certify another one, as far as can be told before that is made.
#[must_use]
pub fn cross_obstacle(state: &CaState, now: SystemTime) -> Option<String> {
    let old = state.active_root()?;
    let obstacle = signer(state, old).map(drop).and_then(|()| may(old, 1, now));
    obstacle.err().map(|error| error.to_string())
}

impl CaState {
    /// What follows a leaf in its chain: the intermediate, what stands between it and its root, and
    /// while older roots are trusted too, that root certified by them.
    ///
    /// # Errors
    /// When there is no intermediate, or a certificate of it is not one. What is wrong with the
    /// rest is left out.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let none = || CaError::state("intermediate", "there is none");
        let entry = self.intermediate.as_ref().ok_or_else(none)?;
        let mut chain = entry.chain()?;
        let crosses = self.crosses(&entry.root, chain.len());
        chain.extend(crosses);
        Ok(chain)
    }

    /// A root with `below` CAs under it, certified by one that is trusted, that one by another, and
    /// so on.
    fn crosses(&self, root: &str, mut below: usize) -> Vec<CertificateDer<'static>> {
        let find = |id: &str| self.roots.iter().find(|one| one.id == id);
        let mut found = Vec::new();
        let mut seen = vec![root];
        let mut at = find(root);
        while found.len() < MOST && below < LONGEST {
            let Some(cross) = at.and_then(|root| root.cross.as_ref()) else {
                break;
            };
            let (Some(pem), Some(by)) = (&cross.pem, find(&cross.by)) else {
                break;
            };
            let Ok(der) = x509::certificate_der("cross-signature", pem) else {
                break;
            };
            let above = by.der().ok();
            let fits = room(&der, below) && above.is_some_and(|der| room(&der, below + 1));
            if !fits || seen.contains(&by.id.as_str()) {
                break;
            }
            found.push(der);
            below += 1;
            seen.push(&by.id);
            at = Some(by);
        }
        found
    }
}

/// Who can sign with a root's key.
enum Signer<'a> {
    Key(&'a Sealed),
    /// The mount, and the issuer there.
    Vault(&'a str, &'a str),
}

fn signer<'a>(state: &'a CaState, old: &'a RootEntry) -> Result<Signer<'a>, CaError> {
    let what = format!("root {}", short(&old.id));
    let no = |reason: &str| Err(CaError::state(&what, reason));
    match state.provider.as_str() {
        BUILT_IN => match &state.root_key {
            Some(sealed) => Ok(Signer::Key(sealed)),
            None => no("its key is not here, so it certifies no other"),
        },
        VAULT => {
            let above = state.intermediate.as_ref().map(|one| &one.above);
            if above.is_some_and(|above| !above.is_empty()) {
                return no("it is above the CA in Vault, so its key is not there");
            }
            let place = state.config.vault.as_ref();
            match (place, &old.issuer) {
                (Some(place), Some(issuer)) => Ok(Signer::Vault(&place.root_pki_path, issuer)),
                _ => no("it is not known where in Vault it is"),
            }
        }
        AWS_PCA => no("a CA in AWS is asked for intermediates only, and may sign nothing else"),
        other => no(&format!("{other:?} is no provider that this server knows")),
    }
}

/// Whether a root may certify another one that has `below` CAs under it.
fn may(old: &RootEntry, below: usize, now: SystemTime) -> Result<(), CaError> {
    let what = format!("root {}", short(&old.id));
    if old.not_after <= x509::unix(now) {
        return Err(CaError::state(&what, "it has expired"));
    }
    if !room(&old.der()?, below + 1) {
        let reason = format!(
            "its path length does not allow another root below it, which needs {} or none",
            below + 1
        );
        return Err(CaError::state(&what, reason));
    }
    Ok(())
}

/// Whether the path length of a CA allows so many below it.
fn room(der: &CertificateDer<'_>, below: usize) -> bool {
    x509::read("certificate", der).is_ok_and(|seen| {
        let most = seen.path_length.map(usize::try_from);
        most.is_none_or(|most| most.is_ok_and(|most| most >= below))
    })
}

async fn made(
    begun: &CaState,
    vault: Option<&Vault>,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    let none = || CaError::state("rotation", "none is under way");
    let old = begun.active_root().ok_or_else(none)?;
    let (new, rotation) = begun
        .next_root()
        .zip(begun.rotation.as_ref())
        .ok_or_else(none)?;
    let signer = signer(begun, old)?;
    let below = 1 + rotation.intermediate.above.len();
    may(old, below, now)?;
    let (old_der, new_der) = (old.der()?, new.der()?);
    unconstrained(new, &new_der)?;
    let made = match signer {
        Signer::Key(sealed) => {
            let what = format!("root {}", short(&old.id));
            let key = CaKey::from_pkcs8(&what, &sealing.open(ROOT_KEY, &old.id, sealed)?)?;
            certify(
                &begun.trust_domain,
                (&what, old, &old_der, key),
                (new, &new_der),
                now,
            )?
        }
        Signer::Vault(path, issuer) => match vault {
            Some(vault) => vault.certify_root(path, issuer, &new.pem).await?,
            None => {
                let reason = "this server's configuration does not say how Vault is reached";
                return Err(CaError::state(path, reason));
            }
        },
    };
    judge(&made, &old_der, &new_der, below, now)?;
    Ok(made)
}

/// What is certified has no less to heed than the root itself: what a root is bound to stands in
/// extensions that are not copied.
fn unconstrained(new: &RootEntry, der: &CertificateDer<'_>) -> Result<(), CaError> {
    let what = format!("root {}", short(&new.id));
    let cert = parsed(&what, der)?;
    for one in cert.extensions() {
        let copied = matches!(
            one.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        let binds = matches!(
            one.parsed_extension(),
            ParsedExtension::NameConstraints(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::PolicyConstraints(_)
                | ParsedExtension::InhibitAnyPolicy(_)
        );
        if binds || (one.critical && !copied) {
            let reason = format!(
                "it has constraints (extension {}) that the certificate of it would not have",
                one.oid
            );
            return Err(CaError::state(&what, reason));
        }
    }
    Ok(())
}

/// The new root's name and key, in a certificate of the old one.
fn certify(
    domain: &str,
    (what, old, old_der, key): (&str, &RootEntry, &CertificateDer<'_>, CaKey),
    (new, new_der): (&RootEntry, &CertificateDer<'_>),
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    let failed = |error: rcgen::Error| CaError::make("a cross-signature", error);
    let seen = x509::read("root", new_der)?;
    let end = old.not_after.min(new.not_after);
    let validity = Validity::new(x509::unix(now), BACKDATE, u64::MAX, end);
    let mut params = x509::authority("", Some(&authority_uri(domain)), None, validity)?;
    let cert = parsed("root", new_der)?;
    params.distinguished_name = name(&cert)?;
    if let Some(most) = seen.path_length {
        let most = u8::try_from(most).unwrap_or(u8::MAX);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
    }
    if let Some(id) = key_id(&cert) {
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
    }
    let public = SubjectPublicKeyInfo::from_der(&seen.public_key).map_err(failed)?;
    let issuer = issuer(what, old_der, key)?;
    let made = params.signed_by(&public, &issuer).map_err(failed)?;
    Ok(made.der().clone())
}

/// A certificate's name, as rcgen writes it. Not every name can be: [`judge`] compares.
fn name(cert: &X509Certificate<'_>) -> Result<DistinguishedName, CaError> {
    let unwritable = || {
        let reason = format!(
            "its name ({}) is one that cannot be written again",
            cert.subject()
        );
        CaError::state("root", reason)
    };
    let mut name = DistinguishedName::new();
    for attribute in cert.subject().iter_attributes() {
        let kind: Option<Vec<u64>> = attribute.attr_type().iter().map(Iterator::collect);
        let value = attribute.attr_value();
        let text = std::str::from_utf8(value.data).map_err(|_| unwritable())?;
        let value = match value.header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => text
                .try_into()
                .map(DnValue::PrintableString)
                .map_err(|_| unwritable())?,
            Tag::Ia5String => text
                .try_into()
                .map(DnValue::Ia5String)
                .map_err(|_| unwritable())?,
            _ => return Err(unwritable()),
        };
        name.push(DnType::from_oid(&kind.ok_or_else(unwritable)?), value);
    }
    Ok(name)
}

/// What came is the new root's name and key, of use, and signed by the old one.
fn judge(
    made: &CertificateDer<'_>,
    old: &CertificateDer<'_>,
    new: &CertificateDer<'_>,
    below: usize,
    now: SystemTime,
) -> Result<(), CaError> {
    let what = "cross-signature";
    let [cross, old, new] = [made, old, new].map(|der| parsed(what, der));
    let (cross, old, new) = (cross?, old?, new?);
    let usage = cross.key_usage().ok().flatten();
    let wrong = if cross.subject().as_raw() != new.subject().as_raw() {
        "it has not exactly the new root's name"
    } else if cross.public_key().raw != new.public_key().raw {
        "it certifies another key than the new root's"
    } else if key_id(&new).is_some() && key_id(&cross) != key_id(&new) {
        "it names the new root's key differently than the new root does"
    } else if cross.issuer().as_raw() != old.subject().as_raw()
        || signed_by(&cross, &old) != Some(true)
    {
        "the old root did not sign it, or by an algorithm that is not known"
    } else if !cross.is_ca() || !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        "it is not the certificate of a CA"
    } else if !room(made, below) {
        "its path length does not allow the intermediate below the new root"
    } else if x509::read(what, made)?.not_after <= x509::unix(now) {
        "it has expired"
    } else {
        return Ok(());
    };
    Err(CaError::state(what, wrong))
}

/// The id that a certificate gives its key.
fn key_id<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    cert.iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

fn parsed<'a>(what: &str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CaError> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let unread = |_| CaError::state(what, "it is not an X.509 certificate");
    parsed.map(|(_, cert)| cert).map_err(unread)
}

//! What a side shows: a certificate chain and its key; and what can be read from a chain.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::csr::LeafKey;
use crate::error::TlsError;
use crate::pem::{self, PrivateKey};
use crate::provider;
use crate::trust;

/// A certificate chain with its private key, checked to belong together.
#[derive(Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    leaf: Arc<Leaf>,
}

impl Credential {
    /// A chain and a key from PEM texts. `what` names them in errors.
    ///
    /// # Errors
    /// When one is not well formed, or the key is not the leaf's.
    pub fn from_pem(what: &str, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = pem::certificates(what, chain)?;
        let key = pem::private_key(what, key)?;
        Self::new(what, what, chain, &key)
    }

    /// A chain and a key from PEM files.
    ///
    /// # Errors
    /// When one cannot be read or is not well formed, or the key is not the leaf's.
    pub fn from_files(chain: &std::path::Path, key: &std::path::Path) -> Result<Self, TlsError> {
        Self::new(
            &chain.display().to_string(),
            &key.display().to_string(),
            pem::read_certificates(chain)?,
            &pem::read_private_key(key)?,
        )
    }

    /// A chain for a key that was made here and never left memory.
    ///
    /// # Errors
    /// When the chain is empty or not well formed, or was not made for this key.
    pub fn from_leaf_key(
        chain: Vec<CertificateDer<'static>>,
        key: &LeafKey,
    ) -> Result<Self, TlsError> {
        let certified = CertifiedKey::new(chain, key.signing_key());
        Self::checked("leaf chain", "the key made here", certified)
    }

    fn new(
        chain_source: &str,
        key_source: &str,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKey,
    ) -> Result<Self, TlsError> {
        let key = provider()
            .key_provider
            .load_private_key(key.copy())
            .map_err(|_| TlsError::Unusable {
                what: key_source.to_owned(),
                reason: "the private key is not one that TLS can use; make an EC P-256 key".into(),
            })?;
        Self::checked(chain_source, key_source, CertifiedKey::new(chain, key))
    }

    fn checked(
        chain_source: &str,
        key_source: &str,
        certified: CertifiedKey,
    ) -> Result<Self, TlsError> {
        let leaf = Leaf::parse(chain_source, certified.cert.clone())?;
        certified.keys_match().map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
                certificate: chain_source.to_owned(),
                key: key_source.to_owned(),
            },
            other => TlsError::Rustls(other),
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            leaf: Arc::new(leaf),
        })
    }

    /// What the chain says.
    #[must_use]
    pub fn leaf(&self) -> &Arc<Leaf> {
        &self.leaf
    }

    /// The two as rustls takes them: for a peer that is none of ours, such as a test's.
    #[must_use]
    pub fn certified_key(&self) -> CertifiedKey {
        (*self.certified).clone()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

/// What a certificate chain says. For display and for planning a renewal, not for trust.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaf {
    /// Leaf first, then intermediates, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid to.
    pub not_after: SystemTime,
    /// The serial number: lower-case hex, two digits a byte.
    pub serial: String,
    /// The one URI name; none when the certificate has no or several.
    pub uri: Option<String>,
    /// The DNS names beside it: an ingress gateway's.
    pub dns_names: Vec<String>,
    /// The public key: a DER SubjectPublicKeyInfo (RFC 5280, section 4.1).
    pub public_key: Vec<u8>,
}

impl Leaf {
    /// Reads a chain, leaf first. `what` names it in errors.
    ///
    /// # Errors
    /// When it is empty or its first certificate is not well formed.
    pub fn parse(what: &str, chain: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let error = |reason: &str| TlsError::Unusable {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let first = chain
            .first()
            .ok_or_else(|| error("there is no certificate in the chain"))?;
        let uri = trust::only_uri(first).ok();
        let (_, cert) = x509_parser::parse_x509_certificate(first)
            .map_err(|_| error("the certificate is not well formed"))?;
        let (not_before, not_after) = (cert.validity().not_before, cert.validity().not_after);
        let names = cert.subject_alternative_name().ok().flatten();
        let names = names.into_iter().flat_map(|one| &one.value.general_names);
        let dns_names = names.filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let dns_names = dns_names.collect();
        let serial = cert.raw_serial().iter().map(|b| format!("{b:02x}"));
        let (serial, public_key) = (serial.collect(), cert.public_key().raw.to_vec());
        Ok(Self {
            not_before: system_time(not_before.timestamp()),
            not_after: system_time(not_after.timestamp()),
            serial,
            uri,
            dns_names,
            public_key,
            chain,
        })
    }

    /// The service that it names, if it names one.
    #[must_use]
    pub fn spiffe(&self) -> Option<crate::SpiffeId> {
        self.uri.as_deref()?.parse().ok()
    }

    /// The part of the cluster that it names, if it names one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<crate::ClusterId> {
        self.uri.as_deref()?.parse().ok()
    }

    /// When to renew a leaf that was received at a time: at a jittered half of what it then had
    /// left (between 0.45 and 0.55 of it). `jitter` is random in 0..1.
    ///
    /// Counted from the receipt and not from `not_before`, which lies before it: a leaf of a few
    /// seconds would be past its half at once.
    #[must_use]
    pub fn renew_at(&self, received: SystemTime, jitter: f64) -> SystemTime {
        let left = self
            .not_after
            .duration_since(received)
            .unwrap_or(Duration::ZERO);
        let jitter = if jitter.is_finite() {
            jitter.clamp(0.0, 1.0)
        } else {
            0.5
        };
        received + left.mul_f64(0.45 + 0.1 * jitter)
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("uri", &self.uri)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn system_time(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    if unix < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

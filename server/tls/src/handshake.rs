//! With what a handshake may be made: the cipher suites and the key exchanges, by name.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, SupportedCipherSuite};

use crate::error::TlsError;
use crate::provider;

/// Every cipher suite that can be named: those of TLS 1.3.
const SUITES: [(&str, SupportedCipherSuite); 3] = [
    (
        "TLS_AES_128_GCM_SHA256",
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// Every key exchange that can be named.
const EXCHANGES: [(&str, &dyn SupportedKxGroup); 5] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("SecP256r1MLKEM768", kx_group::SECP256R1MLKEM768),
    ("X25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
];

/// What the handshakes of one side may be made with. By default all that [`provider`] has.
///
/// Two sides with different ones speak with what both have; with nothing in common there is no
/// connection.
#[derive(Clone)]
pub struct Handshakes(Arc<CryptoProvider>);

impl Handshakes {
    /// Those with these suites and key exchanges, each in order, the best first.
    ///
    /// # Errors
    /// When a list is empty or has a name that is not known here.
    pub fn new<'a>(
        suites: impl IntoIterator<Item = &'a str>,
        exchanges: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TlsError> {
        let suites = named("cipher suite", &SUITES, suites)?;
        let kx_groups = named("key exchange", &EXCHANGES, exchanges)?;
        Ok(Self(Arc::new(CryptoProvider {
            cipher_suites: suites,
            kx_groups,
            ..(*provider()).clone()
        })))
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.0.clone()
    }

    fn suites(&self) -> Vec<CipherSuite> {
        let suites = self.0.cipher_suites.iter();
        suites.map(SupportedCipherSuite::suite).collect()
    }

    fn exchanges(&self) -> Vec<rustls::NamedGroup> {
        self.0.kx_groups.iter().map(|group| group.name()).collect()
    }
}

fn named<'a, T: Copy>(
    what: &str,
    known: &[(&str, T)],
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<T>, TlsError> {
    let mut found = Vec::new();
    for name in names {
        let one = known.iter().find(|(known, _)| *known == name);
        let (_, one) = one.ok_or_else(|| TlsError::Unusable {
            what: format!("{what} {name}"),
            reason: "it is not known here; upgrade this program".to_owned(),
        })?;
        found.push(*one);
    }
    if found.is_empty() {
        return Err(TlsError::Unusable {
            what: format!("the list of {what}s"),
            reason: "it is empty, and there must be something to speak with".to_owned(),
        });
    }
    Ok(found)
}

impl Default for Handshakes {
    fn default() -> Self {
        Self(provider())
    }
}

/// Two are the same that have the same names in the same order.
impl PartialEq for Handshakes {
    fn eq(&self, other: &Self) -> bool {
        (self.suites(), self.exchanges()) == (other.suites(), other.exchanges())
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handshakes({:?}, {:?})", self.suites(), self.exchanges())
    }
}

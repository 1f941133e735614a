//! Whom nobody is to believe any more, though its certificate is good.
//!
//! A leaf is refused by its key and not only by its serial number: who has a stolen key may have an
//! older leaf of it, too.

use std::collections::HashSet;

use rustls::CommonState;
use rustls_pki_types::CertificateDer;

use crate::trust::{VerifyError, fingerprint, only_uri};

/// What of a peer's leaf can be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLeaf {
    /// The identity that it names.
    pub identity: String,
    /// Its serial number: lower-case hex, two digits a byte, without zeros before it.
    pub serial: String,
    /// SHA-256 of its public key.
    pub key: Vec<u8>,
}

impl PeerLeaf {
    /// Reads a leaf. It says nothing of whether it is good.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(leaf: &CertificateDer<'_>) -> Result<Self, VerifyError> {
        let identity = only_uri(leaf)?;
        let parsed = x509_parser::parse_x509_certificate(leaf);
        let (_, parsed) = parsed.map_err(|_| VerifyError::Malformed)?;
        let serial = parsed.raw_serial().iter().skip_while(|byte| **byte == 0);
        Ok(Self {
            identity,
            serial: serial.map(|byte| format!("{byte:02x}")).collect(),
            key: fingerprint(parsed.public_key().raw),
        })
    }

    /// Of the other end of a connection whose handshake is done here.
    #[must_use]
    pub fn of(connection: &CommonState) -> Option<Self> {
        Self::read(connection.peer_certificates()?.first()?).ok()
    }
}

/// Whom nobody is to believe any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    everybody: bool,
    identities: HashSet<String>,
    serials: HashSet<String>,
    keys: HashSet<Vec<u8>>,
}

/// How it is that a peer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokedBy {
    /// What is revoked could not be read, so it may be anybody.
    #[error("what is revoked is not understood, so nobody is believed")]
    NotUnderstood,
    /// All leaves of its identity are.
    #[error("its identity is revoked")]
    Identity,
    /// Its leaf is, or another of the same key.
    #[error("its leaf is revoked")]
    Leaf,
}

impl Revocations {
    /// These identities, and the leaves with these serial numbers and keys (SHA-256), in the form
    /// that [`PeerLeaf`] has them.
    #[must_use]
    pub fn new(
        identities: impl IntoIterator<Item = String>,
        serials: impl IntoIterator<Item = String>,
        keys: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        Self {
            everybody: false,
            identities: identities.into_iter().collect(),
            serials: serials.into_iter().collect(),
            keys: keys.into_iter().collect(),
        }
    }

    /// Everybody: what is revoked is not understood.
    #[must_use]
    pub fn everybody() -> Self {
        Self {
            everybody: true,
            ..Self::default()
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether, and how, this leaf is revoked.
    #[must_use]
    pub fn covers(&self, leaf: &PeerLeaf) -> Option<RevokedBy> {
        if self.everybody {
            return Some(RevokedBy::NotUnderstood);
        }
        if self.identities.contains(&leaf.identity) {
            return Some(RevokedBy::Identity);
        }
        let is_leaf = self.serials.contains(&leaf.serial) || self.has_key(&leaf.key);
        is_leaf.then_some(RevokedBy::Leaf)
    }

    /// Whether a key is that of a revoked leaf: its SHA-256.
    #[must_use]
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.everybody || self.keys.contains(key)
    }

    /// Whether an identity is revoked as a whole.
    #[must_use]
    pub fn has_identity(&self, identity: &str) -> bool {
        self.everybody || self.identities.contains(identity)
    }

    /// Whether a leaf is revoked by its serial number, in the form that [`PeerLeaf`] has it.
    #[must_use]
    pub fn has_serial(&self, serial: &str) -> bool {
        self.everybody || self.serials.contains(serial)
    }

    pub(crate) fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), VerifyError> {
        if self.is_empty() {
            return Ok(());
        }
        let leaf = PeerLeaf::read(leaf)?;
        match self.covers(&leaf) {
            None => Ok(()),
            Some(by) => Err(VerifyError::Revoked { leaf, by }),
        }
    }
}

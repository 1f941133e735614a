//! The CA's own private keys. In memory they live inside aws-lc, which wipes them when freed;
//! outside it they are bytes that wipe themselves, on the way into or out of an envelope.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::Zeroizing;

use crate::error::CaError;

/// An EC P-256 key that signs certificates.
pub(crate) struct CaKey(EcdsaKeyPair);

impl CaKey {
    pub(crate) fn generate() -> Result<Self, CaError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self)
            .map_err(|_| CaError::make("a key", "the crypto library failed"))
    }

    /// From the PKCS#8 form that [`to_pkcs8`](Self::to_pkcs8) gave. `what` names it in errors.
    pub(crate) fn from_pkcs8(what: &str, der: &[u8]) -> Result<Self, CaError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(Self)
            .map_err(|_| CaError::state(what, "its private key is not an EC P-256 key"))
    }

    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CaError> {
        self.0
            .to_pkcs8v1()
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| CaError::make("a key's PKCS#8 form", "the crypto library failed"))
    }

    pub(crate) fn to_pem(&self) -> Result<SecretPem, CaError> {
        let der = self.to_pkcs8()?;
        let body = Zeroizing::new(STANDARD.encode(&*der));
        // Room for all at once: growing would leave copies behind, unwiped.
        let mut text = Zeroizing::new(String::with_capacity(body.len() * 2 + 64));
        text.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END PRIVATE KEY-----\n");
        Ok(SecretPem(text))
    }
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaKey(hidden)")
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RingUnspecified)
    }
}

/// A private key as PEM text, to be written to a file that only its owner may read. It wipes
/// itself, and prints only where [`as_str`](Self::as_str) is called.
pub struct SecretPem(Zeroizing<String>);

impl SecretPem {
    /// The text. Not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPem(hidden)")
    }
}

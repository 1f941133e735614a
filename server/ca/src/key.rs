//! The CA's own private keys. In memory they live inside aws-lc, which wipes them when freed;
//! outside it they are bytes that wipe themselves, on the way into or out of an envelope.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::CaError;

/// The kind of a CA's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyType {
    /// EC P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// EC P-384.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA of 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA of 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl KeyType {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// As Vault has it: the kind, and the bits.
    pub(crate) fn kind_and_bits(self) -> (&'static str, u64) {
        match self {
            Self::EcP256 => ("ec", 256),
            Self::EcP384 => ("ec", 384),
            Self::Rsa2048 => ("rsa", 2048),
            Self::Rsa4096 => ("rsa", 4096),
        }
    }
}

/// A key that signs certificates.
pub(crate) enum CaKey {
    Ec(EcdsaKeyPair, &'static SignatureAlgorithm),
    Rsa(RsaKeyPair),
}

/// The curves, and what signs with a key of each.
const CURVES: [(&EcdsaSigningAlgorithm, &SignatureAlgorithm); 2] = [
    (
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    ),
    (
        &ECDSA_P384_SHA384_ASN1_SIGNING,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ),
];

impl CaKey {
    pub(crate) fn generate(kind: KeyType) -> Result<Self, CaError> {
        let failed = |_| CaError::make("a key", "the crypto library failed");
        let [p256, p384] = CURVES;
        let ec = |(curve, signs): (&'static EcdsaSigningAlgorithm, _)| {
            let pair = EcdsaKeyPair::generate(curve).map_err(failed)?;
            Ok(Self::Ec(pair, signs))
        };
        let rsa = |size| RsaKeyPair::generate(size).map(Self::Rsa).map_err(failed);
        match kind {
            KeyType::EcP256 => ec(p256),
            KeyType::EcP384 => ec(p384),
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }

    /// From the PKCS#8 form that [`to_pkcs8`](Self::to_pkcs8) gave. `what` names it in errors.
    pub(crate) fn from_pkcs8(what: &str, der: &[u8]) -> Result<Self, CaError> {
        for (curve, signs) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der) {
                return Ok(Self::Ec(pair, signs));
            }
        }
        let pair = RsaKeyPair::from_pkcs8(der);
        pair.map(Self::Rsa)
            .map_err(|_| CaError::state(what, "its private key is neither EC P-256, P-384 nor RSA"))
    }

    /// From any form that PEM has for it: PKCS#8, SEC1, PKCS#1. `what` names it in errors.
    pub(crate) fn from_der(what: &str, key: &PrivateKeyDer<'_>) -> Result<Self, CaError> {
        let none = || {
            let reason = "it is neither EC P-256, EC P-384 nor RSA of 2048 to 8192 bits, which are \
                          the kinds that are taken; or it is damaged";
            CaError::input(what, reason)
        };
        match key {
            PrivateKeyDer::Pkcs8(der) => {
                Self::from_pkcs8(what, der.secret_pkcs8_der()).map_err(|_| none())
            }
            PrivateKeyDer::Sec1(der) => CURVES
                .into_iter()
                .find_map(|(curve, signs)| {
                    let pair = EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der());
                    pair.ok().map(|pair| Self::Ec(pair, signs))
                })
                .ok_or_else(none),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(Self::Rsa)
                .map_err(|_| none()),
            _ => Err(none()),
        }
    }

    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CaError> {
        let failed = |_| CaError::make("a key's PKCS#8 form", "the crypto library failed");
        match self {
            Self::Ec(pair, _) => pair
                .to_pkcs8v1()
                .map(|document| Zeroizing::new(document.as_ref().to_vec()))
                .map_err(failed),
            Self::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
        }
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
        match self {
            Self::Ec(pair, _) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ec(_, signs) => signs,
            Self::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let failed = |_| rcgen::Error::RingUnspecified;
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair, _) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
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

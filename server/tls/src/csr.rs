//! Keys that never leave memory, the requests made with them, and proof of having one.
//!
//! A request (PKCS#10) is taken for one thing only: the public key, once its signature shows that
//! whoever sent it has the private one. Every name in it is ignored, since the name is decided
//! by what the sender has proved to be.
//!
//! A [`LeafKey`]'s private part lives only inside aws-lc, which wipes it when freed; it is never
//! turned into bytes here. Only a [`GivenKey`] is, which is made to be given away.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id};
use webpki::aws_lc_rs as algorithms;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// The largest request that is read, in bytes.
pub const MAX_CSR: usize = 16 * 1024;

/// Separates these signatures from all others that the key makes (TLS handshakes, requests).
const NONCE_DOMAIN: &[u8] = b"meshctl proxy stream v1\0";

/// Why a request, or a proof of a key, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Larger than [`MAX_CSR`].
    #[error("certificate request: {0} bytes, more than the {MAX_CSR} allowed")]
    TooLarge(usize),
    /// Not a PKCS#10 request in DER.
    #[error("certificate request: not a PKCS#10 request in DER")]
    Malformed,
    /// The key is of a kind that the mesh does not certify.
    #[error(
        "certificate request: {0}; use EC P-256 or P-384, Ed25519, or RSA of 2048 bits or more"
    )]
    Key(String),
    /// The signature is not by the key in the request.
    #[error("certificate request: its signature is not by the key in it")]
    Signature,
    /// A nonce's signature is not by the key that it should be by.
    #[error("proof of key: the signature is not by the key that is known for this proxy")]
    Proof,
    /// The crypto library failed.
    #[error("making a {0} failed in the crypto library")]
    Crypto(&'static str),
}

/// An EC P-256 key, made in memory. Cheap to clone; no form of it prints.
#[derive(Clone)]
pub struct LeafKey(Arc<EcdsaKeyPair>);

impl LeafKey {
    /// A new key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, CsrError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(|pair| Self(Arc::new(pair)))
            .map_err(|_| CsrError::Crypto("key"))
    }

    /// A request for a certificate for this key: DER, no names.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn csr(&self) -> Result<Vec<u8>, CsrError> {
        request(&RequestSigner(self))
    }

    /// The public key: a DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rustls::sign::public_key_to_spki(&alg_id::ECDSA_P256, self.0.public_key()).to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CsrError> {
        self.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| CsrError::Crypto("signature"))
    }

    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        Arc::new(HandshakeKey(self.clone()))
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafKey(hidden)")
    }
}

/// A key that is made for somebody else: an application that is in the mesh by itself, and asks
/// its agent for a certificate with the key to it. No form of it prints.
pub struct GivenKey(rcgen::KeyPair);

impl GivenKey {
    /// A new key: EC P-256.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, CsrError> {
        rcgen::KeyPair::generate()
            .map(Self)
            .map_err(|_| CsrError::Crypto("key"))
    }

    /// A request for a certificate for this key: DER, no names.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn csr(&self) -> Result<Vec<u8>, CsrError> {
        request(&self.0)
    }

    /// The key itself: PKCS#8, PEM. To be handed to whoever it is for, and kept nowhere.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl fmt::Debug for GivenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenKey(hidden)")
    }
}

fn request(key: &impl rcgen::SigningKey) -> Result<Vec<u8>, CsrError> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params
        .serialize_request(key)
        .map_err(|_| CsrError::Crypto("certificate request"))?;
    Ok(request.der().to_vec())
}

/// The public key of a request, as a DER SubjectPublicKeyInfo (RFC 5280, section 4.1), once the
/// request's signature is seen to be by that key. Nothing else of the request is looked at.
///
/// # Errors
/// When it is too large, not a request, has a kind of key that the mesh does not certify, or is
/// signed by another key.
pub fn public_key(csr: &[u8]) -> Result<Vec<u8>, CsrError> {
    if csr.len() > MAX_CSR {
        return Err(CsrError::TooLarge(csr.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    let spki = info.subject_pki.raw;
    let wanted = allowed_algorithms(&info.subject_pki)?;
    let key_der = SubjectPublicKeyInfoDer::from(spki);
    let key = webpki::RawPublicKeyEntity::try_from(&key_der).map_err(|_| CsrError::Malformed)?;
    // The hash is named by the request's signature algorithm; a wrong guess cannot pass, so each
    // that fits the key is tried.
    let signature = &request.signature_value.data;
    wanted
        .iter()
        .any(|algorithm| {
            key.verify_signature(*algorithm, info.raw, signature)
                .is_ok()
        })
        .then(|| spki.to_vec())
        .ok_or(CsrError::Signature)
}

/// The fuzz target: any bytes are refused, or are a request whose key can be read and that is good
/// only as a whole.
///
/// # Panics
/// When that does not hold: that is the bug it looks for.
pub fn fuzz(data: &[u8]) {
    let Ok(key) = public_key(data) else { return };
    assert!(key.len() <= data.len());
    let spki = SubjectPublicKeyInfoDer::from(key.as_slice());
    assert!(webpki::RawPublicKeyEntity::try_from(&spki).is_ok());
    let longer = [data, &[0]].concat();
    assert!(public_key(&longer).is_err());
    assert!(verify_nonce(&key, "proxy", b"nonce", data).is_err());
}

type Algorithms = Vec<&'static dyn SignatureVerificationAlgorithm>;

/// The signature algorithms that a key of this kind may use, or why it is refused.
fn allowed_algorithms(
    spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>,
) -> Result<Algorithms, CsrError> {
    const EC: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const RSA: &str = "1.2.840.113549.1.1.1";
    const ED25519: &str = "1.3.101.112";
    let kind = spki.algorithm.algorithm.to_id_string();
    match kind.as_str() {
        EC => {
            let curve = spki
                .algorithm
                .parameters
                .as_ref()
                .and_then(|p| p.as_oid().ok())
                .map(|oid| oid.to_id_string())
                .unwrap_or_default();
            match curve.as_str() {
                P256 => Ok(vec![
                    algorithms::ECDSA_P256_SHA256,
                    algorithms::ECDSA_P256_SHA384,
                ]),
                P384 => Ok(vec![
                    algorithms::ECDSA_P384_SHA384,
                    algorithms::ECDSA_P384_SHA256,
                ]),
                _ => Err(CsrError::Key(format!("an EC key on the curve {curve:?}"))),
            }
        }
        RSA => {
            let bits = match spki.parsed() {
                Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => rsa.key_size(),
                _ => return Err(CsrError::Malformed),
            };
            if !(2048..=8192).contains(&bits) {
                return Err(CsrError::Key(format!("an RSA key of {bits} bits")));
            }
            Ok(vec![
                algorithms::RSA_PKCS1_2048_8192_SHA256,
                algorithms::RSA_PKCS1_2048_8192_SHA384,
                algorithms::RSA_PKCS1_2048_8192_SHA512,
            ])
        }
        ED25519 => Ok(vec![algorithms::ED25519]),
        _ => Err(CsrError::Key(format!("a key of the kind {kind}"))),
    }
}

/// Signs a peer's nonce, to prove that this key is ours. `context` says what for: the proxy's id.
///
/// # Errors
/// When the crypto library fails.
pub fn sign_nonce(key: &LeafKey, context: &str, nonce: &[u8]) -> Result<Vec<u8>, CsrError> {
    key.sign(&nonce_message(context, nonce))
}

/// Whether `signature` is by the key `spki` (DER SubjectPublicKeyInfo, EC P-256) over this nonce
/// in this context.
///
/// # Errors
/// [`CsrError::Proof`] when it is not.
pub fn verify_nonce(
    spki: &[u8],
    context: &str,
    nonce: &[u8],
    signature: &[u8],
) -> Result<(), CsrError> {
    let spki = SubjectPublicKeyInfoDer::from(spki);
    let key = webpki::RawPublicKeyEntity::try_from(&spki).map_err(|_| CsrError::Proof)?;
    key.verify_signature(
        algorithms::ECDSA_P256_SHA256,
        &nonce_message(context, nonce),
        signature,
    )
    .map_err(|_| CsrError::Proof)
}

/// Lengths stand before the parts, so that no two pairs make the same message.
fn nonce_message(context: &str, nonce: &[u8]) -> Vec<u8> {
    let mut message = NONCE_DOMAIN.to_vec();
    for part in [context.as_bytes(), nonce] {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part);
    }
    message
}

/// rcgen's view of the key.
struct RequestSigner<'a>(&'a LeafKey);

impl rcgen::PublicKeyData for RequestSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for RequestSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(message)
            .map_err(|_| rcgen::Error::RingUnspecified)
    }
}

/// rustls's view of the key.
#[derive(Debug)]
struct HandshakeKey(LeafKey);

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(HandshakeKey(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.public_key()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map_err(|e| rustls::Error::General(e.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

//! PEM files and texts, with errors that say which file and what is wrong with it.
//!
//! The commonest mistakes (the two files swapped, an encrypted key, a request in place of a
//! certificate) are recognised and named, since "no items found" costs an operator an hour.

use std::fmt;
use std::io::Read;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::error::TlsError;

/// The largest PEM file that is read, in bytes.
pub const MAX_PEM_FILE: u64 = 1024 * 1024;

/// A private key. It is wiped from memory when dropped, and no form of it prints.
pub struct PrivateKey(PrivateKeyDer<'static>);

impl PrivateKey {
    /// A key from its DER form.
    #[must_use]
    pub fn from_der(der: PrivateKeyDer<'static>) -> Self {
        Self(der)
    }

    /// A copy, for whoever takes a key by value and wipes it.
    #[must_use]
    pub fn copy(&self) -> PrivateKeyDer<'static> {
        self.0.clone_key()
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// The certificates of a PEM file, in their order; at least one.
///
/// # Errors
/// When the file cannot be read, is larger than [`MAX_PEM_FILE`], or as [`certificates`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read("certificate file", path)?;
    certificates(&path.display().to_string(), &text)
}

/// The private key of a PEM file.
///
/// # Errors
/// When the file cannot be read, is larger than [`MAX_PEM_FILE`], or as [`private_key`].
pub fn read_private_key(path: &Path) -> Result<PrivateKey, TlsError> {
    let text = read("key file", path)?;
    private_key(&path.display().to_string(), &text)
}

/// The certificates in a PEM text, in their order; at least one. `what` names the text in errors.
///
/// # Errors
/// When there is none, or one is not a certificate; the reason says which.
pub fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::Pem {
        what: what.to_owned(),
        reason,
    };
    let mut found = Vec::new();
    for (number, item) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let number = number + 1;
        let der: CertificateDer<'static> =
            item.map_err(|e| error(format!("certificate {number}: {}", pem_reason(&e))))?;
        webpki::EndEntityCert::try_from(&der).map_err(|e| {
            error(format!(
                "certificate {number}: not an X.509 v3 certificate ({e})"
            ))
        })?;
        found.push(der);
    }
    if found.is_empty() {
        return Err(error(missing("certificate", "CERTIFICATE", pem)));
    }
    Ok(found)
}

/// The private key in a PEM text: PKCS#8, SEC1 or PKCS#1. `what` names the text in errors.
///
/// # Errors
/// When there is none, or it is encrypted or not well formed.
pub fn private_key(what: &str, pem: &[u8]) -> Result<PrivateKey, TlsError> {
    let error = |reason: String| TlsError::Pem {
        what: what.to_owned(),
        reason,
    };
    match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(Ok(der)) => Ok(PrivateKey(der)),
        Some(Err(e)) => Err(error(pem_reason(&e))),
        None => Err(error(missing("private key", "PRIVATE KEY", pem))),
    }
}

/// Why there is none of what was looked for.
fn missing(wanted: &str, label: &str, pem: &[u8]) -> String {
    let has = |text: &str| pem.windows(text.len()).any(|w| w == text.as_bytes());
    if pem.iter().all(u8::is_ascii_whitespace) {
        "it is empty".to_owned()
    } else if has("ENCRYPTED PRIVATE KEY") {
        "the private key is encrypted; give it without a passphrase".to_owned()
    } else if has("PRIVATE KEY-----") {
        format!("it holds a private key, not a {wanted}; are the two files swapped?")
    } else if has("-----BEGIN CERTIFICATE REQUEST") {
        format!("it holds a certificate request, not a {wanted}")
    } else if has("-----BEGIN CERTIFICATE-----") {
        format!("it holds a certificate, not a {wanted}; are the two files swapped?")
    } else {
        format!("there is no -----BEGIN {label}----- line in it; it must be PEM text")
    }
}

/// rustls-pki-types prints lines of the file as lists of numbers, and one may be a secret.
fn pem_reason(error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "the -----END line is missing; is the file cut off?",
        Error::IllegalSectionStart { .. } => "a -----BEGIN line is not well formed",
        Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        Error::SectionTooLarge => "it is too large",
        _ => "it is not PEM",
    }
    .to_owned()
}

fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let error = |source| TlsError::ReadFile {
        what,
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(error)?;
    // Room for all of it at once: growing would leave copies of a key behind, unwiped.
    let size = file.metadata().map_err(error)?.len().min(MAX_PEM_FILE);
    let mut text = Zeroizing::new(Vec::with_capacity(size as usize + 64));
    file.take(MAX_PEM_FILE + 1)
        .read_to_end(&mut text)
        .map_err(error)?;
    if text.len() as u64 > MAX_PEM_FILE {
        return Err(TlsError::Pem {
            what: path.display().to_string(),
            reason: format!("it is larger than {MAX_PEM_FILE} bytes"),
        });
    }
    Ok(text)
}

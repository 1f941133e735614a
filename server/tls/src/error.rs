//! What can go wrong before a handshake: files, PEM, keys. What a handshake refuses is
//! [`VerifyError`](crate::VerifyError).

use std::error::Error;
use std::path::PathBuf;

use crate::id::IdError;
use crate::trust::VerifyError;

/// An error of certificates, keys and trust, each naming the thing that it speaks of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("{what} {}: {source}", path.display())]
    ReadFile {
        /// What the file should hold, such as `certificate file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A PEM text does not hold what it should.
    #[error("{what}: {reason}")]
    Pem {
        /// Which text: a file's path, or words such as `leaf chain`.
        what: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A certificate or key is not usable.
    #[error("{what}: {reason}")]
    Unusable {
        /// Which one.
        what: String,
        /// Why.
        reason: String,
    },
    /// The private key is not the one of the certificate.
    #[error("{certificate}: its key is not the one in {key}; give the two that were made together")]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: String,
        /// Where the key came from.
        key: String,
    },
    /// The certificate's identity is not of the kind that this place needs.
    #[error("{what}: {source}")]
    Identity {
        /// Which certificate.
        what: String,
        /// What is wrong with its identity.
        source: IdError,
    },
    /// Our own certificate would be refused by our own peers.
    #[error("{what}: {source}")]
    NotTrusted {
        /// Which certificate.
        what: String,
        /// What a peer would say.
        source: VerifyError,
    },
    /// A connection could not be made or was refused in its handshake.
    #[error("connection to {address}: {reason}")]
    Connect {
        /// The peer's address as it was given.
        address: String,
        /// Why, in words; see [`explain`].
        reason: String,
    },
    /// This side has only a CA: it can neither serve nor prove who it is.
    #[error("there is no certificate to serve with; give tls cert_file and key_file")]
    NoCertificate,
    /// rustls refused a configuration.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The words for an error from a TLS handshake, with the reason that a verifier here gave.
///
/// rustls wraps a verifier's error several times, and prints it in its Debug form; this digs out
/// the sentence. For other errors it is their own text.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    if let Some(rustls) = find_rustls(error) {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = rustls
            && let Some(verify) = other.0.downcast_ref::<VerifyError>()
        {
            return verify.to_string();
        }
        return match rustls {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                "the peer's certificate is not signed by a CA that is trusted here".to_owned()
            }
            rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => {
                VerifyError::Malformed.to_string()
            }
            rustls::Error::PeerIncompatible(why) => incompatible(why),
            rustls::Error::NoCertificatesPresented => VerifyError::NoCertificate.to_string(),
            rustls::Error::AlertReceived(alert) => {
                format!("the peer refused the connection (TLS alert {alert:?}); its log says why")
            }
            other => other.to_string(),
        };
    }
    error.to_string()
}

/// Why two sides found nothing to speak with; the names are those of the mesh's `tls` policy.
fn incompatible(why: &rustls::PeerIncompatible) -> String {
    use rustls::PeerIncompatible as Why;
    match why {
        Why::Tls12NotOfferedOrEnabled
        | Why::SupportedVersionsExtensionRequired
        | Why::ServerDoesNotSupportTls12Or13
        | Why::ServerTlsVersionIsDisabledByOurConfig => {
            "the peer speaks no TLS 1.3, and nothing older is spoken here".to_owned()
        }
        Why::NoCipherSuitesInCommon => {
            "the peer offers no cipher suite that is allowed here (tls policy: cipher_suites)"
                .to_owned()
        }
        Why::NoKxGroupsInCommon | Why::NamedGroupsExtensionRequired => {
            "the peer offers no key exchange that is allowed here (tls policy: key_exchange)"
                .to_owned()
        }
        other => rustls::Error::PeerIncompatible(other.clone()).to_string(),
    }
}

/// Follows `source()` and the insides of an `io::Error` (whose `source()` skips what it wraps).
pub(crate) fn find_rustls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match current.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => current.source(),
        };
    }
    None
}

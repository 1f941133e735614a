//! The one place where a certificate becomes an identity.
//!
//! A chain is good when it leads to one of the roots (webpki decides: signatures, times, CA flags,
//! key usages) and the leaf then has exactly one URI name, of the trust domain that those roots
//! vouch for. Roots and trust domain travel together, since roots say nothing of other domains.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

use crate::error::TlsError;
use crate::id::{ClusterId, IdError, Role, SpiffeId, TrustDomain};
use crate::revoked::{PeerLeaf, RevokedBy};
use crate::{pem, provider};

/// What a root is known by: SHA-256 of its certificate's DER.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().to_vec()
}

/// Roots, and the trust domain whose identities they vouch for.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Trust {
    /// Roots of a mesh from PEM text. `what` names the text in errors.
    ///
    /// # Errors
    /// When the text has no certificate, or one cannot be a root.
    pub fn from_pem(domain: TrustDomain, what: &str, pem: &[u8]) -> Result<Self, TlsError> {
        Self::new(domain, what, &pem::certificates(what, pem)?)
    }

    /// Roots of a mesh from DER certificates; at least one. `what` names them in errors.
    ///
    /// # Errors
    /// When there is none, or one cannot be a root.
    pub fn new(
        domain: TrustDomain,
        what: &str,
        roots: &[CertificateDer<'_>],
    ) -> Result<Self, TlsError> {
        let error = |reason: String| TlsError::Unusable {
            what: what.to_owned(),
            reason,
        };
        if roots.is_empty() {
            return Err(error("there is no root certificate".into()));
        }
        let mut anchors = Vec::with_capacity(roots.len());
        for (index, root) in roots.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(root)
                .map_err(|e| error(format!("root certificate {}: {e}", index + 1)))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self { domain, anchors })
    }

    /// The trust domain that the roots vouch for.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// How many roots there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Never: there is at least one root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// The identity that a chain (leaf first) proves at a time, when it is a service of the mesh
    /// and may act as a TLS client. For a chain that came by other ways than a handshake.
    ///
    /// The caller must still see that the peer has the leaf's key.
    ///
    /// # Errors
    /// When the chain does not lead to a root, is out of its time, or has no such identity.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SpiffeId, VerifyError> {
        let (leaf, rest) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        let expect = Expect::AnyService;
        let uri = self.check(leaf, rest, unix(now), Usage::Client, &expect)?;
        uri.parse().map_err(VerifyError::Identity)
    }

    /// Chain, then name, then expectation. Returns the leaf's URI.
    pub(crate) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
        expect: &Expect,
    ) -> Result<String, VerifyError> {
        let cert = EndEntityCert::try_from(leaf).map_err(|_| VerifyError::Malformed)?;
        let usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let verified = cert.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        );
        let verified = verified.map_err(|e| {
            VerifyError::Chain(Box::new(ChainError {
                inner: e,
                domain: self.domain.clone(),
            }))
        })?;
        let uri = only_uri(leaf)?;
        self.meets(&uri, expect)?;
        if matches!(expect, Expect::AnyService | Expect::Service(_)) {
            leaf_usage(leaf)?;
            for signer in verified.intermediate_certificates() {
                signer_usage(&signer.der())?;
            }
        }
        Ok(uri)
    }

    fn meets(&self, uri: &str, expect: &Expect) -> Result<(), VerifyError> {
        let wrong = || VerifyError::WrongIdentity {
            expected: self.describe(expect),
            came: uri.to_owned(),
        };
        match expect {
            Expect::AnyService | Expect::Service(_) => {
                let id: SpiffeId = uri.parse().map_err(VerifyError::Identity)?;
                if id.trust_domain() != self.domain.as_str() {
                    return Err(wrong());
                }
                match expect {
                    Expect::Service(expected) if *expected != id => Err(wrong()),
                    _ => Ok(()),
                }
            }
            Expect::Roles(roles) => {
                let id: ClusterId = uri.parse().map_err(VerifyError::Identity)?;
                roles.contains(&id.role()).then_some(()).ok_or_else(wrong)
            }
            Expect::Member(expected) => {
                let id: ClusterId = uri.parse().map_err(VerifyError::Identity)?;
                (id == *expected).then_some(()).ok_or_else(wrong)
            }
        }
    }

    fn describe(&self, expect: &Expect) -> String {
        match expect {
            Expect::AnyService => format!("a service of trust domain {}", self.domain),
            Expect::Service(id) => id.to_string(),
            Expect::Roles(roles) => {
                let words: Vec<_> = roles.iter().map(|r| r.as_str()).collect();
                format!("a certificate for {}", words.join(" or "))
            }
            Expect::Member(id) => id.to_string(),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({}, {} roots)", self.domain, self.anchors.len())
    }
}

/// Whom a side of a connection is ready to speak with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect {
    /// Any service of the trust domain; what it may do is asked later, of the intentions.
    AnyService,
    /// Exactly this service.
    Service(SpiffeId),
    /// A part of the cluster that has one of these roles.
    Roles(Vec<Role>),
    /// Exactly this part of the cluster.
    Member(ClusterId),
}

/// On which side of the connection the certificate was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
}

/// Why a peer's certificate was refused.
///
/// Its `Debug` form is the sentence too, since rustls prints a verifier's error that way.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The peer sent no certificate.
    #[error("the peer gave no certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the peer's certificate is not well formed")]
    Malformed,
    /// The chain does not lead to a root, or is out of its time.
    #[error(transparent)]
    Chain(Box<ChainError>),
    /// There must be exactly one URI name.
    #[error("the peer's certificate has {0} URI names; an identity is exactly one")]
    UriCount(usize),
    /// The URI name is not an identity of the right kind.
    #[error("the peer's certificate: {0}")]
    Identity(IdError),
    /// The key usage of the leaf, or of one that signed, is not what SPIFFE asks for.
    #[error("the peer's certificate, or one of its chain: {0}")]
    KeyUsage(&'static str),
    /// A valid identity, but not the one that was called for.
    #[error("expected {expected}, but {came} came")]
    WrongIdentity {
        /// Whom we wanted.
        expected: String,
        /// Who it was.
        came: String,
    },
    /// A good certificate that nobody is to believe any more.
    #[error("{by}: {} with the serial number {}", leaf.identity, leaf.serial)]
    Revoked {
        /// Its leaf.
        leaf: PeerLeaf,
        /// How it is revoked.
        by: RevokedBy,
    },
}

impl fmt::Debug for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl VerifyError {
    /// Whether it is that nobody is to believe the peer any more.
    #[must_use]
    pub fn is_revoked(error: &rustls::Error) -> bool {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                let inner = other.0.downcast_ref::<Self>();
                matches!(inner, Some(Self::Revoked { .. }))
            }
            _ => false,
        }
    }

    /// Whether the only fault is that the certificate's time is over.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Chain(chain) if matches!(chain.inner, webpki::Error::CertExpired { .. }))
    }
}

/// webpki's refusal, in our words.
#[derive(Clone)]
pub struct ChainError {
    inner: webpki::Error,
    domain: TrustDomain,
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use webpki::Error;
        match &self.inner {
            // The second is a CA of the same name as a root of ours, but another.
            Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => write!(
                f,
                "the peer's certificate is not signed by a root of trust domain {}",
                self.domain
            ),
            Error::CertExpired { time, not_after } => write!(
                f,
                "the peer's certificate, or one of its chain, expired {} s ago",
                time.as_secs().saturating_sub(not_after.as_secs())
            ),
            Error::CertNotValidYet { time, not_before } => write!(
                f,
                "the peer's certificate is valid only in {} s; do the clocks differ?",
                not_before.as_secs().saturating_sub(time.as_secs())
            ),
            Error::CaUsedAsEndEntity => {
                f.write_str("the peer showed a CA certificate where a leaf must stand")
            }
            Error::RequiredEkuNotFoundContext(_) => f.write_str(
                "the peer's certificate is not for TLS: its extended key usage lacks \
                 client or server authentication",
            ),
            other => write!(f, "the peer's certificate: {other}"),
        }
    }
}

impl fmt::Debug for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ChainError {}

impl From<VerifyError> for rustls::Error {
    /// The reason stays inside for [`explain`](crate::explain); where rustls has a variant with
    /// the right TLS alert for the other side, that one is used.
    fn from(error: VerifyError) -> Self {
        use webpki::Error;
        let certificate = match &error {
            VerifyError::Malformed => CertificateError::BadEncoding,
            VerifyError::Chain(chain) => match chain.inner {
                Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
                    CertificateError::UnknownIssuer
                }
                Error::CertExpired { time, not_after } => {
                    CertificateError::ExpiredContext { time, not_after }
                }
                Error::CertNotValidYet { time, not_before } => {
                    CertificateError::NotValidYetContext { time, not_before }
                }
                _ => other(error),
            },
            _ => other(error),
        };
        Self::InvalidCertificate(certificate)
    }
}

fn other(error: VerifyError) -> CertificateError {
    CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)))
}

/// The leaf's one URI name.
///
/// webpki skips a URI name that is not UTF-8; so x509-parser counts them first, and what it cannot
/// read is refused. It only narrows: the name itself is the one that webpki read.
pub(crate) fn only_uri(leaf: &CertificateDer<'_>) -> Result<String, VerifyError> {
    let (rest, parsed) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| VerifyError::Malformed)?;
    if !rest.is_empty() {
        return Err(VerifyError::Malformed);
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| VerifyError::Malformed)?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    if names.iter().any(|n| matches!(n, GeneralName::Invalid(..))) {
        return Err(VerifyError::Malformed);
    }
    let count = names
        .iter()
        .filter(|n| matches!(n, GeneralName::URI(_)))
        .count();
    if count != 1 {
        return Err(VerifyError::UriCount(count));
    }
    let cert = EndEntityCert::try_from(leaf).map_err(|_| VerifyError::Malformed)?;
    let mut uris = cert.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        _ => Err(VerifyError::Malformed),
    }
}

/// SPIFFE's rules for the key usage of a leaf (X509-SVID, section 4.3), which webpki does not look
/// at: it signs handshakes, and nothing else of weight.
fn leaf_usage(leaf: &CertificateDer<'_>) -> Result<(), VerifyError> {
    let usage = key_usage(leaf)?.ok_or(VerifyError::KeyUsage(
        "a leaf says what its key is for, and this one has no key usage",
    ))?;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(VerifyError::KeyUsage(
            "a leaf's key may not sign certificates or revocation lists, and its key usage says that it does",
        ));
    }
    usage
        .digital_signature()
        .then_some(())
        .ok_or(VerifyError::KeyUsage(
            "a leaf's key usage must have digital signature",
        ))
}

/// And for one that signs: it must be there to sign certificates.
fn signer_usage(signer: &CertificateDer<'_>) -> Result<(), VerifyError> {
    key_usage(signer)?
        .is_some_and(|usage| usage.key_cert_sign())
        .then_some(())
        .ok_or(VerifyError::KeyUsage(
            "the key usage of an intermediate must have certificate signing",
        ))
}

fn key_usage(
    cert: &CertificateDer<'_>,
) -> Result<Option<x509_parser::extensions::KeyUsage>, VerifyError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(cert).map_err(|_| VerifyError::Malformed)?;
    let usage = parsed.key_usage().map_err(|_| VerifyError::Malformed)?;
    Ok(usage.map(|extension| *extension.value))
}

/// webpki's clock; a time before 1970 is 1970.
pub(crate) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}

/// The fuzz target of certificates: any bytes as a leaf, as an intermediate and as a root are
/// refused, or are what the rest of the mesh relies on.
///
/// # Panics
/// When that does not hold: that is the bug it looks for.
pub fn fuzz_certificate(data: &[u8]) {
    let der = CertificateDer::from(data);
    let leaf = crate::Leaf::parse("fuzz", vec![der.clone().into_owned()]);
    let named = only_uri(&der);
    if let (Ok(leaf), Ok(named)) = (&leaf, &named) {
        assert_eq!(leaf.uri.as_ref(), Some(named));
    }
    if let Ok(id) = named.and_then(|uri| uri.parse::<SpiffeId>().map_err(VerifyError::Identity)) {
        assert_eq!(id.to_string().parse().as_ref(), Ok(&id));
    }
    let _ = (leaf_usage(&der), signer_usage(&der));
    let Ok(domain) = "fuzz.mesh".parse::<TrustDomain>() else {
        return;
    };
    let Ok(trust) = Trust::new(domain, "fuzz", std::slice::from_ref(&der)) else {
        return;
    };
    // A root of itself signs for nobody else, and shown as a leaf it is no service of that domain
    // unless it says so in every way; whoever it then is, the leaf says it as well.
    let chain = [der.clone(), der];
    for chain in [&chain[..1], &chain[..]] {
        if let Ok(id) = trust.verify(chain, SystemTime::now()) {
            assert_eq!(id.trust_domain(), "fuzz.mesh");
            assert_eq!(leaf.as_ref().ok().and_then(crate::Leaf::spiffe), Some(id));
        }
    }
}

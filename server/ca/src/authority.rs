//! What a certificate authority is to the mesh.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use mesh_tls::csr::{self, CsrError};
use mesh_tls::{SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::state::RootEntry;
use crate::x509;

/// Where an authority takes the time from; a test gives its own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How long before now a leaf is valid from, unless told otherwise: clocks of nodes differ.
pub const DEFAULT_BACKDATE: Duration = Duration::from_secs(60);

/// A certificate authority: the built-in one, Vault, AWS Private CA.
///
/// Any call may take seconds (the caller sets its own limit) and may fail in the ways that
/// [`AuthorityError`] tells apart; the caller retries only what can get better.
#[async_trait]
pub trait Authority: fmt::Debug + Send + Sync {
    /// Which kind: `built_in`, `vault`, `aws_pca`.
    fn provider(&self) -> &'static str;

    /// The trust domain that it signs for, and no other.
    fn trust_domain(&self) -> &TrustDomain;

    /// All roots to trust, at least one; exactly one is active (what it now signs leads to it).
    async fn roots(&self) -> Result<Vec<RootEntry>, AuthorityError>;

    /// A leaf for the request's public key and identity: exactly that identity, the DNS names that
    /// the request has, and no other name.
    ///
    /// It may live shorter than asked for, never longer.
    async fn sign_leaf(&self, request: &LeafRequest) -> Result<IssuedLeaf, AuthorityError>;

    /// How it does. Never fails: being out of reach is an answer.
    async fn status(&self) -> AuthorityStatus;
}

/// A wish for a leaf. It can only be made from a request whose signature holds.
#[derive(Clone)]
pub struct LeafRequest {
    csr: Vec<u8>,
    public_key: Vec<u8>,
    id: SpiffeId,
    dns_names: Vec<String>,
    ttl: Duration,
    backdate: Duration,
}

impl LeafRequest {
    /// A leaf for the key of this certificate request (DER), with this identity, for this long.
    ///
    /// The identity is the server's decision, from what the asking stream has proved to be. Of
    /// the request only the public key counts, whatever else it asks for.
    ///
    /// # Errors
    /// When the request is malformed, too large, has a key of a kind that is not certified, or is
    /// not signed by its own key.
    pub fn from_csr(csr: &[u8], id: SpiffeId, ttl: Duration) -> Result<Self, CsrError> {
        Ok(Self {
            public_key: csr::public_key(csr)?,
            csr: csr.to_vec(),
            id,
            dns_names: Vec::new(),
            ttl,
            backdate: DEFAULT_BACKDATE,
        })
    }

    /// The same, good for these DNS names as well: an ingress gateway's, by which those outside
    /// the mesh know it. They say nothing to a part of the mesh, which goes by the identity.
    #[must_use]
    pub fn for_dns_names(mut self, names: Vec<String>) -> Self {
        self.dns_names = names;
        self
    }

    /// The same, valid from this long before now.
    #[must_use]
    pub fn backdated(mut self, backdate: Duration) -> Self {
        self.backdate = backdate;
        self
    }

    /// The public key: a DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The request itself, for a provider that takes no bare key. Its names must be overridden.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The identity to certify.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The DNS names to certify beside it; mostly none.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// How long from now the leaf should live.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long before now it is valid from.
    #[must_use]
    pub fn backdate(&self) -> Duration {
        self.backdate
    }
}

impl fmt::Debug for LeafRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafRequest({}, {:?})", self.id, self.ttl)
    }
}

/// A signed leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLeaf {
    /// Leaf first, then intermediates; never the root. DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The serial number: lower-case hex.
    pub serial: String,
    /// Valid from, in seconds since 1970.
    pub not_before: u64,
    /// Valid to, in seconds since 1970.
    pub not_after: u64,
}

impl IssuedLeaf {
    /// The chain as PEM text, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|c| x509::certificate_pem(c))
            .collect()
    }
}

/// How an authority does, for `meshctl` and the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Which kind it is.
    pub provider: String,
    /// Whether it can sign now.
    pub healthy: bool,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The id of the root that it signs under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_root: Option<String>,
    /// When the intermediate that signs leaves ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_not_after: Option<u64>,
}

/// Why an authority did not answer as asked. `reason` is in the provider's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// It cannot be reached, or cannot sign now. Try again.
    #[error("ca {provider}: unavailable: {reason}")]
    Unavailable {
        /// Which kind of authority.
        provider: &'static str,
        /// Why.
        reason: String,
        /// Not before this time has passed, when the provider said so.
        retry_after: Option<Duration>,
    },
    /// It was asked too often. Try again, later.
    #[error("ca {provider}: too many requests: {reason}")]
    RateLimited {
        /// Which kind of authority.
        provider: &'static str,
        /// Why.
        reason: String,
        /// Not before this time has passed, when the provider said so.
        retry_after: Option<Duration>,
    },
    /// It will not do this for us. Somebody must change a policy first.
    #[error("ca {provider}: refused: {reason}")]
    Denied {
        /// Which kind of authority.
        provider: &'static str,
        /// Why.
        reason: String,
    },
    /// The request makes no sense to it. Asking again changes nothing.
    #[error("ca {provider}: invalid request: {reason}")]
    Invalid {
        /// Which kind of authority.
        provider: &'static str,
        /// Why.
        reason: String,
    },
}

impl AuthorityError {
    /// Whether the same request can succeed later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::RateLimited { .. })
    }

    /// How long the provider asks us to wait, when it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after, .. } => {
                *retry_after
            }
            Self::Denied { .. } | Self::Invalid { .. } => None,
        }
    }
}

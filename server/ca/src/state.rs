//! What of a CA stands in the replicated state.
//!
//! The state machine keeps it as one JSON value that it does not look into. Every field that is
//! not there from the beginning needs a default, and none ever changes its meaning, since old
//! snapshots must load.

use std::time::Duration;

use mesh_tls::{IdError, Trust, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::cross::Cross;
use crate::error::CaError;
use crate::key::KeyType;
use crate::keyring::SealedWith;
use crate::rotation::Rotation;
use crate::seal::Sealed;
use crate::x509;

/// The provider's name of the built-in CA.
pub const BUILT_IN: &str = "built_in";

/// The provider's name of HashiCorp Vault, and of what speaks as it does.
pub const VAULT: &str = "vault";

/// The provider's name of AWS Private CA.
pub const AWS_PCA: &str = "aws_pca";

/// The shortest and the longest life of a leaf that a configuration can ask for.
const LEAF_TTL: (u64, u64) = (1, 365 * DAY);
pub(crate) const DAY: u64 = 24 * 3600;

/// A CA of the mesh, as it is replicated. Private keys are sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaState {
    /// Who signs: `built_in`, `vault`, `aws_pca`.
    pub provider: String,
    /// The trust domain; never changes.
    pub trust_domain: String,
    /// The server cluster's own name, for display.
    #[serde(default)]
    pub dc: String,
    /// What the mesh trusts. Several while one replaces another; one is active.
    pub roots: Vec<RootEntry>,
    /// What signs leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate: Option<IntermediateEntry>,
    /// The private key of the active root; only of the built-in CA, and not of one that was
    /// imported without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<Sealed>,
    /// What an operator can set.
    #[serde(default)]
    pub config: CaConfig,
    /// A change of the root that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Within how many seconds leaves of other roots than the active one are to be replaced.
    #[serde(default)]
    pub reissue_seconds: u64,
    /// What all private keys here are sealed with.
    #[serde(default)]
    pub sealing: SealedWith,
}

impl CaState {
    /// The trust domain, checked.
    ///
    /// # Errors
    /// When the text is not a trust domain.
    pub fn domain(&self) -> Result<TrustDomain, IdError> {
        self.trust_domain.parse()
    }

    /// The root that signs now.
    #[must_use]
    pub fn active_root(&self) -> Option<&RootEntry> {
        self.roots.iter().find(|root| root.active)
    }

    /// Whether the next intermediate can be made here, or in Vault. Not of a CA that was imported
    /// without its root's key: there it is imported.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.provider != BUILT_IN || self.root_key.is_some()
    }

    /// All roots as one PEM text, in their order: what proxies get.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| root.pem.as_str()).collect()
    }

    /// What a verifier needs.
    ///
    /// # Errors
    /// When the trust domain or a root is not well formed.
    pub fn trust(&self) -> Result<Trust, CaError> {
        let domain = self
            .domain()
            .map_err(|e| CaError::state("trust domain", e))?;
        Trust::from_pem(domain, "roots of the mesh", self.roots_pem().as_bytes())
            .map_err(|e| CaError::state("roots", e))
    }
}

/// What an operator can set on a CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaConfig {
    /// How long a leaf lives, in seconds. 24 h; seconds are for tests.
    pub leaf_ttl_seconds: u64,
    /// How long the intermediate lives, in seconds. One year.
    pub intermediate_ttl_seconds: u64,
    /// How long a root lives, in seconds. Ten years.
    pub root_ttl_seconds: u64,
    /// The kind of the keys of root and intermediate. A root that is in Vault already has its own.
    pub key_type: KeyType,
    /// Where in Vault it is; only of a CA in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultPlace>,
    /// Which CA in AWS it is; only of one in AWS Private CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_pca: Option<AwsPlace>,
}

/// Which CA in AWS Private CA the mesh's is below. How a server reaches AWS is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsPlace {
    /// Its ARN.
    pub existing_arn: String,
}

/// Where in Vault a CA is, and who signs its leaves. How a server reaches Vault is no part of it:
/// that is each server's own affair, and never replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultPlace {
    /// The mount of the PKI engine that has the root.
    pub root_pki_path: String,
    /// The mount of the PKI engine that has our intermediate; unused with [`LeafSigning::Cluster`].
    pub intermediate_pki_path: String,
    /// Who signs leaves.
    pub leaf_signing: LeafSigning,
}

/// A role of a PKI engine in Vault, which signs leaves with one intermediate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultRole {
    /// Where the engine is mounted.
    pub mount: String,
    /// The role.
    pub role: String,
}

/// Who signs the leaves of a CA in Vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafSigning {
    /// Vault, each of them: the intermediate's key never leaves it.
    Vault,
    /// The servers, with an intermediate that Vault's root signed and whose key is sealed in the
    /// state: Vault is asked once a year.
    #[default]
    Cluster,
}

impl LeafSigning {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Cluster => "cluster",
        }
    }
}

impl Default for CaConfig {
    fn default() -> Self {
        Self {
            leaf_ttl_seconds: DAY,
            intermediate_ttl_seconds: 365 * DAY,
            root_ttl_seconds: 3653 * DAY,
            key_type: KeyType::default(),
            vault: None,
            aws_pca: None,
        }
    }
}

impl CaConfig {
    /// Who signs: `built_in`, `vault`, `aws_pca`.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        match (&self.vault, &self.aws_pca) {
            (Some(_), _) => VAULT,
            (None, Some(_)) => AWS_PCA,
            (None, None) => BUILT_IN,
        }
    }

    /// How long a leaf lives: what is set, but at least a second and at most a year.
    #[must_use]
    pub fn leaf_ttl(&self) -> Duration {
        Duration::from_secs(self.leaf_ttl_seconds.clamp(LEAF_TTL.0, LEAF_TTL.1))
    }
}

/// A root of the mesh: for verifiers, and for `meshctl ca roots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEntry {
    /// SHA-256 of the certificate's DER, in hex.
    pub id: String,
    /// The certificate.
    pub pem: String,
    /// Its name, as X.509 writes it.
    #[serde(default)]
    pub subject: String,
    /// The kind of its key, such as `EC P-256` or `RSA 2048`.
    #[serde(default)]
    pub key_type: String,
    /// Valid from, in seconds since 1970.
    pub not_before: u64,
    /// Valid to, in seconds since 1970.
    pub not_after: u64,
    /// Whether it is the one that signs now.
    #[serde(default)]
    pub active: bool,
    /// What Vault calls it: an issuer's id. Only of a root in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// It signs no more, and is dropped when no leaf hangs on it, but not before this time, in
    /// seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires: Option<u64>,
    /// The same root, certified by the one before it; for as long as that one is trusted too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross: Option<Cross>,
}

impl RootEntry {
    /// Reads a root from its certificate.
    ///
    /// # Errors
    /// When it is not a certificate of a CA.
    pub fn from_der(der: &CertificateDer<'_>, active: bool) -> Result<Self, CaError> {
        let seen = x509::read("root", der)?;
        if !seen.is_ca {
            return Err(CaError::input("root", "it is not the certificate of a CA"));
        }
        Ok(Self {
            id: seen.fingerprint,
            pem: x509::certificate_pem(der),
            subject: seen.subject,
            key_type: seen.key_type,
            not_before: seen.not_before,
            not_after: seen.not_after,
            active,
            issuer: None,
            retires: None,
            cross: None,
        })
    }

    /// The certificate.
    ///
    /// # Errors
    /// When the PEM text is not one.
    pub fn der(&self) -> Result<CertificateDer<'static>, CaError> {
        x509::certificate_der(&format!("root {}", short(&self.id)), &self.pem)
    }
}

/// The intermediate that signs leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntermediateEntry {
    /// SHA-256 of the certificate's DER, in hex.
    pub id: String,
    /// The id of the root that signed it.
    pub root: String,
    /// The certificate.
    pub pem: String,
    /// What stands between it and the root, in that order: a root in Vault may itself be below
    /// another one. Mostly nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<String>,
    /// Its private key. None: Vault has it, and signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Sealed>,
    /// What signs with it; where Vault has the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultRole>,
    /// Valid from, in seconds since 1970.
    pub not_before: u64,
    /// Valid to, in seconds since 1970.
    pub not_after: u64,
}

impl IntermediateEntry {
    /// The certificate.
    ///
    /// # Errors
    /// When the PEM text is not one.
    pub fn der(&self) -> Result<CertificateDer<'static>, CaError> {
        x509::certificate_der(&format!("intermediate {}", short(&self.id)), &self.pem)
    }

    /// It and what stands between it and the root: what follows a leaf in its chain.
    ///
    /// # Errors
    /// When a PEM text is not one certificate.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let what = format!("intermediate {}", short(&self.id));
        let all = std::iter::once(&self.pem).chain(&self.above);
        all.map(|pem| x509::certificate_der(&what, pem)).collect()
    }
}

/// Enough of an id to tell it from others.
pub(crate) fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

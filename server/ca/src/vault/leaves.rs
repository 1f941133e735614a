//! Leaves that Vault signs, one by one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mesh_tls::TrustDomain;
use vaultrs::api::pki::requests::SignCertificateRequest;
use vaultrs::pki::cert::ca;

use super::judge::Judge;
use super::{Vault, VaultState};
use crate::authority::{
    Authority, AuthorityError, AuthorityStatus, Clock, IssuedLeaf, LeafRequest,
};
use crate::error::CaError;
use crate::state::{CaState, RootEntry, VAULT};
use crate::x509;

/// A CA in Vault whose intermediate's key is there too.
pub struct VaultLeaves {
    vault: Arc<Vault>,
    domain: TrustDomain,
    roots: Vec<RootEntry>,
    judge: Judge,
    mount: String,
    role: String,
    /// When the intermediate ends, in seconds since 1970.
    not_after: u64,
    clock: Clock,
}

impl fmt::Debug for VaultLeaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultLeaves")
            .field("domain", &self.domain)
            .field("role", &format_args!("{}/{}", self.mount, self.role))
            .finish_non_exhaustive()
    }
}

impl VaultLeaves {
    /// Opens the CA of a state. Vault is not asked.
    ///
    /// # Errors
    /// When rows of the state do not fit together, or are of another kind of CA.
    pub fn open(state: &CaState, vault: Arc<Vault>, clock: Clock) -> Result<Self, CaError> {
        let entry = state
            .intermediate
            .as_ref()
            .ok_or_else(|| CaError::state("intermediate", "there is none"))?;
        let Some(signs) = &entry.vault else {
            return Err(CaError::state("intermediate", "its key is not in Vault"));
        };
        Ok(Self {
            domain: state
                .domain()
                .map_err(|e| CaError::state("trust domain", e))?,
            roots: state.roots.clone(),
            judge: Judge {
                trust: state.trust()?,
                chain: state.chain()?,
            },
            mount: signs.mount.clone(),
            role: signs.role.clone(),
            not_after: entry.not_after,
            vault,
            clock,
        })
    }
}

#[async_trait]
impl Authority for VaultLeaves {
    fn provider(&self) -> &'static str {
        VAULT
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    async fn roots(&self) -> Result<Vec<RootEntry>, AuthorityError> {
        Ok(self.roots.clone())
    }

    async fn sign_leaf(&self, request: &LeafRequest) -> Result<IssuedLeaf, AuthorityError> {
        let denied = |reason: String| AuthorityError::Denied {
            provider: VAULT,
            reason,
        };
        let id = request.id();
        if id.trust_domain() != self.domain.as_str() {
            return Err(denied(format!(
                "{id} is not of the trust domain {}",
                self.domain
            )));
        }
        let now = (self.clock)();
        // Vault refuses what would outlive the intermediate.
        let left = self.not_after.saturating_sub(x509::unix(now));
        let ttl = request.ttl().as_secs().min(left.saturating_sub(1));
        if ttl == 0 {
            return Err(AuthorityError::Unavailable {
                provider: VAULT,
                reason: "the intermediate has expired and is not renewed yet".into(),
                retry_after: Some(Duration::from_secs(1)),
            });
        }
        let what = format!("POST {}/sign/{}", self.mount, self.role);
        let (csr, id, ttl) = (
            &x509::request_pem(request.csr()),
            id.as_str(),
            &format!("{ttl}s"),
        );
        let dns_names = &request.dns_names().join(",");
        let signed = self.vault.ask(&what, |client| async move {
            let mut options = SignCertificateRequest::builder();
            options.uri_sans(id).ttl(ttl).exclude_cn_from_sans(true);
            if !dns_names.is_empty() {
                options.alt_names(dns_names);
            }
            ca::sign(
                &*client,
                &self.mount,
                &self.role,
                csr,
                "",
                Some(&mut options),
            )
            .await
        });
        let signed = signed.await?;
        self.judge
            .judge(request, &signed.certificate, now)
            .map_err(|why| {
                denied(format!(
                    "{what}: what Vault signed is not what was asked for: {why}"
                ))
            })
    }

    async fn status(&self) -> AuthorityStatus {
        let health = self.vault.health();
        let expired = self.not_after <= x509::unix((self.clock)());
        let reason = match health.state {
            _ if expired => Some("the intermediate has expired and is not renewed yet".to_owned()),
            VaultState::Ok => None,
            VaultState::Unknown => Some("Vault was not asked yet".to_owned()),
            state => Some(format!(
                "Vault is {}: {}",
                state.as_str(),
                health.reason.unwrap_or_default()
            )),
        };
        AuthorityStatus {
            provider: VAULT.to_owned(),
            healthy: reason.is_none(),
            reason,
            active_root: self.roots.iter().find(|r| r.active).map(|r| r.id.clone()),
            intermediate_not_after: Some(self.not_after),
        }
    }
}

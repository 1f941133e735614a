//! Who a workload is, by Nomad's word.
//!
//! Nomad signs a token (a JWT) for each service and task of an allocation that has an `identity`,
//! and logs in with it once, before the allocation starts. What it gets is a token of ours, bound
//! to that allocation and service, which it then brings with registrations, and which reaches the
//! shim. It says more than a uid does: root of a node may register anything there, but has a
//! token only of what Nomad placed.

mod jwks;
mod jwt;
mod tokens;
mod workload;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_model::config::{Attestation, NomadConfig};

use crate::AgentError;
use crate::clock::Clock;
use jwks::Keys;
pub(crate) use jwt::read_any;
pub(crate) use tokens::{Token, TokenError, Tokens};
pub(crate) use workload::{Sent, Workload};

/// Why there was no login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    /// The token is not one of Nomad's for a workload.
    #[error("BearerToken: {0}")]
    Refused(String),
    /// Whether it is could not be found out.
    #[error("Nomad's keys: {0}")]
    Keys(String),
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// Judges workloads' identities, and remembers those that logged in.
#[derive(Debug)]
pub(crate) struct Identity {
    attestation: Attestation,
    audience: Vec<String>,
    keys: Keys,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
}

impl Identity {
    /// Reads what stands on disk. Nomad is not asked before the first login.
    pub(crate) fn open(
        data_dir: &std::path::Path,
        attestation: Attestation,
        nomad: &NomadConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AgentError> {
        Ok(Self {
            attestation,
            audience: nomad.audience.clone(),
            keys: Keys::new(nomad)?,
            tokens: Tokens::open(data_dir)?,
            clock,
        })
    }

    /// A token for the workload that a JWT of Nomad's is of. `is_here` tells whether anything of
    /// an allocation is registered on this node.
    pub(crate) async fn login(
        self: Arc<Self>,
        jwt: &str,
        method: String,
        description: String,
        is_here: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Token, LoginError> {
        let signed = jwt::parse(jwt).map_err(LoginError::Refused)?;
        let key = self.keys.find(signed.kid()).await?;
        let claims = signed.verify(&key).map_err(LoginError::Refused)?;
        let now = self.clock.now();
        let workload = claims.workload(&self.audience, unix(now));
        let workload = workload.map_err(LoginError::Refused)?;
        let made = tokio::task::spawn_blocking(move || {
            let tokens = &self.tokens;
            tokens.create(workload, method, description, now, is_here)
        });
        Ok(made.await.map_err(|_| TokenError::Randomness)??)
    }

    /// What a token is that somebody sent.
    pub(crate) fn judge(&self, token: Option<&[u8]>) -> Sent {
        match token {
            None => Sent::Nothing,
            Some(token) => self.tokens.judge(token),
        }
    }

    /// The live token, if it is one.
    pub(crate) fn token(&self, token: &[u8]) -> Option<Token> {
        self.tokens.find(token)
    }

    /// Ends a token; whether it was one. Blocks.
    pub(crate) fn logout(&self, token: &[u8]) -> Result<bool, TokenError> {
        self.tokens.remove(token)
    }

    /// Whether a sidecar needs a workload's token.
    pub(crate) fn is_required(&self) -> bool {
        match self.attestation {
            Attestation::Node => false,
            Attestation::Workload => true,
        }
    }
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

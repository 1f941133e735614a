//! Leaves for this node's proxies, from any server.

use std::time::Duration;

use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::servers_client::ServersClient;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

use super::backoff::Backoff;

/// How long a server may take for one.
const LIMIT: Duration = Duration::from_secs(30);
/// A proxy that was registered a moment ago may not be known to the servers yet.
const UNKNOWN: Duration = Duration::from_secs(30);

/// Why there is no leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SignError(String);

impl SignError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Who gets leaves signed.
#[async_trait::async_trait]
pub(crate) trait Signer: Send + Sync {
    /// The chain (DER, leaf first) for a proxy's request (DER). Waits while no server answers.
    async fn sign(&self, proxy: &str, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, SignError>;
}

/// The servers, by the connection that there is.
#[derive(Clone, Debug)]
pub(crate) struct Servers(pub(super) watch::Receiver<Option<ServersClient<Channel>>>);

#[async_trait::async_trait]
impl Signer for Servers {
    async fn sign(&self, proxy: &str, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, SignError> {
        let mut connection = self.0.clone();
        let mut backoff = Backoff::default();
        let unknown_until = Instant::now() + UNKNOWN;
        loop {
            let client = connection.wait_for(Option::is_some).await;
            let client = client.ok().and_then(|client| client.clone());
            let Some(mut client) = client else {
                return Err(SignError::new("the agent stops; ask again"));
            };
            let request = pb::SignRequest {
                proxy: proxy.to_owned(),
                csr: csr.clone(),
            };
            let reason = match tokio::time::timeout(LIMIT, client.sign(request)).await {
                Ok(Ok(answer)) => match answer.into_inner().chain {
                    chain if !chain.is_empty() => return Ok(chain),
                    _ => "a server answered with an empty chain".to_owned(),
                },
                Ok(Err(status)) => {
                    let late = Instant::now() >= unknown_until;
                    let last = match status.code() {
                        Code::InvalidArgument | Code::FailedPrecondition => true,
                        Code::NotFound | Code::PermissionDenied => late,
                        _ => false,
                    };
                    if last {
                        return Err(SignError::new(status.message()));
                    }
                    status.message().to_owned()
                }
                Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
            };
            let wait = backoff.step();
            tracing::debug!(proxy, reason, ?wait, "a leaf is not signed yet");
            tokio::time::sleep(wait).await;
        }
    }
}

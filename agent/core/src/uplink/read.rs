//! Reads of the servers' API, over the connection that there is.

use std::time::Duration;

use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::servers_client::ServersClient;
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::Servers;

/// Reads at once that wait for a change, and that do not. Together they leave room on the
/// connection, on which all else of the agent goes.
const WAITING: usize = 128;
const AT_ONCE: usize = 32;
/// How long a server may take, waiting for a change apart.
const LIMIT: Duration = Duration::from_secs(25);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no server is connected; the agent's log says why")]
    NoServer,
    #[error("too many reads are under way on this node; try again")]
    TooMany,
    #[error("the server does not know such a question; upgrade it")]
    TooOld,
    #[error("{0}")]
    Failed(String),
}

/// Who reads.
#[derive(Debug)]
pub(crate) struct Reader {
    servers: Servers,
    waiting: Semaphore,
    at_once: Semaphore,
}

impl Reader {
    pub(crate) fn new(servers: Servers) -> Self {
        Self {
            servers,
            waiting: Semaphore::new(WAITING),
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    /// The API's answer to a GET of this target, which waits so long for a change.
    pub(crate) async fn read(
        &self,
        target: String,
        wait: Option<Duration>,
    ) -> Result<pb::ReadResponse, ReadError> {
        let room = match wait {
            Some(_) => &self.waiting,
            None => &self.at_once,
        };
        let _place = room.try_acquire().map_err(|_| ReadError::TooMany)?;
        let mut client = self.client()?;
        // Servers wait a sixteenth longer, at random.
        let wait = wait.unwrap_or_default().mul_f64(17.0 / 16.0);
        let reading = client.read(pb::ReadRequest { target });
        answered(LIMIT + wait, reading).await
    }

    /// The API's answer to the write of a gateway's config entry.
    pub(crate) async fn write_config(&self, text: String) -> Result<pb::ReadResponse, ReadError> {
        let _place = self.at_once.try_acquire().map_err(|_| ReadError::TooMany)?;
        let mut client = self.client()?;
        let writing = client.write_config(pb::WriteConfigRequest { text });
        answered(LIMIT, writing).await
    }

    fn client(&self) -> Result<ServersClient<Channel>, ReadError> {
        let client = self.servers.0.borrow().clone();
        client.ok_or(ReadError::NoServer)
    }
}

/// What comes of a call within a time.
async fn answered(
    limit: Duration,
    call: impl Future<Output = Result<Response<pb::ReadResponse>, Status>>,
) -> Result<pb::ReadResponse, ReadError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Err(ReadError::TooOld),
        Ok(Err(status)) => Err(ReadError::Failed(status.message().to_owned())),
        Err(_) => Err(ReadError::Failed(
            "the server did not answer in time".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_waits_leaves_room_for_who_does_not() {
        let (_client, servers) = super::super::signer();
        let reader = Reader::new(servers);
        let read = async |wait| reader.read("/v1/catalog/nodes".into(), wait).await;
        let wait = Some(Duration::from_secs(60));
        assert_eq!(read(wait).await, Err(ReadError::NoServer));
        let all = reader.waiting.try_acquire_many(WAITING as u32).unwrap();
        assert_eq!(read(wait).await, Err(ReadError::TooMany));
        assert_eq!(read(None).await, Err(ReadError::NoServer));
        drop(all);
        assert_eq!(read(wait).await, Err(ReadError::NoServer));
    }
}

//! How messages reach another server. What they say is this crate's own business;
//! a transport moves bytes, and says of a failure whether the peer may have acted.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::Peer;
use crate::pb;

/// The version of the messages that this program speaks.
pub(crate) const FORMAT: u32 = 1;

/// Carries requests to peers. [`crate::grpc::GrpcTransport`] is the real one.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to `peer` and waits for the answer, no longer than `timeout`.
    ///
    /// # Errors
    /// [`TransportError`]; its variants differ in whether the peer may have acted.
    async fn call(
        &self,
        peer: &Peer,
        request: Request,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;
}

/// One message to a peer.
#[derive(Debug, Clone)]
pub struct Request(pub(crate) pb::Request);

impl Request {
    pub(crate) fn new(kind: pb::Kind, from: u64, to: u64, message: &impl prost::Message) -> Self {
        Self(pb::Request {
            format: FORMAT,
            kind: kind.into(),
            from,
            to,
            payload: message.encode_to_vec().into(),
        })
    }

    /// Which connection it goes over: lanes must not delay one another.
    pub fn lane(&self) -> Lane {
        match self.0.kind() {
            pb::Kind::Append | pb::Kind::Vote => Lane::Consensus,
            pb::Kind::Snapshot => Lane::Snapshot,
            _ => Lane::Service,
        }
    }

    /// The node id that the caller claims. A hook on the receiving side sees it beside
    /// the certificate. The servers' hook asks for a server's certificate only: ids are
    /// random and change with the data, and stand in no certificate; and a server could
    /// write whatever it wanted under its own.
    pub fn from(&self) -> u64 {
        self.0.from
    }
}

/// What a message is about. Each lane has its own connection to a peer, so that a
/// snapshot or a large forwarded write cannot delay a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, entries, votes.
    Consensus,
    /// Pieces of snapshots.
    Snapshot,
    /// Forwarded writes and reads, membership.
    Service,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// It was certainly not sent: there is no connection.
    #[error("not reached: {0}")]
    NotSent(String),
    /// The peer answered, and did not act.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer may have acted, or not.
    #[error("no answer: {0}")]
    Lost(String),
}

/// A peer that takes no request of this kind now; it did not act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

//! Calls to peers. Each lane has its own HTTP/2 connection: frames of a snapshot
//! never stand before a heartbeat.
//!
//! The connections are made here and not by tonic's channel, because a write that
//! is forwarded must know whether it can have left this host.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::body::Body;

use crate::config::Peer;
use crate::pb;
use crate::pb::raft_client::RaftClient;
use crate::transport::{FORMAT, Lane, Request, Transport, TransportError};

/// A byte stream to a peer; TLS is below it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Any [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// Makes a connection to a peer, verified: `peer.id` is 0 for one that is known by
/// its address only.
pub type Connector =
    Arc<dyn Fn(Peer) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync + 'static>;

const CONNECT: Duration = Duration::from_secs(5);
/// A peer whose host is gone is noticed after twice this.
const PING: Duration = Duration::from_secs(2);
/// Room for a whole append message without waiting for the peer's leave.
const WINDOW: u32 = 4 << 20;

/// The gRPC [`Transport`].
pub struct GrpcTransport {
    connector: Connector,
    message_bytes: usize,
    connections: Mutex<HashMap<(String, u64, Lane), Arc<Slot>>>,
}

/// One connection, or none at the moment. Who makes it holds the lock, and the
/// others wait for what it makes.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<SendRequest<Body>>>);

impl GrpcTransport {
    /// `message_bytes`: the largest message, [`crate::Limits::message_bytes`].
    pub fn new(connector: Connector, message_bytes: usize) -> Self {
        Self {
            connector,
            message_bytes,
            connections: Mutex::new(HashMap::new()),
        }
    }

    fn slot(&self, peer: &Peer, lane: Lane) -> Arc<Slot> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Those that nobody uses and that have no connection: removed servers.
        connections.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.0.try_lock().is_ok_and(|c| open(&c))
        });
        let key = (peer.addr.clone(), peer.id, lane);
        Arc::clone(connections.entry(key).or_default())
    }

    async fn connection(&self, peer: &Peer, lane: Lane) -> io::Result<SendRequest<Body>> {
        let slot = self.slot(peer, lane);
        let mut held = slot.0.lock().await;
        if let Some(connection) = held.as_ref().filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        let io = (self.connector)(peer.clone()).await?;
        let (connection, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        let name = peer.clone();
        tokio::spawn(async move {
            if let Err(e) = driver.await {
                tracing::debug!(peer = %name, ?lane, error = %e, "raft connection closed");
            }
        });
        *held = Some(connection.clone());
        Ok(connection)
    }

    async fn send(
        &self,
        mut connection: SendRequest<Body>,
        request: Request,
    ) -> Result<Bytes, TransportError> {
        let not_sent = |e: hyper::Error| TransportError::NotSent(e.to_string());
        connection.ready().await.map_err(not_sent)?;
        let origin = http::Uri::from_static("http://raft.mesh");
        let mut client = RaftClient::with_origin(Http2(connection), origin)
            .max_decoding_message_size(self.message_bytes)
            .max_encoding_message_size(self.message_bytes);
        match client.call(request.0).await {
            Ok(reply) => {
                let reply: pb::Reply = reply.into_inner();
                if reply.format == FORMAT {
                    return Ok(reply.payload);
                }
                // It acted; what it says is not known.
                let format = reply.format;
                Err(TransportError::Lost(format!(
                    "its answer has format {format}"
                )))
            }
            Err(status) => Err(failure(&status)),
        }
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(
        &self,
        peer: &Peer,
        request: Request,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let deadline = Instant::now() + timeout;
        let until = deadline.min(Instant::now() + CONNECT);
        let connecting = tokio::time::timeout_at(until, self.connection(peer, request.lane()));
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(TransportError::NotSent(format!("{peer}: {e}"))),
            Err(_) => {
                return Err(TransportError::NotSent(format!(
                    "{peer}: no connection in time"
                )));
            }
        };
        match tokio::time::timeout_at(deadline, self.send(connection, request)).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Lost(format!("nothing within {timeout:?}"))),
        }
    }
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrpcTransport")
    }
}

fn open(connection: &Option<SendRequest<Body>>) -> bool {
    connection.as_ref().is_some_and(|c| !c.is_closed())
}

/// Our service says with these codes that it did not act; any other may come from
/// anywhere on the way.
fn failure(status: &tonic::Status) -> TransportError {
    match status.code() {
        tonic::Code::FailedPrecondition
        | tonic::Code::PermissionDenied
        | tonic::Code::Unauthenticated
        | tonic::Code::Unimplemented
        | tonic::Code::OutOfRange => TransportError::Refused(status.message().to_owned()),
        _ if unprocessed(status) => TransportError::NotSent(status.message().to_owned()),
        _ => TransportError::Lost(status.to_string()),
    }
}

/// Whether the peer said that it has not looked at the request: it was closing (a
/// GOAWAY fails only the streams beyond the last that it took), or refused the
/// stream (RFC 9113, 6.8 and 8.7).
fn unprocessed(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(e) = cause {
        if let Some(h2) = e.downcast_ref::<h2::Error>() {
            let going = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return h2.is_remote() && (going || refused);
        }
        cause = e.source();
    }
    false
}

/// hyper's connection, as tonic's client wants it.
struct Http2(SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Http2 {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

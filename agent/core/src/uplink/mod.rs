//! The agent's one stream to the servers: registrations up, facts down.
//!
//! Any server will do. When a stream ends the next server is tried at once, and when none answers,
//! again and again with longer waits; meanwhile everything on the node goes on by what is held.

mod backoff;
mod cluster;
mod desired;
mod read;
mod session;
mod sign;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_proto::servers::MAX_FROM_AGENT;
use mesh_proto::servers::v1::servers_client::ServersClient;
use mesh_tls::{ClusterTls, Expect, Role};
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) use cluster::Membership;
pub(crate) use read::{ReadError, Reader};
pub(crate) use sign::{Servers, SignError, Signer};

use crate::catalog::Catalog;
use crate::checks::Board;
use crate::compiler::Compiler;
use crate::facts::Facts;
use crate::feed::{Keys, Records};
use backoff::Backoff;
use session::{End, Session};

/// The largest message from a server: a fact.
const MAX_FACT: usize = 64 * 1024 * 1024;
/// A stream that lasted this long was a good one: the next failure is a first one.
const GOOD: Duration = Duration::from_secs(10);
/// A connection on which nothing comes for so long is asked, and given up after as much again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the uplink works with.
pub(crate) struct Parts {
    pub(crate) node_id: String,
    pub(crate) node_name: String,
    pub(crate) advertise: String,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) servers: mesh_nomad::Servers,
    pub(crate) tls: Arc<ClusterTls>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) board: Arc<Board>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) records: Arc<Records>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) stop: CancellationToken,
}

/// How the uplink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The server that the stream is open to.
    pub(crate) server: Option<String>,
    /// Why the last try or stream ended.
    pub(crate) error: Option<String>,
}

/// The stream to the servers, and what hangs on its connection.
pub(crate) struct Uplink {
    parts: Parts,
    client: watch::Sender<Option<ServersClient<Channel>>>,
    link: watch::Sender<Link>,
}

/// Where leaves are asked for, before there is an uplink to ask by.
pub(crate) fn signer() -> (watch::Sender<Option<ServersClient<Channel>>>, Servers) {
    let (sender, receiver) = watch::channel(None);
    (sender, Servers(receiver))
}

impl Uplink {
    pub(crate) fn new(
        parts: Parts,
        client: watch::Sender<Option<ServersClient<Channel>>>,
        link: watch::Sender<Link>,
    ) -> Self {
        Self {
            parts,
            client,
            link,
        }
    }

    /// Keeps a stream open until told to stop.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        let stop = self.parts.stop.clone();
        while !stop.is_cancelled() {
            let mut servers = tokio::select! {
                it = self.parts.servers.now() => it,
                () = stop.cancelled() => return,
            };
            if servers.is_empty() {
                let error = Some("Nomad knows no server".to_owned());
                let server = None;
                self.link.send_replace(Link { server, error });
            }
            servers.shuffle(&mut rand::rng());
            for server in &servers {
                let begin = Instant::now();
                let end = tokio::select! {
                    it = self.stream(server) => it,
                    () = stop.cancelled() => return self.client.send_modify(|it| *it = None),
                };
                self.client.send_replace(None);
                tracing::warn!(server, reason = %end, "there is no stream to this server");
                self.link.send_replace(Link {
                    server: None,
                    error: Some(format!("{server}: {end}")),
                });
                if begin.elapsed() >= GOOD || end == End::Restored {
                    backoff.reset();
                    break; // all servers anew, at once
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.step()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// One stream; why it ended.
    async fn stream(&self, server: &str) -> End {
        let channel = match connect(&self.parts.tls, server).await {
            Ok(channel) => channel,
            Err(reason) => return reason.into(),
        };
        let mut client = ServersClient::new(channel)
            .max_decoding_message_size(MAX_FACT)
            .max_encoding_message_size(MAX_FROM_AGENT);
        let session = match Session::open(self, &mut client).await {
            Ok(session) => session,
            Err(reason) => return reason.into(),
        };
        self.client.send_replace(Some(client));
        self.link.send_replace(Link {
            server: Some(server.to_owned()),
            error: None,
        });
        session.run().await
    }
}

async fn connect(tls: &Arc<ClusterTls>, server: &str) -> Result<Channel, String> {
    // Made by hand first: tonic would say no more than "transport error".
    let expect = || Expect::Roles(vec![Role::Server]);
    let first = tls.connect(server, expect(), &[b"h2"]).await;
    let mut first = Some(first.map_err(|e| e.to_string())?);
    let (tls, server) = (tls.clone(), server.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, server, first) = (tls.clone(), server.clone(), first.take());
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => tls.connect(&server, expect(), &[b"h2"]).await?,
            };
            Ok::<_, mesh_tls::TlsError>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://meshctl.internal")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| e.to_string())
}

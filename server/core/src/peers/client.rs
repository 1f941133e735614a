//! Calls to other servers.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::peers_client::PeersClient;
use mesh_raft::Peer;
use mesh_raft::grpc::{BoxedIo, Connector};
use mesh_tls::{ClusterTls, Expect, Role};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long a server may take to ask Vault.
const OPEN: Duration = Duration::from_secs(20);
/// How long a server may take to sign: requests may wait for their turn, and Vault takes its time.
const SIGN: Duration = Duration::from_secs(24);
/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a join may take: the newcomer catches up first.
const JOIN: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Connections that are kept.
const KEPT: usize = 64;

/// Connections to other servers, by address.
pub(crate) struct PeerClients {
    connector: Connector,
    channels: Mutex<HashMap<String, Channel>>,
}

/// Connections to servers, each verified to be one.
pub(crate) fn connector(tls: Arc<ClusterTls>) -> Connector {
    Arc::new(move |peer: Peer| {
        let tls = tls.clone();
        Box::pin(async move {
            let expect = Expect::Roles(vec![Role::Server]);
            let stream = tls.connect(&peer.addr, expect, &[b"h2"]).await;
            let stream = stream.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    })
}

impl PeerClients {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            channels: Mutex::default(),
        }
    }

    /// Who the server at an address is.
    pub(crate) async fn identify(&self, address: &str) -> Result<wire::IdentifyResponse, Status> {
        let call = async move {
            let mut client = self.client(address)?;
            client.identify(wire::IdentifyRequest {}).await
        };
        Ok(limited(LIMIT, call).await?.into_inner())
    }

    /// Whether the server at an address can open what a sealing key seals.
    pub(crate) async fn can_open(
        &self,
        address: &str,
        request: wire::CanOpenRequest,
    ) -> Result<wire::CanOpenResponse, Status> {
        let call = async move { self.client(address)?.can_open(request).await };
        Ok(limited(OPEN, call).await?.into_inner())
    }

    /// Has the server at an address sign for a proxy of a node, whose agent asks this one.
    pub(crate) async fn sign_for(
        &self,
        address: &str,
        request: wire::SignForRequest,
    ) -> Result<wire::SignResponse, Status> {
        let call = async move { self.client(address)?.sign_for(request).await };
        Ok(limited(SIGN, call).await?.into_inner())
    }

    /// Asks a server of a cluster to take this one in.
    pub(crate) async fn join(
        &self,
        address: &str,
        request: wire::JoinRequest,
    ) -> Result<wire::JoinResponse, Status> {
        let call = async move { self.client(address)?.join(request).await };
        Ok(limited(JOIN, call).await?.into_inner())
    }

    /// Tells the leader who is heard here.
    pub(crate) async fn heartbeats(&self, leader: &Peer, nodes: &[String]) -> Result<(), Status> {
        let request = wire::HeartbeatsRequest {
            nodes: nodes.to_vec(),
        };
        let call = async move { self.client(&leader.addr)?.heartbeats(request).await };
        limited(LIMIT, call).await.map(drop)
    }

    /// What the agents of another server say.
    pub(crate) async fn proxies(&self, peer: &Peer) -> Result<Vec<wire::AgentStatus>, Status> {
        let call = async move {
            let mut client = self.client(&peer.addr)?;
            client.proxies(wire::ProxiesRequest {}).await
        };
        Ok(limited(LIMIT, call).await?.into_inner().agents)
    }

    fn client(&self, address: &str) -> Result<PeersClient<Channel>, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(bounded(channel.clone()));
        }
        if channels.len() >= KEPT {
            channels.clear();
        }
        let channel = self.channel(address)?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(bounded(channel))
    }

    /// A channel that connects when it is used, and again when it must.
    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| Status::invalid_argument(format!("{address}: write host:port")))?
            .connect_timeout(LIMIT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        let (connector, address) = (self.connector.clone(), address.to_owned());
        let service = tower::service_fn(move |_: Uri| {
            let peer = Peer {
                addr: address.clone(),
                ..Peer::default()
            };
            let connecting = connector(peer);
            async move { connecting.await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(service))
    }
}

fn bounded(channel: Channel) -> PeersClient<Channel> {
    PeersClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER)
        .max_encoding_message_size(MAX_ANSWER)
}

async fn limited<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let result = tokio::time::timeout(limit, call).await;
    result.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

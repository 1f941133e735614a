//! A proxy as its agent sees it.

use std::net::SocketAddr;

use mesh_proto::bootstrap::Ticket;
use mesh_proto::config::ProxyConfig;
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::ack::What;
use mesh_proto::proxies::v1::from_proxy::Message as From;
use mesh_proto::proxies::v1::proxies_client::ProxiesClient;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::{LeafKey, csr};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::soon;

/// An open stream.
pub struct Proxy {
    out: mpsc::Sender<pb::FromProxy>,
    inbound: Streaming<pb::ToProxy>,
}

/// What a hello is made of.
pub struct Hello<'a> {
    pub proxy: &'a str,
    pub key: &'a LeafKey,
    pub ticket: Vec<u8>,
    pub leaf: Vec<Vec<u8>>,
    pub signed_by: Option<&'a LeafKey>,
}

impl Proxy {
    pub fn hello<'a>(proxy: &'a str, key: &'a LeafKey) -> Hello<'a> {
        Hello {
            proxy,
            key,
            ticket: Vec::new(),
            leaf: Vec::new(),
            signed_by: None,
        }
    }

    /// Opens a stream and proves itself by a ticket.
    pub async fn with_ticket(
        at: SocketAddr,
        proxy: &str,
        key: &LeafKey,
        ticket: &Ticket,
    ) -> Result<Self, Status> {
        let hello = Self::hello(proxy, key);
        Self::open(
            at,
            Hello {
                ticket: ticket.as_bytes().to_vec(),
                ..hello
            },
        )
        .await
    }

    /// Opens a stream, reads the challenge and says nothing.
    pub async fn silent(at: SocketAddr) -> Result<Self, Status> {
        Ok(Self::challenged(at).await?.0)
    }

    async fn challenged(at: SocketAddr) -> Result<(Self, pb::Challenge), Status> {
        let mut client = ProxiesClient::connect(format!("http://{at}"))
            .await
            .unwrap();
        let (out, outbox) = mpsc::channel(8);
        let inbound = client.open(ReceiverStream::new(outbox)).await?.into_inner();
        let mut stream = Self { out, inbound };
        match stream.next().await? {
            Some(To::Challenge(challenge)) => Ok((stream, challenge)),
            other => panic!("the first message is not a challenge: {other:?}"),
        }
    }

    /// Opens a stream; done when the agent has accepted it, or with its reason.
    pub async fn open(at: SocketAddr, hello: Hello<'_>) -> Result<Self, Status> {
        let (mut stream, challenge) = Self::challenged(at).await?;
        let key = hello.signed_by.unwrap_or(hello.key);
        let hello = pb::Hello {
            proxy: hello.proxy.into(),
            version: "test".into(),
            features: Vec::new(),
            public_key: hello.key.public_key(),
            signature: csr::sign_nonce(key, hello.proxy, &challenge.nonce).unwrap(),
            ticket: hello.ticket,
            leaf: hello.leaf,
        };
        stream.send(From::Hello(hello)).await;
        match stream.next().await? {
            Some(To::Accepted(accepted)) => assert_eq!(accepted.node, "node-1"),
            other => panic!("not accepted: {other:?}"),
        }
        Ok(stream)
    }

    pub async fn send(&self, message: From) {
        let message = pb::FromProxy {
            message: Some(message),
        };
        self.out.send(message).await.unwrap();
    }

    /// The next message; none at the end.
    pub async fn next(&mut self) -> Result<Option<To>, Status> {
        let message = soon("a message from the agent", self.inbound.message()).await?;
        Ok(message.map(|message| message.message.unwrap()))
    }

    /// The status with which the agent ends the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => return status,
            }
        }
    }

    /// The next config; roots before it are acked.
    pub async fn config(&mut self) -> (pb::Config, ProxyConfig) {
        loop {
            match self.next().await.unwrap() {
                Some(To::Config(config)) => {
                    let read = serde_json::from_slice(&config.config).unwrap();
                    return (config, read);
                }
                Some(To::Revocations(list)) => {
                    self.ack(What::Revocations(list.serial), "").await;
                }
                Some(To::Roots(roots)) => self.ack(What::Roots(roots.serial), "").await,
                other => panic!("not a config: {other:?}"),
            }
        }
    }

    pub async fn ack(&self, what: What, error: &str) {
        let ack = pb::Ack {
            what: Some(what),
            error: error.into(),
            leaf_root: vec![0xab; 32],
            ..pb::Ack::default()
        };
        self.send(From::Ack(ack)).await;
    }

    pub async fn leaf(&mut self, request: Vec<u8>) -> pb::Leaf {
        self.send(From::Csr(pb::Csr { der: request })).await;
        loop {
            if let Some(To::Leaf(leaf)) = self.next().await.unwrap() {
                return leaf;
            }
        }
    }
}

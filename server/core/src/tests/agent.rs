//! An agent that does what a test says.

use mesh_model::{Check, Instance, Node, NodeState, ProxyEndpoint, Status, Weights};
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::from_agent::Message as From;
use mesh_proto::servers::v1::servers_client::ServersClient;
use mesh_proto::servers::v1::to_agent::Message as To;
use mesh_raft::Peer;
use mesh_tls::Role;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status as Refusal, Streaming};

use super::harness::{pki, soon};
use crate::Server;

pub(crate) struct Agent {
    pub(crate) client: ServersClient<Channel>,
    out: mpsc::Sender<wire::FromAgent>,
    inbound: Streaming<wire::ToAgent>,
    pub(crate) welcome: wire::Welcome,
    next: u64,
}

/// A client with a certificate of this role and id.
pub(crate) fn client(server: &Server, role: Role, id: &str) -> ServersClient<Channel> {
    ServersClient::new(channel(server, role, id)).max_decoding_message_size(16 << 20)
}

pub(crate) fn channel(server: &Server, role: Role, id: &str) -> Channel {
    let connector = crate::peers::connector(pki().tls(role, id));
    let address = server.addresses().cluster.to_string();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let peer = Peer {
            addr: address.clone(),
            ..Peer::default()
        };
        let connecting = connector(peer);
        async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
    }))
}

pub(crate) fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        name: format!("host-{id}"),
        address: "10.0.0.9".to_owned(),
        version: String::new(),
        meta: BTreeMap::new(),
        state: NodeState::Alive,
        stream: 0,
    }
}

/// Instance `ID` of a service, with a sidecar `ID-sidecar-proxy`.
pub(crate) fn instance(node: &str, service: &str, id: &str) -> Instance {
    let check = Check {
        name: "alive".into(),
        status: Status::Passing,
    };
    Instance {
        namespace: "default".into(),
        service: service.into(),
        id: id.into(),
        node: node.into(),
        address: "127.0.0.1".into(),
        port: 8080,
        tags: vec!["blue".into()],
        meta: BTreeMap::from([("version".into(), "v1".into())]),
        weights: Weights::default(),
        proxy: Some(ProxyEndpoint {
            id: format!("{id}-sidecar-proxy"),
            address: "10.0.0.9".into(),
            port: 21000,
            native: false,
        }),
        gateway: None,
        checks: BTreeMap::from([("alive".into(), check)]),
    }
}

impl Agent {
    pub(crate) async fn connect(server: &Server, id: &str) -> Self {
        Self::open(server, id, &node(id), "").await.unwrap()
    }

    /// Opens a stream with the certificate of `id`, saying that it is `node`.
    pub(crate) async fn open(
        server: &Server,
        id: &str,
        node: &Node,
        cluster: &str,
    ) -> Result<Self, Refusal> {
        let mut client = client(server, Role::Agent, id);
        let (out, outbox) = mpsc::channel(64);
        let hello = wire::AgentHello {
            node: serde_json::to_vec(node).unwrap(),
            features: Vec::new(),
            cluster_id: cluster.to_owned(),
        };
        send(&out, From::Hello(hello)).await;
        let opened = soon(client.open(ReceiverStream::new(outbox))).await;
        let mut inbound = opened?.into_inner();
        match soon(inbound.message())
            .await?
            .and_then(|first| first.message)
        {
            Some(To::Welcome(welcome)) => Ok(Self {
                client,
                out,
                inbound,
                welcome,
                next: 0,
            }),
            other => panic!("not a welcome: {other:?}"),
        }
    }

    pub(crate) async fn say(&self, message: From) {
        send(&self.out, message).await;
    }

    pub(crate) async fn subscribe(&self, topics: &[&str]) {
        let add = topics.iter().map(|topic| wire::Held {
            topic: (*topic).to_owned(),
            ..wire::Held::default()
        });
        self.hold(add.collect()).await;
    }

    pub(crate) async fn hold(&self, add: Vec<wire::Held>) {
        self.say(From::Subscribe(wire::Subscribe {
            add,
            remove: Vec::new(),
        }))
        .await;
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> Result<To, Refusal> {
        let message = soon(self.inbound.message()).await?;
        message
            .and_then(|message| message.message)
            .ok_or_else(|| Refusal::new(Code::Ok, "the stream ended"))
    }

    /// The next fact; what else comes is passed over.
    pub(crate) async fn fact(&mut self) -> wire::Fact {
        loop {
            if let To::Fact(fact) = self.next().await.unwrap() {
                return fact;
            }
        }
    }

    /// The next fact of a topic, as JSON.
    pub(crate) async fn body(&mut self, topic: &str) -> Value {
        loop {
            let fact = self.fact().await;
            if fact.topic == topic {
                assert!(!fact.unchanged, "{topic} is unchanged");
                return serde_json::from_slice(&fact.body).unwrap();
            }
        }
    }

    /// The next mark.
    pub(crate) async fn mark(&mut self) -> wire::Version {
        loop {
            if let To::Mark(mark) = self.next().await.unwrap() {
                return mark.version.unwrap();
            }
        }
    }

    /// A mark that covers this index, and acks it.
    pub(crate) async fn ack(&mut self, index: u64) {
        loop {
            let version = self.mark().await;
            let covers = version.index >= index;
            let ack = wire::Ack {
                version: Some(version),
                lagging: Vec::new(),
            };
            self.say(From::Ack(ack)).await;
            if covers {
                return;
            }
        }
    }

    /// Changes its part of the catalog, and waits for what became of it.
    pub(crate) async fn change(&mut self, change: wire::catalog::Change) -> wire::CatalogResult {
        self.next += 1;
        let request = self.next;
        let catalog = wire::Catalog {
            request,
            change: Some(change),
        };
        self.say(From::Catalog(catalog)).await;
        loop {
            if let To::CatalogResult(result) = self.next().await.unwrap()
                && result.request == request
            {
                return result;
            }
        }
    }

    /// Registers an instance.
    pub(crate) async fn put(&mut self, instance: &Instance) -> wire::CatalogResult {
        let bytes = serde_json::to_vec(instance).unwrap();
        let result = self.change(wire::catalog::Change::Put(bytes)).await;
        assert_eq!(result.error, "");
        result
    }

    pub(crate) async fn report(&self, proxies: Vec<wire::ProxyStatus>) {
        self.say(From::Proxies(wire::ProxyReport { proxies })).await;
    }
}

async fn send(out: &mpsc::Sender<wire::FromAgent>, message: From) {
    let message = wire::FromAgent {
        message: Some(message),
    };
    out.send(message).await.unwrap();
}

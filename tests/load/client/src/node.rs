//! A node as the servers know it: an agent's stream, with its certificate, that registers sidecars
//! and says that they live. It wants no facts and runs nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_model::{Instance, Node, NodeState, ProxyEndpoint, Weights};
use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::from_agent::Message as From;
use mesh_proto::servers::v1::servers_client::ServersClient;
use mesh_proto::servers::v1::to_agent::Message as To;
use mesh_tls::{ClusterFiles, ClusterTls, Expect, Role};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{Failure, Options};

/// How long a server may take to welcome a node, and to take what it registers.
const PATIENCE: Duration = Duration::from_secs(30);

/// The certificate of an agent: `-ca FILE -cert FILE -key FILE`.
pub(crate) fn tls(options: &Options) -> Result<Arc<ClusterTls>, Failure> {
    let file = |name: &str| {
        let text = options.text(name);
        text.map(|text| Path::new(text).to_owned())
            .ok_or_else(|| Failure::from(format!("-{name} FILE is missing")))
    };
    Ok(Arc::new(ClusterTls::from_files(ClusterFiles {
        ca_file: file("ca")?,
        cert_file: file("cert")?,
        key_file: file("key")?,
    })?))
}

/// A connection to a server, as an agent makes it.
pub(crate) async fn connect(
    tls: &Arc<ClusterTls>,
    server: &str,
) -> Result<ServersClient<Channel>, Failure> {
    let (tls, server) = (tls.clone(), server.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, server) = (tls.clone(), server.clone());
        async move {
            let expect = Expect::Roles(vec![Role::Server]);
            let stream = tls.connect(&server, expect, &[b"h2"]).await?;
            Ok::<_, mesh_tls::TlsError>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://meshctl.internal");
    Ok(ServersClient::new(
        endpoint.connect_with_connector(connector).await?,
    ))
}

/// The id of the sidecar with this number.
pub(crate) fn proxy(number: usize) -> String {
    format!("load-{number}-sidecar-proxy")
}

/// Registers so many sidecars on the node of this certificate, and goes on as its agent until the
/// runtime ends.
pub(crate) async fn register(
    client: &mut ServersClient<Channel>,
    tls: &ClusterTls,
    proxies: usize,
) -> Result<(), Failure> {
    let id = tls.id().ok_or("the certificate names no agent")?;
    let (out, outbox) = mpsc::channel(16);
    let node = Node {
        id: id.id().to_owned(),
        name: id.id().to_owned(),
        address: "127.0.0.1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        meta: BTreeMap::new(),
        state: NodeState::Alive,
        stream: 0,
    };
    let hello = pb::AgentHello {
        node: serde_json::to_vec(&node)?,
        ..pb::AgentHello::default()
    };
    send(&out, From::Hello(hello)).await?;
    let instances: Vec<Instance> = (0..proxies)
        .map(|number| instance(&node.id, number))
        .collect();
    let sync = serde_json::to_vec(&instances)?;
    let change = pb::Catalog {
        request: 1,
        change: Some(pb::catalog::Change::Sync(sync)),
    };
    let registered = async {
        let mut inbound = client.open(ReceiverStream::new(outbox)).await?.into_inner();
        let welcome = match next(&mut inbound).await? {
            To::Welcome(welcome) => welcome,
            other => return Err(format!("not a welcome: {other:?}").into()),
        };
        send(&out, From::Catalog(change)).await?;
        loop {
            if let To::CatalogResult(result) = next(&mut inbound).await? {
                return match result.error.is_empty() {
                    true => Ok((inbound, welcome)),
                    false => Err(Failure::from(result.error)),
                };
            }
        }
    };
    let registered = tokio::time::timeout(PATIENCE, registered).await;
    let (mut inbound, welcome) =
        registered.map_err(|_| format!("not registered within {} s", PATIENCE.as_secs()))??;
    let mut every = tokio::time::interval(Duration::from_millis(
        welcome.heartbeat_ms.clamp(100, 60_000).into(),
    ));
    tokio::spawn(async move {
        loop {
            let ended = tokio::select! {
                _ = every.tick() => send(&out, From::Heartbeat(pb::Heartbeat {})).await.err(),
                message = next(&mut inbound) => message.err(),
            };
            if let Some(error) = ended {
                eprintln!("mesh-load: the node's stream ended: {error}");
                return;
            }
        }
    });
    Ok(())
}

fn instance(node: &str, number: usize) -> Instance {
    Instance {
        namespace: "default".to_owned(),
        service: format!("load-{number}"),
        id: format!("load-{number}"),
        node: node.to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 8080,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weights: Weights::default(),
        proxy: Some(ProxyEndpoint {
            id: proxy(number),
            address: "127.0.0.1".to_owned(),
            port: 21_000,
            native: false,
        }),
        gateway: None,
        checks: BTreeMap::new(),
    }
}

async fn next(inbound: &mut Streaming<pb::ToAgent>) -> Result<To, Failure> {
    let message = inbound.message().await?;
    let message = message.ok_or("the server ended the stream")?.message;
    message.ok_or_else(|| "a message that is not known here".into())
}

async fn send(out: &mpsc::Sender<pb::FromAgent>, message: From) -> Result<(), Failure> {
    let message = pb::FromAgent {
        message: Some(message),
    };
    let sent = out.send(message).await;
    sent.map_err(|_| "the server reads no more".into())
}

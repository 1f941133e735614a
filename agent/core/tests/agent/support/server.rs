//! A server as its agents see it: it keeps what they say, and says what a test tells it to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use mesh_model::Instance;
use mesh_proto::fact::CheckChange;
use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::catalog::Change;
use mesh_proto::servers::v1::from_agent::Message as From;
use mesh_proto::servers::v1::servers_server::{Servers, ServersServer};
use mesh_proto::servers::v1::to_agent::Message as To;
use mesh_tls::Role;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::{Ca, soon, spiffe};

type Outbox = mpsc::Sender<Result<pb::ToAgent, Status>>;

pub struct Fake {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    mesh: Arc<Ca>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
}

/// What the server was told, and what it tells.
#[derive(Default)]
pub struct State {
    pub cluster: String,
    pub epoch: String,
    pub index: u64,
    pub facts: BTreeMap<String, String>,
    /// The topic whose fact comes with a wrong checksum.
    pub damaged: Option<String>,
    /// What agents have said.
    pub hellos: Vec<pb::AgentHello>,
    pub subscribed: BTreeSet<String>,
    pub held: Vec<pb::Held>,
    pub instances: BTreeMap<String, Instance>,
    pub syncs: u32,
    pub changes: u32,
    pub reports: Vec<pb::ProxyStatus>,
    pub acks: Vec<pb::Ack>,
    pub signs: u32,
    /// Answers of the HTTP API, by target or by path, and the targets that were asked for.
    pub api: BTreeMap<String, String>,
    pub reads: Vec<String>,
    /// Config entries that were written, and why they are refused, if they are.
    pub written: Vec<String>,
    pub refuse_writes: Option<String>,
    /// The next answers to changes of the catalog: error, and whether it may pass.
    pub refuse: VecDeque<(String, bool)>,
    /// The next answers to requests for a leaf.
    pub refuse_signs: VecDeque<Status>,
    streams: Vec<Outbox>,
}

impl State {
    pub fn version(&self) -> pb::Version {
        pb::Version {
            epoch: self.epoch.clone(),
            index: self.index,
        }
    }

    fn fact(&self, topic: &str) -> Option<To> {
        let body = self.facts.get(topic)?;
        Some(To::Fact(pb::Fact {
            topic: topic.into(),
            version: Some(self.version()),
            body: body.clone().into(),
            checksum: match self.damaged.as_deref() == Some(topic) {
                true => vec![1],
                false => Sha256::digest(body).to_vec(),
            },
            ..pb::Fact::default()
        }))
    }
}

impl Fake {
    pub async fn start(cluster: &Ca, mesh: Arc<Ca>, id: &str) -> Self {
        let tls = cluster.cluster_tls("server", "s1");
        let tls = tls.server_config(&[Role::Agent], true, &[b"h2"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut state = State {
            cluster: id.into(),
            epoch: "e1".into(),
            index: 10,
            ..State::default()
        };
        let roots = serde_json::json!({"trust_domain": "test.mesh", "roots": [mesh.pem]});
        let mesh_fact = serde_json::json!(
            {"trust_domain": "test.mesh", "datacenter": "dc1", "default_intention": "allow"});
        for (topic, body) in [
            ("mesh", mesh_fact.to_string().as_str()),
            ("roots", roots.to_string().as_str()),
            ("revocations", "{}"),
            ("service/default/web", "null"),
            ("intentions/default/web", "[]"),
            ("service/default/api", "null"),
            ("route/default/api", "null"),
            ("endpoints/default/api", "[]"),
        ] {
            state.facts.insert(topic.into(), body.into());
        }
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            mesh,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            stop: stop.clone(),
        });
        let acceptor = TlsAcceptor::from(tls);
        let connections = TcpListenerStream::new(listener).filter_map(move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                Some(Ok::<_, std::io::Error>(Io(acceptor
                    .accept(tcp.ok()?)
                    .await
                    .ok()?)))
            }
        });
        let service = ServersServer::new(Service(shared.clone()));
        let stopped = stop.clone();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::select! {
                it = server.serve_with_incoming(Box::pin(connections)) => it.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    /// Changes what the server knows and does.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.send_modify(|count| *count += 1);
        result
    }

    /// Waits until the state is so.
    pub async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            while !is(&self.shared.state.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        soon(what, wait).await;
    }

    /// Sends to every agent.
    pub async fn say(&self, message: To) {
        let streams = self.shared.state.lock().unwrap().streams.clone();
        for stream in streams {
            let _ = stream
                .send(Ok(pb::ToAgent {
                    message: Some(message.clone()),
                }))
                .await;
        }
    }

    /// A fact changes; who subscribed to it hears, and the mark.
    pub async fn set(&self, topic: &str, body: &str) -> pb::Version {
        let (fact, version) = self.change(|state| {
            state.index += 1;
            state.facts.insert(topic.into(), body.into());
            (state.fact(topic).unwrap(), state.version())
        });
        self.say(fact).await;
        self.say(To::Mark(pb::Mark {
            version: Some(version.clone()),
        }))
        .await;
        version
    }

    /// Ends every stream.
    pub async fn hang_up(&self) {
        let streams = self.change(|state| std::mem::take(&mut state.streams));
        for stream in streams {
            let _ = stream.send(Err(Status::unavailable("hung up"))).await;
        }
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Servers for Service {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<pb::ToAgent, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<pb::FromAgent>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let (out, outbox) = mpsc::channel(256);
        let (shared, mut inbound) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            let serve = async {
                while let Ok(Some(message)) = inbound.message().await {
                    for answer in shared.take(message.message.unwrap(), &out) {
                        let answer = pb::ToAgent {
                            message: Some(answer),
                        };
                        let _ = out.send(Ok(answer)).await;
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = stop.cancelled() => shared.state.lock().unwrap().streams.clear(),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }

    async fn sign(
        &self,
        request: Request<pb::SignRequest>,
    ) -> Result<Response<pb::SignResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        state.signs += 1;
        self.0.changed.send_modify(|count| *count += 1);
        if let Some(status) = state.refuse_signs.pop_front() {
            return Err(status);
        }
        let of = |it: &&Instance| {
            it.proxy
                .as_ref()
                .is_some_and(|proxy| proxy.id == request.proxy)
        };
        let Some(instance) = state.instances.values().find(of) else {
            return Err(Status::not_found("no such proxy"));
        };
        let chain = vec![self.0.mesh.sign(&request.csr, &spiffe(&instance.service))];
        Ok(Response::new(pb::SignResponse { chain }))
    }

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<pb::ReadResponse>, Status> {
        let answer = self.0.read(&request.into_inner().target);
        Ok(Response::new(answer))
    }

    async fn write_config(
        &self,
        request: Request<pb::WriteConfigRequest>,
    ) -> Result<Response<pb::ReadResponse>, Status> {
        let answer = self.0.write(request.into_inner().text);
        Ok(Response::new(answer))
    }
}

impl Shared {
    fn write(&self, text: String) -> pb::ReadResponse {
        let mut state = self.state.lock().unwrap();
        state.written.push(text);
        let refused = state.refuse_writes.clone();
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        pb::ReadResponse {
            status: if refused.is_some() { 403 } else { 200 },
            body: match refused {
                Some(message) => {
                    let error = serde_json::json!({"error": {"message": message}});
                    error.to_string().into_bytes()
                }
                None => b"{}".to_vec(),
            },
            ..pb::ReadResponse::default()
        }
    }

    fn read(&self, target: &str) -> pb::ReadResponse {
        let mut state = self.state.lock().unwrap();
        state.reads.push(target.to_owned());
        let path = target.split('?').next().unwrap();
        let body = state.api.get(target).or_else(|| state.api.get(path));
        let response = pb::ReadResponse {
            status: if body.is_some() { 200 } else { 404 },
            body: match body {
                Some(body) => body.clone().into_bytes(),
                None => br#"{"error":{"code":"not_found","message":"does not exist"}}"#.to_vec(),
            },
            index: state.index,
            epoch: state.epoch.clone(),
            known_leader: true,
            last_contact_ms: Some(3),
        };
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        response
    }

    fn take(&self, message: From, out: &Outbox) -> Vec<To> {
        let mut state = self.state.lock().unwrap();
        let mut answers = Vec::new();
        match message {
            From::Hello(hello) => {
                answers.push(To::Welcome(pb::Welcome {
                    cluster_id: state.cluster.clone(),
                    trust_domain: "test.mesh".into(),
                    datacenter: "dc1".into(),
                    server: "s1".into(),
                    features: Vec::new(),
                    heartbeat_ms: 1000,
                    version: Some(state.version()),
                }));
                state.hellos.push(hello);
                state.streams.push(out.clone());
            }
            From::Subscribe(subscribe) => {
                for topic in &subscribe.remove {
                    state.subscribed.remove(topic);
                }
                for held in subscribe.add {
                    answers.extend(state.fact(&held.topic));
                    state.subscribed.insert(held.topic.clone());
                    state.held.push(held);
                }
                answers.push(To::Mark(pb::Mark {
                    version: Some(state.version()),
                }));
            }
            From::Catalog(catalog) => {
                state.changes += 1;
                let refused = state.refuse.pop_front();
                if refused.is_none() {
                    state.index += 1;
                    state.apply(catalog.change.unwrap());
                }
                let (error, retry) = refused.unwrap_or_default();
                answers.push(To::CatalogResult(pb::CatalogResult {
                    request: catalog.request,
                    error,
                    retry,
                    version: Some(state.version()),
                }));
            }
            From::Proxies(report) => state.reports = report.proxies,
            From::Ack(ack) => state.acks.push(ack),
            From::Heartbeat(_) => {}
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        answers
    }
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Sync(bytes) => {
                self.syncs += 1;
                let all: Vec<Instance> = serde_json::from_slice(&bytes).unwrap();
                self.instances = all.into_iter().map(|it| (it.id.clone(), it)).collect();
            }
            Change::Put(bytes) => {
                let one: Instance = serde_json::from_slice(&bytes).unwrap();
                self.instances.insert(one.id.clone(), one);
            }
            Change::Remove(id) => drop(self.instances.remove(&id)),
            Change::Checks(bytes) => {
                let all: Vec<CheckChange> = serde_json::from_slice(&bytes).unwrap();
                for one in all {
                    let checks = &mut self.instances.get_mut(&one.instance).unwrap().checks;
                    checks.insert(one.id, one.check);
                }
            }
        }
    }
}

struct Io(TlsStream<TcpStream>);

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

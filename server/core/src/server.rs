//! A running server: its parts put together, and taken apart again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_ca::{AwsPca, Keyring, Vault};
use mesh_nomad::Servers;
use mesh_raft::grpc::{GrpcTransport, RaftService};
use mesh_raft::{Peer, RaftConfig, RaftNode};
use mesh_state::Store;
use mesh_tls::{Role, TrustDomain};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{form, server_id};
use crate::ca::Ca;
use crate::core::{Core, Settings};
use crate::error::ServerError;
use crate::feed::{FeedService, Registry};
use crate::leader;
use crate::listen::{Serving, bind, serve};
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::options::{Formation, ServerOptions};
use crate::peers::{PeerClients, PeerService, authorize_raft, connector};

/// Connections of servers at once, beside those of agents.
const PEER_CONNECTIONS: usize = 256;

/// A server in this process. End it with [`Server::shutdown`]; only then are its folder and
/// ports free again.
pub struct Server {
    pub(crate) core: Arc<Core>,
    addresses: Addresses,
    tasks: JoinSet<()>,
    _data: Option<TempDir>,
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The HTTP API, by listener, with whether it is TLS.
    pub api: Vec<(SocketAddr, bool)>,
    /// Agents and servers (8701).
    pub cluster: SocketAddr,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("me", &self.core.me)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server. It answers at once; whether it belongs to a cluster yet, `/v1/status/ready`
    /// and [`Server::ready`] say.
    ///
    /// # Errors
    /// [`ServerError`]; each names the option, file or address.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        check(&options)?;
        let settings = Settings::of(&options);
        let others = Servers::new(options.retry_join, &options.nomad);
        let others = others.map_err(|error| ServerError::Options(error.to_string()))?;
        let listeners = Listeners::bind(&options.tls, options.api, options.cluster)?;
        let (dir, data) = folder(options.data_dir)?;
        let cluster = listeners.cluster.1;
        let me = Peer {
            id: server_id(&dir)?,
            name: options.name,
            addr: match options.advertise {
                Some(address) => address,
                None => advertised(cluster)?.to_string(),
            },
        };
        let store = Store::default();
        let machine = Arc::new(StateMachine::new(store.clone(), options.level));
        let versions = machine.versions();
        let config = raft_config(&me, dir, settings.timing.raft_heartbeat);
        let connector = connector(options.tls.clone());
        let transport = GrpcTransport::new(connector.clone(), config.limits.message_bytes());
        let raft = RaftNode::start(config, machine, Arc::new(transport)).await?;
        if let Err(error) = joins(&raft, options.formation, &others).await {
            raft.shutdown().await;
            return Err(error);
        }
        if options.allow_short_ttl {
            tracing::warn!("allow_short_ttl: leaves may live for seconds; that is for tests only");
        }
        let vault = options.vault.map(Vault::new).transpose();
        let vault = match vault {
            Ok(vault) => vault.map(Arc::new),
            Err(error) => {
                raft.shutdown().await;
                return Err(ServerError::Options(format!("ca: vault: {error}")));
            }
        };
        let metrics = Metrics::new().map_err(|error| ServerError::Internal(error.to_string()))?;
        let core = Arc::new(Core {
            registry: Registry::new(&me.name),
            others,
            me,
            store,
            raft,
            versions,
            ca: Ca::new(
                Keyring::new(options.sealing, vault.clone()),
                vault.clone(),
                AwsPca::new(options.aws),
                &options.clock,
                settings.limits.sign_per_second,
            ),
            options: settings,
            local: options.local,
            facts: Default::default(),
            leases: Default::default(),
            peers: PeerClients::new(connector),
            metrics,
            clock: options.clock,
            proved: Default::default(),
            members: Default::default(),
            stop: CancellationToken::new(),
        });
        let (addresses, mut tasks) = listeners.serve(&core);
        let forming = core.clone();
        tasks.spawn(async move { form(&forming).await });
        tasks.spawn(leader::duties(core.clone()));
        tasks.spawn(leader::leases(core.clone()));
        tasks.spawn(crate::ca::keep(core.clone()));
        tasks.spawn(crate::local::keep(core.clone()));
        tasks.spawn(crate::ca::record(core.clone()));
        tasks.spawn(crate::ca::reseal::keep_open(core.clone()));
        if let Some(vault) = vault {
            let stop = core.stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = vault.keep() => {}
                }
            });
        }
        let keeping = core.clone();
        tasks.spawn(async move {
            let state = || keeping.ca.of(&keeping.store.state()).state.clone();
            let arn = || crate::ca::arn(state()?.as_ref());
            tokio::select! {
                () = keeping.stop.cancelled() => {}
                () = keeping.ca.aws.keep(arn) => {}
            }
        });
        tracing::info!(name = %core.me.name, id = core.me.id, ?addresses, "the server started");
        Ok(Self {
            core,
            addresses,
            tasks,
            _data: data,
        })
    }

    /// Where it is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its id in the cluster.
    pub fn id(&self) -> u64 {
        self.core.me.id
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.core.raft.is_leader()
    }

    /// Waits until it belongs to a cluster that has a name, a CA and a leader.
    pub async fn ready(&self) {
        let core = &self.core;
        let mut versions = core.versions.clone();
        let mut leadership = core.raft.watch_leadership();
        loop {
            let state = core.store.state();
            let led = leadership.borrow_and_update().leader.is_some();
            if led && state.cluster().is_some() && state.ca().is_some() {
                return;
            }
            let changed = tokio::select! {
                changed = versions.changed() => changed,
                changed = leadership.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it fails for good, and says why: its disk, mostly. It goes on answering reads.
    pub async fn failed(&self) -> String {
        self.core.raft.fatal().await
    }

    /// Ends it: no more is accepted, what is under way gets a few seconds, then consensus stops
    /// and its files are closed.
    pub async fn shutdown(mut self) {
        self.core.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.core.raft.shutdown().await;
        tracing::info!(name = %self.core.me.name, "the server stopped");
    }
}

/// What would only be found later, when it is in every identity.
fn check(options: &ServerOptions) -> Result<(), ServerError> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        Err(ServerError::Options(format!("{what}: {error}")))
    };
    if let Err(error) = mesh_model::check_name(&options.datacenter) {
        return wrong("datacenter", &error);
    }
    let domain = options
        .trust_domain
        .as_deref()
        .map(str::parse::<TrustDomain>);
    if let Some(Err(error)) = domain {
        return wrong("trust_domain", &error);
    }
    if options.ca.aws_pca.is_some() && !AwsPca::new(options.aws.clone()).is_built() {
        return wrong("ca: provider is \"aws_pca\"", &AwsPca::not_built());
    }
    match options.formation {
        Formation::Expect(0) => wrong("bootstrap_expect", &"is 0; give the number of servers"),
        _ => Ok(()),
    }
}

/// A server that belongs to no cluster, and is to make none, must know whom to ask.
async fn joins(raft: &RaftNode, formation: Formation, others: &Servers) -> Result<(), ServerError> {
    if formation != Formation::Join || !others.is_empty() {
        return Ok(());
    }
    // One that cannot say has stopped, and says why.
    match raft.is_initialized().await {
        Ok(false) => Err(ServerError::Options(
            "retry_join: is empty, and there is no data; give bootstrap, bootstrap_expect, or the \
             servers of the cluster to join"
                .to_owned(),
        )),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Where others reach a listener: of one on every address, the machine's own
/// by its routes.
fn advertised(bound: SocketAddr) -> Result<SocketAddr, ServerError> {
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    // Nothing is sent: this only asks which address would be used (RFC 5737's).
    let ask = || {
        let socket = std::net::UdpSocket::bind((bound.ip(), 0))?;
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    };
    match ask() {
        Ok(own) if !own.ip().is_unspecified() => Ok(SocketAddr::new(own.ip(), bound.port())),
        _ => Err(ServerError::Options(format!(
            "it is not clear at which address others reach {bound}; set advertise_addr"
        ))),
    }
}

/// The folder, which goes with the server when none was given.
fn folder(given: Option<PathBuf>) -> Result<(PathBuf, Option<TempDir>), ServerError> {
    match given {
        Some(dir) => Ok((dir, None)),
        None => {
            let made = tempfile::Builder::new().prefix("meshctl-server-").tempdir();
            let made = made.map_err(|source| ServerError::Data {
                path: std::env::temp_dir(),
                source,
            })?;
            Ok((made.path().to_owned(), Some(made)))
        }
    }
}

fn raft_config(me: &Peer, dir: PathBuf, heartbeat: Duration) -> RaftConfig {
    let mut config = RaftConfig::new(me.clone(), dir);
    config.heartbeat = heartbeat;
    config.election_min = heartbeat * 4;
    config.election_max = heartbeat * 8;
    config
}

struct Listeners {
    api: Vec<(TcpListener, SocketAddr, Option<Arc<rustls::ServerConfig>>)>,
    cluster: (TcpListener, SocketAddr, Arc<rustls::ServerConfig>),
}

impl Listeners {
    fn bind(
        tls: &mesh_tls::ClusterTls,
        api: Vec<crate::options::ApiListener>,
        cluster: crate::options::Listen,
    ) -> Result<Self, ServerError> {
        let roles = [Role::Server, Role::Agent, Role::Cli];
        let api_tls = tls.server_config(&roles, false, &[b"h2", b"http/1.1"])?;
        let cluster_tls = tls.server_config(&[Role::Server, Role::Agent], true, &[b"h2"])?;
        let api = api
            .into_iter()
            .map(|one| {
                let (listener, address) = bind(one.listen)?;
                if !one.tls && !address.ip().is_loopback() {
                    return Err(ServerError::Plaintext(address));
                }
                Ok((listener, address, one.tls.then(|| api_tls.clone())))
            })
            .collect::<Result<_, ServerError>>()?;
        let (listener, address) = bind(cluster)?;
        Ok(Self {
            api,
            cluster: (listener, address, cluster_tls),
        })
    }

    fn serve(self, core: &Arc<Core>) -> (Addresses, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let mut addresses = Addresses {
            api: Vec::new(),
            cluster: self.cluster.1,
        };
        let router = crate::api::router(core.clone());
        for (listener, address, tls) in self.api {
            addresses.api.push((address, tls.is_some()));
            let serving = Serving {
                router: router.clone(),
                tls,
                grpc: false,
                max_connections: core.options.limits.http_connections,
                head: core.options.timing.http_head,
                idle: Some(core.options.timing.http_idle),
            };
            tasks.spawn(serve(listener, serving, core.stop.clone()));
        }
        let raft = RaftService::new(core.raft.clone(), authorize_raft(core.raft.clone()));
        let services = tonic::service::Routes::new(raft.into_server())
            .add_service(PeerService::server(core.clone()))
            .add_service(FeedService::server(core.clone(), router));
        let (listener, _, tls) = self.cluster;
        let serving = Serving {
            router: services.prepare().into_axum_router(),
            tls: Some(tls),
            grpc: true,
            // An agent that changes its stream has two for a moment.
            max_connections: core.options.limits.agents * 2 + PEER_CONNECTIONS,
            head: core.options.timing.http_head,
            idle: None,
        };
        tasks.spawn(serve(listener, serving, core.stop.clone()));
        (addresses, tasks)
    }
}

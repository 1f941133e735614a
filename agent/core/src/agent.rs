//! The agent as a whole: its parts, in the order in which they begin and end.

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mesh_proto::bootstrap::{AgentAddress, Bootstrap, BootstrapRequest, HostPort};
use nix::fcntl::Flock;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::catalog::{Catalog, Settings};
use crate::checks::{self, Board, Network};
use crate::compiler::Compiler;
use crate::dns;
use crate::facts::Facts;
use crate::feed::{self, Feed, Keys, Listener, Records, SocketFile, Tickets};
use crate::http::{self, Door, Places};
use crate::identity::Identity;
use crate::leaves::Leaves;
use crate::revoked;
use crate::uplink::{self, Link, Membership, Reader, Uplink};
use crate::wants::Asked;
use crate::{AgentError, AgentOptions, DnsOptions, disk};

/// How long the end may take.
const END: Duration = Duration::from_secs(8);
/// A proxy whose connection says nothing for so long is asked, and given up after as much again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A running agent. It ends when it is dropped; [`shutdown`](Self::shutdown) also waits until all
/// is on disk.
#[derive(Debug)]
pub struct Agent {
    addresses: Addresses,
    door: Arc<Door>,
    tls: Arc<mesh_tls::ClusterTls>,
    tasks: TaskTracker,
    stop: DropGuard,
    /// Last to go: until then the data is ours.
    _lock: Flock<std::fs::File>,
}

/// Where an agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// What Nomad takes for Consul.
    pub http: SocketAddr,
    /// Proxies' streams.
    pub grpc: SocketAddr,
    /// The same, where it was asked for.
    pub grpc_socket: Option<PathBuf>,
    /// The agent's own socket.
    pub socket: Option<PathBuf>,
    /// DNS, UDP and TCP.
    pub dns: Option<SocketAddr>,
}

/// How an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The server that its stream is open to.
    pub server: Option<String>,
    /// Why the last try or stream ended.
    pub error: Option<String>,
    /// Proxies whose stream is open.
    pub proxies_connected: usize,
    /// Instances that are registered.
    pub instances: usize,
}

impl Agent {
    /// Starts an agent: reads its disk and its instance files, then binds, then answers. It does
    /// not wait for a server.
    ///
    /// # Errors
    /// When its data is not usable or is another agent's, an address cannot be bound, or the
    /// instance files have mistakes and there is nothing from before to go on with.
    pub async fn start(options: AgentOptions) -> Result<Self, AgentError> {
        let (options, state) = tokio::task::spawn_blocking(move || {
            let state = State::open(&options);
            state.map(|state| (options, state))
        })
        .await
        .map_err(|e| AgentError::Option(e.to_string()))??;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();

        let http = tcp("http_addr", options.http).await?;
        let grpc = tcp("grpc_addr", options.grpc).await?;
        let grpc_address = bound("grpc_addr", &grpc, options.grpc)?;
        let grpc_socket = options.grpc_socket.as_deref();
        let grpc_socket_listener = grpc_socket.map(|at| unix("grpc_socket", at)).transpose()?;
        let own = options.socket.as_deref();
        let own = own.map(|at| unix("socket", at)).transpose()?;
        let dns_listener = dns_listener(&options.dns).await?;
        let dns = dns_listener.as_ref().map(dns::Listener::address);
        let forwarder = options.dns.forwarder(dns);
        let addresses = Addresses {
            dns,
            http: bound("http_addr", &http, options.http)?,
            grpc: grpc_address,
            grpc_socket: options.grpc_socket.clone(),
            socket: options.socket.clone(),
        };

        let asked = Arc::new(Asked::default());
        let compiler = Arc::new(Compiler::new(
            options.node_name.clone(),
            state.facts.clone(),
            asked.clone(),
        ));
        let records = Arc::new(Records::default());
        let tickets = Arc::new(Tickets::new(options.clock.clone()));
        let (client, signer) = uplink::signer();
        let link = watch::Sender::new(Link::default());
        let signer = Arc::new(signer);
        // Not those of the doors: whoever asks for many names takes none of their places.
        let reads = Arc::new(Reader::new(uplink::Servers::clone(&signer)));
        let leaves = Arc::new(Leaves::new(
            signer.clone(),
            options.clock.clone(),
            state.facts.clone(),
        ));
        let door = Arc::new(Door {
            node_id: options.node_id.clone(),
            node_name: options.node_name.clone(),
            catalog: state.catalog.clone(),
            board: state.board.clone(),
            compiler: compiler.clone(),
            facts: state.facts.clone(),
            records: records.clone(),
            tickets: tickets.clone(),
            identity: state.identity.clone(),
            membership: state.membership.clone(),
            servers: Reader::new(uplink::Servers::clone(&signer)),
            leaves: leaves.clone(),
            link: link.subscribe(),
            token: ArcSwapOption::from(state.token.map(Arc::new)),
            takes_own_writes: options.takes_own_writes,
            instance_dir: options.instance_dir.clone(),
            register_token_file: options.register_token_file.clone(),
            files: ArcSwapOption::from(state.files_error.map(Arc::new)),
            socket: addresses.socket.clone(),
            grpc: addresses.grpc,
            dns: addresses.dns,
            feed: match &options.grpc_socket {
                Some(path) => AgentAddress::Unix(path.clone()),
                None => AgentAddress::Tcp(reachable(addresses.grpc)),
            },
        });
        let feed = Arc::new(Feed::new(feed::Parts {
            node: options.node_name.clone(),
            clock: options.clock.clone(),
            catalog: state.catalog.clone(),
            board: state.board.clone(),
            facts: state.facts.clone(),
            compiler: compiler.clone(),
            asked,
            dns: forwarder.clone(),
            tickets,
            keys: state.keys.clone(),
            records: records.clone(),
            signer,
            stop: stop.clone(),
        }));
        let servers = mesh_nomad::Servers::new(options.servers.clone(), &options.nomad);
        let servers = servers.map_err(|error| AgentError::Option(error.to_string()))?;
        let servers = servers.kept_in(options.data_dir.join("servers.json"));
        let uplink = Uplink::new(
            uplink::Parts {
                node_id: options.node_id.clone(),
                node_name: options.node_name.clone(),
                advertise: options.advertise.clone(),
                meta: options.meta.clone(),
                servers,
                tls: options.tls.clone(),
                membership: state.membership.clone(),
                catalog: state.catalog.clone(),
                board: state.board.clone(),
                facts: state.facts.clone(),
                compiler: compiler.clone(),
                records: records.clone(),
                keys: state.keys.clone(),
                stop: stop.clone(),
            },
            client,
            link,
        );

        let prober = Arc::new(Network::new(vec![addresses.http, addresses.grpc]));
        let board = state.board.clone();
        tasks.spawn(checks::run(
            state.catalog.watch(),
            board,
            prober,
            stop.clone(),
        ));
        tasks.spawn(state.board.keep(stop.clone()));
        let barring = (state.facts.clone(), state.keys.clone());
        tasks.spawn(revoked::bar(barring.0, barring.1, stop.clone()));
        tasks.spawn(state.facts.keep(stop.clone()));
        tasks.spawn(compiler.run(state.catalog.watch(), stop.clone()));
        tasks.spawn(forget(
            state.catalog,
            state.keys,
            records,
            leaves,
            stop.clone(),
        ));
        let proxies = options.limits.proxies as usize;
        for listener in [Some(grpc), grpc_socket_listener].into_iter().flatten() {
            tasks.spawn(serve_feed(listener, feed.clone(), proxies, stop.clone()));
        }
        if let Some(listener) = dns_listener {
            let names = dns::Names::new(reads, state.membership);
            tasks.spawn(dns::serve(listener, forwarder, names, stop.clone()));
        }
        let limit = options.limits.http_connections as usize;
        let router = http::router(door.clone());
        let places = Places::new(limit);
        tasks.spawn(http::serve(http, router, places, stop.clone()));
        if let Some(own) = own {
            let router = http::own_router(door.clone());
            let places = Places::new(limit);
            tasks.spawn(http::serve(own, router, places, stop.clone()));
        }
        tasks.spawn(uplink.run());
        tasks.close();
        tracing::info!(
            http = %addresses.http, grpc = %addresses.grpc, node = options.node_id, "the agent answers"
        );
        Ok(Self {
            addresses,
            door,
            tls: options.tls,
            tasks,
            stop: stop.drop_guard(),
            _lock: state.lock,
        })
    }

    /// Where it answers.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let link = self.door.link.borrow().clone();
        AgentStatus {
            server: link.server,
            error: link.error,
            proxies_connected: self.door.records.connected(),
            instances: self.door.catalog.view().len(),
        }
    }

    /// Reads the certificates, the register token and the instance files again (on SIGHUP). What
    /// has a mistake changes nothing. Says how many instances the files have.
    ///
    /// # Errors
    /// What the first mistake is.
    pub async fn reload(&self) -> Result<usize, AgentError> {
        let (door, tls) = (self.door.clone(), self.tls.clone());
        let work = move || {
            tls.reload()?;
            door.reload()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| AgentError::Option(e.to_string()))?
    }

    /// A bootstrap with a fresh ticket, as root gets it at the agent's own socket. Waits so long
    /// for the proxy to be registered.
    ///
    /// # Errors
    /// When the request is not well formed, or no such proxy is registered in time.
    pub async fn bootstrap(
        &self,
        request: &BootstrapRequest,
        wait: Duration,
    ) -> Result<Bootstrap, AgentError> {
        let issued = http::issue(&self.door, request, None, wait).await;
        issued.map_err(|failure| AgentError::Option(failure.message))
    }

    /// Ends the agent: streams close, and all is on disk. What is registered stays registered.
    pub async fn shutdown(self) {
        drop(self.stop);
        if tokio::time::timeout(END, self.tasks.wait()).await.is_err() {
            tracing::warn!("the agent did not end in time");
        }
    }
}

impl Door {
    /// Reads the register token and the instance files again. Blocks.
    pub(crate) fn reload(&self) -> Result<usize, AgentError> {
        if let Some(path) = &self.register_token_file {
            let token = http::read_token(path)?;
            self.token.store(Some(Arc::new(token)));
        }
        let Some(folder) = &self.instance_dir else {
            return Ok(0);
        };
        let loaded = self.catalog.load_files(folder);
        let error = loaded.as_ref().err().map(ToString::to_string);
        self.files.store(error.map(Arc::new));
        if let Ok(instances) = &loaded {
            tracing::info!(instances, "instance files were read");
        }
        loaded
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// What stands on disk.
struct State {
    lock: Flock<std::fs::File>,
    catalog: Arc<Catalog>,
    board: Arc<Board>,
    facts: Arc<Facts>,
    keys: Arc<Keys>,
    membership: Arc<Membership>,
    identity: Arc<Identity>,
    token: Option<Vec<u8>>,
    files_error: Option<String>,
}

impl State {
    fn open(options: &AgentOptions) -> Result<Self, AgentError> {
        let folder = &options.data_dir;
        disk::make_folder(folder)?;
        let lock = disk::lock(folder)?;
        let settings = Settings {
            bind: options.sidecar_bind,
            ports: options.sidecar_ports.clone(),
            limit: options.limits.instances as usize,
            node: options.node_id.clone(),
            address: options.advertise.clone(),
        };
        let catalog = Catalog::open(folder, settings)?;
        let token = options.register_token_file.as_deref();
        let token = token.map(http::read_token).transpose()?;
        let mut files_error = None;
        if let Some(files) = &options.instance_dir
            && let Err(error) = catalog.load_files(files)
        {
            // A restart must not fail because of a file that a reload would have refused: what
            // was taken from the files before is still there. Without any, someone is watching.
            if !catalog.has_files() {
                return Err(error);
            }
            tracing::error!(%error, "the instance files were not taken; what they said before stays");
            files_error = Some(error.to_string());
        }
        if options.instance_dir.is_none() {
            catalog.forget_files()?;
        }
        let datacenter = options.datacenter.clone();
        let clock = options.clock.clone();
        let identity = Identity::open(folder, options.attestation, &options.nomad, clock)?;
        Ok(Self {
            identity: Arc::new(identity),
            lock,
            catalog: Arc::new(catalog),
            board: Arc::new(Board::open(folder)?),
            facts: Arc::new(Facts::open(folder, options.features.clone())?),
            keys: Arc::new(Keys::open(folder)?),
            membership: Arc::new(Membership::open(folder, datacenter, options.rejoin)?),
            token,
            files_error,
        })
    }
}

/// Forgets the keys and states of proxies and native instances that are no longer registered.
async fn forget(
    catalog: Arc<Catalog>,
    keys: Arc<Keys>,
    records: Arc<Records>,
    leaves: Arc<Leaves>,
    stop: CancellationToken,
) {
    let mut changed = catalog.watch();
    loop {
        let view = changed.borrow_and_update().clone();
        records.retain(&view);
        leaves.retain(&view);
        let (keys, catalog) = (keys.clone(), catalog.clone());
        let _ = tokio::task::spawn_blocking(move || keys.retain(|| catalog.view())).await;
        tokio::select! {
            it = changed.changed() => if it.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn serve_feed(listener: Listener, feed: Arc<Feed>, limit: usize, stop: CancellationToken) {
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(Some(4))
        .http2_max_header_list_size(Some(16 * 1024))
        .add_service(feed.service())
        .serve_with_incoming_shutdown(feed::accept(listener, limit), stop.cancelled())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the feed to proxies ended");
    }
}

/// Binds the DNS listener, if there is to be one. Where its place is the default and taken, by a
/// Consul that is being moved away from, say, the node does without: jobs run as before, but
/// Nomad then has no DNS redirected.
async fn dns_listener(options: &DnsOptions) -> Result<Option<dns::Listener>, AgentError> {
    let Some(at) = options.listen else {
        return Ok(None);
    };
    match dns::Listener::bind(at).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if options.must_listen => Err(AgentError::Bind {
            what: "dns",
            address: at.to_string(),
            source,
        }),
        Err(error) => {
            tracing::warn!(
                address = %at, %error,
                "DNS is not answered, and in jobs with transparent_proxy not redirected to their \
                 sidecars; free the address, or name another with dns {{ bind = \"…\" }}"
            );
            Ok(None)
        }
    }
}

async fn tcp(what: &'static str, at: SocketAddr) -> Result<Listener, AgentError> {
    let listener = TcpListener::bind(at).await;
    listener
        .map(Listener::Tcp)
        .map_err(|source| AgentError::Bind {
            what,
            address: at.to_string(),
            source,
        })
}

fn bound(
    what: &'static str,
    listener: &Listener,
    wanted: SocketAddr,
) -> Result<SocketAddr, AgentError> {
    listener.address().ok_or_else(|| AgentError::Bind {
        what,
        address: wanted.to_string(),
        source: std::io::ErrorKind::AddrNotAvailable.into(),
    })
}

/// Binds a socket that everyone may connect to: who it is decides, by the kernel's word. A file
/// that a dead agent left is taken away; the lock on the data says that it is dead.
fn unix(what: &'static str, path: &Path) -> Result<Listener, AgentError> {
    let error = |source| AgentError::Bind {
        what,
        address: path.display().to_string(),
        source,
    };
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(folder);
        made.map_err(error)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error(std::io::ErrorKind::AddrInUse.into()));
            }
            std::fs::remove_file(path).map_err(error)?;
        }
        Ok(_) => return Err(error(std::io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    let _file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(error)?;
    Ok(Listener::Unix { listener, _file })
}

/// The address by which a proxy on this machine reaches a listener.
fn reachable(at: SocketAddr) -> HostPort {
    let mut at = at;
    if at.ip().is_unspecified() {
        at.set_ip(match at {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    at.into()
}

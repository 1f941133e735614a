//! The server and the agent of `meshctl dev`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mesh_agent::{Agent, AgentOptions};
use mesh_ca::SealingKey;
use mesh_ca::cluster::{CA_TTL, CERT_TTL, ClusterCa, create_ca};
use mesh_model::Action;
use mesh_model::config::{AgentConfig, GRPC_PORT, HTTP_PORT};
use mesh_server::{ApiListener, Listen, Server, ServerOptions};
use mesh_tls::{ClusterId, ClusterTls, Role};

use super::memory::Memory;
use crate::error::CliError;

/// What `meshctl dev` runs.
pub(crate) struct Dev {
    server: Server,
    agent: Agent,
    /// The address that everything listens on.
    pub(crate) bind: IpAddr,
    /// The folder of the state.
    pub(crate) folder: PathBuf,
    /// What the folder goes with, unless it is kept.
    memory: Option<Memory>,
}

impl Dev {
    /// Starts both and waits until they work.
    pub(crate) async fn start(bind: IpAddr, data_dir: Option<&Path>) -> Result<Self, CliError> {
        let (folder, memory) = match data_dir {
            Some(path) => {
                mesh_server::make_dir(path).map_err(CliError::file(path))?;
                (path.to_owned(), None)
            }
            None => {
                let memory = Memory::make().map_err(refused)?;
                (memory.path().to_owned(), Some(memory))
            }
        };
        let certificates = Certificates::make(bind)?;
        let sealing = sealing_key(&folder.join("sealing.key"))?;
        let server = server(bind, &folder, certificates.server, sealing).await?;
        server.ready().await;
        let agent = agent(bind, &folder, certificates.agent).await?;
        Ok(Self {
            server,
            agent,
            bind,
            folder,
            memory,
        })
    }

    /// Where the HTTP API is.
    pub(crate) fn api(&self) -> String {
        format!("http://{}", SocketAddr::new(self.bind, HTTP_PORT))
    }

    /// Where the agent's HTTP API is.
    pub(crate) fn agent_api(&self) -> String {
        format!("http://{}", SocketAddr::new(self.bind, 8500))
    }

    /// The agent's own socket.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }

    /// What is said at the start.
    pub(crate) fn welcome(&self) -> String {
        let data = match &self.memory {
            None => self.folder.display().to_string(),
            Some(memory) => format!(
                "in {}: it goes when this ends (-data-dir keeps it)",
                if memory.resident {
                    "memory"
                } else {
                    "a temporary folder"
                }
            ),
        };
        let other = match self.bind == IpAddr::from([127, 0, 0, 1]) {
            true => String::new(),
            false => format!("  export MESHCTL_HTTP_ADDR={}\n", self.api()),
        };
        format!(
            "meshctl dev: a server and an agent, for trying out\n\n\
             \x20 API     {}\n\
             \x20 agent   {}\n\
             \x20 socket  {}\n\
             \x20 state   {data}\n{other}\n\
             The default intention is ALLOW here; a server's is deny.\n\n",
            self.api(),
            self.agent_api(),
            self.socket().display(),
        )
    }

    /// When the server cannot go on: why.
    pub(crate) async fn failed(&self) -> String {
        self.server.failed().await
    }

    /// Ends both.
    pub(crate) async fn shutdown(self) {
        self.agent.shutdown().await;
        self.server.shutdown().await;
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

/// The cluster's certificates, made in memory: they live as long as the
/// process, and nobody else has their CA.
struct Certificates {
    server: Arc<ClusterTls>,
    agent: Arc<ClusterTls>,
}

impl Certificates {
    fn make(bind: IpAddr) -> Result<Self, CliError> {
        let now = SystemTime::now();
        let pair = create_ca("meshctl dev", CA_TTL, now).map_err(refused)?;
        let ca = ClusterCa::from_pem(&pair.certificate, pair.key.as_str()).map_err(refused)?;
        let issue = |role| {
            let id = ClusterId::new(role, "dev").map_err(refused)?;
            let issued = ca.issue(&id, &[bind.to_string()], CERT_TTL, now);
            let issued = issued.map_err(refused)?;
            let (ca, cert) = (pair.certificate.as_bytes(), issued.certificate.as_bytes());
            let tls = ClusterTls::from_pem(ca, cert, issued.key.as_str().as_bytes());
            tls.map(Arc::new).map_err(refused)
        };
        Ok(Self {
            server: issue(Role::Server)?,
            agent: issue(Role::Agent)?,
        })
    }
}

/// An error whose own words say what to do.
fn refused(error: impl std::fmt::Display) -> CliError {
    CliError::refused(error, "")
}

fn sealing_key(path: &Path) -> Result<Arc<SealingKey>, CliError> {
    let key = match path.exists() {
        true => SealingKey::from_file(path),
        false => SealingKey::generate_file(path),
    };
    key.map(Arc::new).map_err(refused)
}

async fn server(
    bind: IpAddr,
    folder: &Path,
    tls: Arc<ClusterTls>,
    sealing: Arc<SealingKey>,
) -> Result<Server, CliError> {
    let mut options = ServerOptions::loopback("dev", tls, sealing);
    options.default_intention = Action::Allow;
    // Nomad's own `-dev` is server and client in one, with one address for Consul.
    options.agents_write_gateways = true;
    options.data_dir = Some(folder.join("server"));
    options.api = vec![ApiListener {
        listen: Listen::Address(SocketAddr::new(bind, HTTP_PORT)),
        tls: false,
    }];
    options.cluster = Listen::Address(SocketAddr::new(bind, GRPC_PORT));
    let started = Server::start(options).await;
    started.map_err(|error| CliError::refused(error, busy(bind)))
}

fn busy(bind: IpAddr) -> String {
    format!("If another mesh runs at {bind}, end it, or give another address: -bind 127.0.0.2")
}

async fn agent(bind: IpAddr, folder: &Path, tls: Arc<ClusterTls>) -> Result<Agent, CliError> {
    let config = AgentConfig {
        node_name: Some("dev".to_owned()),
        data_dir: folder.join("agent"),
        servers: vec![SocketAddr::new(bind, GRPC_PORT).to_string()],
        bind_addr: bind,
        advertise_addr: Some(bind),
        http_addr: SocketAddr::new(bind, 8500),
        grpc_addr: SocketAddr::new(bind, 8502),
        socket: socket(folder),
        ..AgentConfig::default()
    };
    let mut options = AgentOptions::new(&config, tls).map_err(refused)?;
    // The demo's instances are registered by this very process.
    options.takes_own_writes = true;
    let started = Agent::start(options).await;
    started.map_err(|error| CliError::refused(error, busy(bind)))
}

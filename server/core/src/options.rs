//! How a server is set up.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_ca::{
    AwsOptions, AwsPlace, CaConfig, KeyType, SealBy, SealingKey, SealingOptions, TransitPlace,
    VaultAuth, VaultOptions, VaultPlace,
};
use mesh_model::Action;
use mesh_model::config::{
    self as model, CaImport, CaKeyType, CaProvider, NomadConfig, ServerConfig,
};
use mesh_tls::ClusterTls;

use crate::clock::{Clock, SystemClock};
use crate::local::Local;

/// What [`Server::start`](crate::Server::start) needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// This server's name, for people: in lists and logs.
    pub name: String,
    /// The cluster's own name; `dc1`.
    pub datacenter: String,
    /// The trust domain of a new cluster; `None`: `<cluster id>.mesh`.
    pub trust_domain: Option<String>,
    /// What holds without an intention in a new cluster.
    pub default_intention: Action,
    /// Where the log and the snapshots are; `None`: a folder that goes when
    /// the server does.
    pub data_dir: Option<PathBuf>,
    /// How the cluster begins.
    pub formation: Formation,
    /// `host:port` of other servers (8701), asked before anything is begun.
    pub retry_join: Vec<String>,
    /// Where Nomad is, which is asked for more of them where it names a service.
    pub nomad: NomadConfig,
    /// The cluster's certificates.
    pub tls: Arc<ClusterTls>,
    /// What seals and opens the CA's keys.
    pub sealing: SealingOptions,
    /// What the CA is to be: in Vault where it says where in Vault, below one in AWS where it says
    /// which, else built in.
    pub ca: CaConfig,
    /// What a new mesh takes over in place of a CA of its own.
    pub import: Option<CaImport>,
    /// Leaves may live shorter than five minutes: for tests.
    pub allow_short_ttl: bool,
    /// How this server reaches Vault; `None`: it does not.
    pub vault: Option<VaultOptions>,
    /// How this server reaches AWS.
    pub aws: AwsOptions,
    /// Where the HTTP API is served (8700).
    pub api: Vec<ApiListener>,
    /// Where servers and agents are served (8701).
    pub cluster: Listen,
    /// `host:port` at which other servers reach [`Self::cluster`]; `None`: its
    /// own address.
    pub advertise: Option<String>,
    /// Whether agents may pass on the entries of gateways that Nomad's servers
    /// write at an agent's own door.
    pub agents_write_gateways: bool,
    /// Who keeps what is registered with this server itself; `None`: nothing can be.
    pub local: Option<Arc<dyn Local>>,
    /// How long things take.
    pub timing: Timing,
    /// What is taken at most.
    pub limits: Limits,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The highest level of commands that this server speaks: its build's, but
    /// where a test plays an older one.
    pub level: u32,
}

/// What a server takes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to one listener of the HTTP API at once.
    pub http_connections: usize,
    /// Bytes of a request's body, where a route does not take less.
    pub http_body: usize,
    /// Agents connected at once.
    pub agents: usize,
    /// Instances of one node.
    pub instances_per_agent: usize,
    /// Leaves signed in a second.
    pub sign_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http_connections: 1024,
            http_body: 4 << 20,
            agents: 10_000,
            instances_per_agent: 4096,
            sign_per_second: 200,
        }
    }
}

/// How a cluster begins. A server that has data goes on with it, whatever
/// stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// This server alone makes it, unless one of `retry_join` has one already.
    Bootstrap,
    /// That many servers make it together, once all of them are seen; unless
    /// one has one already.
    Expect(usize),
    /// Others have made it.
    Join,
}

/// A listener of the HTTP API.
#[derive(Debug)]
pub struct ApiListener {
    /// Where.
    pub listen: Listen,
    /// TLS with the cluster's certificates. Plaintext is taken on loopback
    /// addresses only.
    pub tls: bool,
}

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// An address; port 0 for any.
    Address(SocketAddr),
    /// A listener that is bound already.
    Bound(TcpListener),
}

/// How long things take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A node that is not heard for this long is silent.
    pub lease: Duration,
    /// A node that is silent for this long is gone.
    pub node_ttl: Duration,
    /// Between two checksums of everything to each agent.
    pub resync: Duration,
    /// At least between two marks to one agent.
    pub mark_interval: Duration,
    /// A stream to an agent ends when this server has not heard of the leader
    /// for this long, so that the agent tries another server: well within a lease,
    /// since what it hears meanwhile reaches no leader.
    pub leader_grace: Duration,
    /// Between two heartbeats of Raft. Election times follow from it.
    pub raft_heartbeat: Duration,
    /// How long a write or a fresh read may take.
    pub request: Duration,
    /// Between two attempts to form or join a cluster.
    pub join_retry: Duration,
    /// How long the head of a request to the HTTP API may take.
    pub http_head: Duration,
    /// How long a connection of someone without a certificate may ask nothing;
    /// others' ten times as long.
    pub http_idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            node_ttl: Duration::from_secs(72 * 3600),
            resync: Duration::from_secs(60),
            mark_interval: Duration::from_millis(50),
            leader_grace: Duration::from_secs(5),
            raft_heartbeat: Duration::from_millis(100),
            request: Duration::from_secs(10),
            join_retry: Duration::from_secs(1),
            http_head: Duration::from_secs(10),
            http_idle: Duration::from_secs(30),
        }
    }
}

impl ServerOptions {
    /// As a server's configuration says. `host` is the name where it has none;
    /// the certificates and the sealing key are read by the caller.
    pub fn from_config(
        config: &ServerConfig,
        host: &str,
        tls: Arc<ClusterTls>,
        sealing: Vec<Arc<SealingKey>>,
    ) -> Self {
        let formation = match (config.bootstrap, config.bootstrap_expect) {
            (true, _) => Formation::Bootstrap,
            (false, Some(expect)) => Formation::Expect(expect as usize),
            (false, None) => Formation::Join,
        };
        let name = config.node_name.as_deref().unwrap_or(host);
        let limits = &config.limits;
        Self {
            datacenter: config.datacenter.clone(),
            trust_domain: config.trust_domain.clone(),
            default_intention: config.default_intention,
            data_dir: Some(config.data_dir.clone()),
            formation,
            retry_join: config.retry_join.clone(),
            nomad: config.nomad.clone(),
            ca: CaConfig {
                leaf_ttl_seconds: config.ca.leaf_ttl.std().as_secs(),
                intermediate_ttl_seconds: config.ca.intermediate_ttl.std().as_secs(),
                root_ttl_seconds: config.ca.root_ttl.std().as_secs(),
                key_type: match config.ca.key_type {
                    CaKeyType::EcP256 => KeyType::EcP256,
                    CaKeyType::EcP384 => KeyType::EcP384,
                    CaKeyType::Rsa2048 => KeyType::Rsa2048,
                    CaKeyType::Rsa4096 => KeyType::Rsa4096,
                },
                vault: match config.ca.provider {
                    CaProvider::BuiltIn | CaProvider::AwsPca => None,
                    CaProvider::Vault => config.ca.vault.as_ref().map(vault_place),
                },
                aws_pca: match config.ca.provider {
                    CaProvider::BuiltIn | CaProvider::Vault => None,
                    CaProvider::AwsPca => config.ca.aws_pca.as_ref().map(aws_place),
                },
            },
            import: config.ca.import.clone(),
            allow_short_ttl: config.ca.allow_short_ttl,
            vault: config.ca.vault.as_ref().map(reach),
            aws: AwsOptions {
                endpoint: config
                    .ca
                    .aws_pca
                    .as_ref()
                    .and_then(|aws| aws.endpoint.clone()),
            },
            api: vec![ApiListener {
                listen: Listen::Address(config.http_address()),
                tls: config.tls.is_some(),
            }],
            cluster: Listen::Address(config.grpc_address()),
            advertise: config.advertise_addr.map(|address| address.to_string()),
            agents_write_gateways: config.agents_write_gateways,
            timing: Timing {
                node_ttl: config.node_ttl.std(),
                ..Timing::default()
            },
            limits: Limits {
                http_connections: limits.http_connections as usize,
                http_body: usize::try_from(limits.http_body).unwrap_or(usize::MAX),
                agents: limits.agents as usize,
                instances_per_agent: limits.instances_per_agent as usize,
                sign_per_second: config.ca.sign_per_second,
            },
            sealing: SealingOptions {
                files: sealing,
                transit: config.sealing.transit.as_ref().map(|transit| TransitPlace {
                    mount: transit.mount.clone(),
                    key: transit.key.clone(),
                }),
                by: match config.sealing.transit_first {
                    true => SealBy::Transit,
                    false => SealBy::File,
                },
            },
            ..Self::alone(name, tls)
        }
    }

    /// A server alone on free loopback ports, with nothing kept: for `meshctl
    /// dev` and tests. Change what should be different.
    pub fn loopback(name: &str, tls: Arc<ClusterTls>, sealing: Arc<SealingKey>) -> Self {
        let mut options = Self::alone(name, tls);
        options.sealing.files.push(sealing);
        options
    }

    fn alone(name: &str, tls: Arc<ClusterTls>) -> Self {
        let any = || Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self {
            name: name.to_owned(),
            datacenter: "dc1".to_owned(),
            trust_domain: None,
            default_intention: Action::Deny,
            data_dir: None,
            formation: Formation::Bootstrap,
            retry_join: Vec::new(),
            nomad: NomadConfig::default(),
            tls,
            sealing: SealingOptions::default(),
            ca: CaConfig::default(),
            import: None,
            allow_short_ttl: false,
            vault: None,
            aws: AwsOptions::default(),
            api: vec![ApiListener {
                listen: any(),
                tls: false,
            }],
            cluster: any(),
            advertise: None,
            agents_write_gateways: false,
            local: None,
            timing: Timing::default(),
            limits: Limits::default(),
            clock: Arc::new(SystemClock::default()),
            level: mesh_state::LEVEL,
        }
    }
}

/// Where in Vault the CA is.
pub fn vault_place(vault: &model::VaultConfig) -> VaultPlace {
    VaultPlace {
        root_pki_path: vault.root_pki_path.clone(),
        intermediate_pki_path: vault.intermediate_pki_path.clone(),
        leaf_signing: match vault.leaf_signing {
            model::LeafSigning::Vault => mesh_ca::LeafSigning::Vault,
            model::LeafSigning::Cluster => mesh_ca::LeafSigning::Cluster,
        },
    }
}

/// Which CA in AWS it is.
pub fn aws_place(aws: &model::AwsConfig) -> AwsPlace {
    AwsPlace {
        existing_arn: aws.existing_arn.clone(),
    }
}

/// How a server reaches Vault.
fn reach(vault: &model::VaultConfig) -> VaultOptions {
    VaultOptions {
        address: vault.address.clone(),
        namespace: vault.namespace.clone(),
        ca_file: vault.ca_file.clone(),
        server_name: vault.tls_server_name.clone(),
        identity: vault.cert_file.clone().zip(vault.key_file.clone()),
        auth: match vault.auth.clone() {
            model::VaultAuth::Token { token_file } => VaultAuth::Token { file: token_file },
            model::VaultAuth::AppRole {
                mount,
                role_id,
                secret_id_file,
            } => VaultAuth::AppRole {
                mount,
                role_id,
                secret_id_file,
            },
            model::VaultAuth::Jwt {
                mount,
                role,
                jwt_file,
            } => VaultAuth::Jwt {
                mount,
                role,
                file: jwt_file,
            },
        },
    }
}

//! What is wanted, typed. [`check`] says whether it can be, before anything is asked of anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::secret::{Redactor, Secret};

mod check;

/// How many servers a cluster has at most.
pub const MAX_SERVERS: u32 = 5;
/// What stands in `config` for the folder of the secrets.
pub(crate) const SECRETS: &str = "{secrets}";
/// How what Nomad fills into `config` begins; it must not be there already.
pub(crate) const DELIMITERS: (&str, &str) = ("<<<", ">>>");

/// The servers.
#[derive(Clone, Debug)]
pub struct Servers {
    /// The set's name: its jobs are `NAME-0`, `NAME-1` …, and Nomad's service `NAME` finds them.
    pub name: String,
    /// 1, 3 or 5.
    pub count: u32,
    /// Nomad's datacenters, with `*` as Nomad takes it.
    pub datacenters: Vec<String>,
    /// Nomad's node pool.
    pub node_pool: String,
    /// The program.
    pub binary: Binary,
    /// Which version it is, in words: another one restarts the servers one by one.
    pub version: String,
    /// The user of the machines that runs it.
    pub user: String,
    /// Which machines, and where on them.
    pub machine: Machine,
    /// The port of the HTTP API; 0: any that is free.
    pub http_port: u16,
    /// The port for agents and servers; 0: any that is free.
    pub grpc_port: u16,
    /// The cluster's certificates.
    pub tls: ServersTls,
    /// What seals the CA's keys.
    pub sealing: Sealing,
    /// More of a server's configuration, HCL: `datacenter`, `ca`, `default_intention` … `{secrets}`
    /// in it is the folder of the tokens.
    pub config: String,
    /// Files `token-NAME` in that folder. The value may be unknown where nothing is changed.
    pub tokens: BTreeMap<String, Option<Secret>>,
    /// MHz.
    pub cpu: u32,
    /// MB.
    pub memory: u32,
}

/// The agent, on every client of Nomad's.
#[derive(Clone, Debug)]
pub struct Agents {
    /// The job's name.
    pub name: String,
    /// Nomad's service of the servers: [`Servers::name`].
    pub servers: String,
    /// Nomad's datacenters.
    pub datacenters: Vec<String>,
    /// Nomad's node pool.
    pub node_pool: String,
    /// The program.
    pub binary: Binary,
    /// Which version it is, in words.
    pub version: String,
    /// The user of the machines that runs it.
    pub user: String,
    /// Where it keeps what it knows.
    pub data_dir: String,
    /// Its own socket.
    pub socket: String,
    /// The folder of the program `consul` that Nomad runs for a sidecar.
    pub shim_dir: String,
    /// The folder of the plugin `consul-cni`.
    pub cni_dir: String,
    /// The cluster's certificates.
    pub tls: AgentsTls,
    /// More of an agent's configuration, HCL.
    pub config: String,
    /// MHz.
    pub cpu: u32,
    /// MB.
    pub memory: u32,
}

/// Where the program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// On every machine.
    Path(String),
    /// Fetched by Nomad: one file.
    Artifact {
        /// Where from.
        url: String,
        /// As Nomad takes it: `sha256:…`.
        checksum: String,
    },
}

/// Which machines may have a server, and where on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// A host volume of Nomad's that a machine must have; none: every machine may.
    pub volume: Option<String>,
    /// The folder of the data: each server has one of its own in it.
    pub data_dir: String,
    /// Never two on one machine.
    pub distinct: bool,
}

/// The cluster's certificates, for servers.
#[derive(Clone, Debug)]
pub enum ServersTls {
    /// On every machine that may have one.
    Files {
        /// The cluster CA.
        ca: String,
        /// The server's certificate.
        certificate: String,
        /// Its key.
        key: String,
    },
    /// Made for each server by the cluster CA.
    Issued {
        /// The CA's certificate, PEM.
        ca: String,
        /// Its key, PEM; unknown where nothing is changed.
        key: Option<Secret>,
    },
}

/// The same for agents; an agent's certificate names its node.
pub type AgentsTls = ServersTls;

/// What seals the CA's private keys.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// A file on every machine that may have a server.
    File(String),
    /// This key; unknown where nothing is changed.
    Key(Option<Secret>),
    /// What `config` says.
    Config,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// All of it.
    pub total: Duration,
    /// One step: until a server answers, has a vote, has caught up.
    pub step: Duration,
    /// After which a machine that Nomad does not hear is lost, and its server made elsewhere.
    pub lost_after: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30 * 60),
            step: Duration::from_secs(5 * 60),
            lost_after: Duration::from_secs(2 * 60),
        }
    }
}

impl Servers {
    /// The job of one of them.
    pub(crate) fn job(&self, index: u32) -> String {
        format!("{}-{index}", self.name)
    }

    pub(crate) fn redactor(&self) -> Redactor {
        let tokens = self.tokens.values().flatten();
        let sealing = match &self.sealing {
            Sealing::Key(key) => key.as_ref(),
            _ => None,
        };
        Redactor::new(tokens.chain(sealing).chain(tls_key(&self.tls)))
    }
}

impl Agents {
    pub(crate) fn redactor(&self) -> Redactor {
        Redactor::new(tls_key(&self.tls).into_iter())
    }
}

fn tls_key(tls: &ServersTls) -> Option<&Secret> {
    match tls {
        ServersTls::Issued { key, .. } => key.as_ref(),
        ServersTls::Files { .. } => None,
    }
}

#[cfg(test)]
pub(crate) mod samples {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) const SEALING: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    pub(crate) const TOKEN: &str = "hvs.a-token-of-vault";

    pub(crate) fn issued() -> ServersTls {
        let now = std::time::SystemTime::now();
        let made = mesh_ca::cluster::create_ca("test", mesh_ca::cluster::CA_TTL, now).unwrap();
        ServersTls::Issued {
            ca: made.certificate.clone(),
            key: Some(Secret::new(made.key.as_str())),
        }
    }

    pub(crate) fn files() -> ServersTls {
        ServersTls::Files {
            ca: "/etc/meshctl/cluster-ca.pem".to_owned(),
            certificate: "/etc/meshctl/server.pem".to_owned(),
            key: "/etc/meshctl/server.key".to_owned(),
        }
    }

    pub(crate) fn servers() -> Servers {
        Servers {
            name: "mesh-server".to_owned(),
            count: 3,
            datacenters: vec!["dc1".to_owned(), "eu-*".to_owned()],
            node_pool: "default".to_owned(),
            binary: Binary::Path("/usr/local/bin/meshctl".to_owned()),
            version: "1.2.3".to_owned(),
            user: "meshctl".to_owned(),
            machine: Machine {
                volume: Some("mesh-server".to_owned()),
                data_dir: "/var/lib/meshctl".to_owned(),
                distinct: true,
            },
            http_port: 8700,
            grpc_port: 0,
            tls: issued(),
            sealing: Sealing::Key(Some(Secret::new(SEALING))),
            config: "ca {\n  provider = \"vault\"\n\n  vault {\n    address               = \"https://vault:8200\"\n    root_pki_path         = \"pki_root\"\n    intermediate_pki_path = \"pki_mesh\"\n\n    auth \"token\" {\n      token_file = \"{secrets}/token-vault\"\n    }\n  }\n}\n".to_owned(),
            tokens: [("vault".to_owned(), Some(Secret::new(TOKEN)))].into(),
            cpu: 200,
            memory: 512,
        }
    }

    pub(crate) fn agents() -> Agents {
        Agents {
            name: "mesh-agent".to_owned(),
            servers: "mesh-server".to_owned(),
            datacenters: vec!["*".to_owned()],
            node_pool: "all".to_owned(),
            binary: Binary::Path("/usr/local/bin/meshctl".to_owned()),
            version: String::new(),
            user: "meshctl-agent".to_owned(),
            data_dir: "/var/lib/meshctl-agent".to_owned(),
            socket: "/run/meshctl/agent.sock".to_owned(),
            shim_dir: "/usr/lib/meshctl/nomad".to_owned(),
            cni_dir: "/opt/cni/bin".to_owned(),
            tls: issued(),
            config: String::new(),
            cpu: 100,
            memory: 128,
        }
    }
}

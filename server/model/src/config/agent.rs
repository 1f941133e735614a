//! An agent's configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{
    LogFormat, LogLevel, NomadConfig, Readable, TlsFiles, load, log, name, node_name, path,
    servers, set, some, tls,
};
use crate::Diagnostics;
use crate::fields::Fields;

/// Everything that `meshctl agent` reads from its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// This node's name. Default: the host's.
    pub node_name: Option<String>,
    /// This node's id, which must be the certificate's. Default: that.
    pub node_id: Option<String>,
    /// Where local state and the last facts stand. Default
    /// `/var/lib/meshctl-agent`.
    pub data_dir: PathBuf,
    /// The name of the servers' cluster; refused if the servers have another.
    /// Default: theirs.
    pub datacenter: Option<String>,
    /// The servers, as `host:port` (8701 when none is written). Also read as
    /// `retry_join`. Default: none, which is an error for an agent that is not
    /// told to ask Nomad either.
    pub servers: Vec<String>,
    /// The address that sidecars listen on. Default `0.0.0.0`.
    pub bind_addr: IpAddr,
    /// The address at which other nodes reach this one. Default: the bind
    /// address, or where that is `0.0.0.0` the host's own.
    pub advertise_addr: Option<IpAddr>,
    /// Where Nomad finds what it takes for Consul. Default `127.0.0.1:8500`.
    pub http_addr: SocketAddr,
    /// Where proxies open their stream. Default `127.0.0.1:8502`.
    pub grpc_addr: SocketAddr,
    /// The socket of the node's own administrator. Default
    /// `/run/meshctl/agent.sock`.
    pub socket: PathBuf,
    /// A directory of instance files. Default: none.
    pub instance_dir: Option<PathBuf>,
    /// A file with a token that a registration over HTTP may bring in place of
    /// root's uid or the agent's. Default: none.
    pub register_token_file: Option<PathBuf>,
    /// Its certificate. It must be there when the agent starts.
    pub tls: Option<TlsFiles>,
    /// Facts about the node. Default: none.
    pub meta: BTreeMap<String, String>,
    /// The first port that a sidecar without one may get. Default 21000.
    pub sidecar_min_port: u16,
    /// The last one. Default 21255.
    pub sidecar_max_port: u16,
    /// How much is logged. Default info.
    pub log_level: LogLevel,
    /// How it is logged. Default text.
    pub log_format: LogFormat,
    /// Where it asks and answers DNS.
    pub dns: DnsConfig,
    /// What a sidecar must prove to be registered and started. Default node.
    pub attestation: Attestation,
    /// Where Nomad is, and what it is asked for.
    pub nomad: NomadConfig,
    /// What it takes at most.
    pub limits: AgentLimits,
}

/// The `dns` block of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Whether it answers, and so whether Nomad redirects DNS to sidecars.
    /// Default yes.
    pub enabled: bool,
    /// The address on which it answers, one that allocations reach. Default:
    /// the advertised one, unless that is loopback's.
    pub bind: Option<IpAddr>,
    /// The port, UDP and TCP. Default 8600.
    pub port: u16,
    /// The name servers that it asks. Default: those of `/etc/resolv.conf`.
    pub recursors: Vec<SocketAddr>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: None,
            port: 8600,
            recursors: Vec::new(),
        }
    }
}

/// What a sidecar must prove to be registered and started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attestation {
    /// That root of the node, or the agent's user, or who has the register
    /// token, says so.
    #[default]
    Node,
    /// Besides, that Nomad placed it there: a token of its workload.
    Workload,
}

impl Attestation {
    /// Reads `node` or `workload`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "node" => Some(Self::Node),
            "workload" => Some(Self::Workload),
            _ => None,
        }
    }
}

/// The `limits` block of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Connections over HTTP at once. Default 256.
    pub http_connections: u32,
    /// Streams of proxies at once. Default 1024.
    pub proxies: u32,
    /// Instances that are registered at once. Default 1024.
    pub instances: u32,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            http_connections: 256,
            proxies: 1024,
            instances: 1024,
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            node_name: None,
            node_id: None,
            data_dir: PathBuf::from("/var/lib/meshctl-agent"),
            datacenter: None,
            servers: Vec::new(),
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise_addr: None,
            http_addr: loopback(8500),
            grpc_addr: loopback(8502),
            socket: PathBuf::from("/run/meshctl/agent.sock"),
            instance_dir: None,
            register_token_file: None,
            tls: None,
            meta: BTreeMap::new(),
            sidecar_min_port: 21_000,
            sidecar_max_port: 21_255,
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            dns: DnsConfig::default(),
            attestation: Attestation::default(),
            nomad: NomadConfig::default(),
            limits: AgentLimits::default(),
        }
    }
}

impl AgentConfig {
    /// Reads files, as (name, text), over the defaults; a later one wins.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Diagnostics> {
        load(Self::default(), files)
    }
}

impl DnsConfig {
    fn read(&mut self, fields: &mut Fields<'_>) {
        set(&mut self.enabled, fields.bool("enabled"));
        let one = |text: &str| match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Err(format!(
                "`{text}` is every address, and Nomad must be told of one; write that"
            )),
            Ok(ip) => Ok(ip),
            Err(_) => Err(format!(
                "`{text}` is not an address; write one without a port, which is `port`"
            )),
        };
        some(&mut self.bind, fields.parsed("bind", one));
        set(&mut self.port, fields.port("port", 1));
        if fields.where_is("recursors").is_some() {
            self.recursors.clear();
        }
        for (text, at) in fields.texts("recursors") {
            let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
            match text.parse::<SocketAddr>().or(bare) {
                Ok(address) if !address.ip().is_unspecified() && address.port() != 0 => {
                    self.recursors.push(address);
                }
                _ => {
                    let text: String = text.chars().take(64).collect();
                    let message = format!(
                        "`{text}` is not a name server; write its address, with the port where it is not 53"
                    );
                    fields.wrong(at, "recursors", message);
                }
            }
        }
    }
}

impl Readable for AgentConfig {
    fn read(&mut self, fields: &mut Fields<'_>) {
        some(&mut self.node_name, node_name(fields));
        some(&mut self.node_id, name(fields, "node_id"));
        set(&mut self.data_dir, path(fields, "data_dir"));
        some(&mut self.datacenter, name(fields, "datacenter"));
        if let (Some(_), Some(at)) = (fields.where_is("servers"), fields.where_is("retry_join")) {
            fields.wrong(at, "retry_join", "is another word for `servers`; keep one");
        }
        servers(&mut self.servers, fields, "servers");
        servers(&mut self.servers, fields, "retry_join");
        let ip = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| format!("`{text}` is not an address; write one without a port"))
        };
        set(&mut self.bind_addr, fields.parsed("bind_addr", ip));
        some(
            &mut self.advertise_addr,
            fields.parsed("advertise_addr", ip),
        );
        set(&mut self.http_addr, fields.address("http_addr", 8500));
        set(&mut self.grpc_addr, fields.address("grpc_addr", 8502));
        set(&mut self.socket, path(fields, "socket"));
        some(&mut self.instance_dir, path(fields, "instance_dir"));
        some(
            &mut self.register_token_file,
            path(fields, "register_token_file"),
        );
        tls(&mut self.tls, fields);
        self.meta.extend(fields.map("meta"));
        set(
            &mut self.sidecar_min_port,
            fields.port("sidecar_min_port", 1),
        );
        set(
            &mut self.sidecar_max_port,
            fields.port("sidecar_max_port", 1),
        );
        log(&mut self.log_level, &mut self.log_format, fields);
        if let Some(mut inner) = fields.block("dns") {
            self.dns.read(&mut inner);
            inner.finish();
        }
        let kinds = ["node", "workload"];
        set(
            &mut self.attestation,
            fields.word("attestation", &kinds, Attestation::parse),
        );
        if let Some(mut inner) = fields.block("nomad") {
            self.nomad.read(&mut inner);
            self.nomad.read_identity(&mut inner);
            inner.finish();
        }
        if let Some(mut inner) = fields.block("limits") {
            let limits = &mut self.limits;
            set(
                &mut limits.http_connections,
                inner.u32("http_connections", 1),
            );
            set(&mut limits.proxies, inner.u32("proxies", 1));
            set(&mut limits.instances, inner.u32("instances", 1));
            inner.finish();
        }
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let (min, max) = (self.sidecar_min_port, self.sidecar_max_port);
        match min > max {
            true => vec![(
                "sidecar_min_port",
                format!("sidecar_min_port: {min} is more than sidecar_max_port, {max}"),
            )],
            false => Vec::new(),
        }
    }
}

//! What an agent is started with.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_model::config::{
    AgentConfig, AgentLimits, Attestation, DnsConfig, GRPC_PORT, NomadConfig,
};
use mesh_policy::Features;
use mesh_tls::{ClusterTls, Role};

use crate::AgentError;
use crate::clock::{Clock, SystemClock};
use crate::dns::DnsOptions;

/// What an agent is started with. [`AgentOptions::new`] takes it from the configuration; tests and
/// `meshctl dev` change single fields.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The node's id: that of the agent's certificate.
    pub node_id: String,
    /// The node's name.
    pub node_name: String,
    /// The address at which other nodes reach this one.
    pub advertise: String,
    /// Facts about the node.
    pub meta: BTreeMap<String, String>,
    /// The name that the servers' cluster must have, if one is told.
    pub datacenter: Option<String>,
    /// The servers, `host:port`; besides those that Nomad knows, where [`Self::nomad`] names a
    /// service.
    pub servers: Vec<String>,
    /// The agent's own certificate and whom it believes.
    pub tls: Arc<ClusterTls>,
    /// Where local state stands.
    pub data_dir: PathBuf,
    /// A folder of instance files (`*.hcl`).
    pub instance_dir: Option<PathBuf>,
    /// A file with the token that a registration may bring in place of a uid.
    pub register_token_file: Option<PathBuf>,
    /// Where Nomad finds what it takes for Consul. Port 0: any free one.
    pub http: SocketAddr,
    /// Where proxies open their stream. Port 0: any free one.
    pub grpc: SocketAddr,
    /// A Unix socket for the same; `None`: TCP only.
    pub grpc_socket: Option<PathBuf>,
    /// The agent's own socket, from which bootstraps come; `None`: there is none.
    pub socket: Option<PathBuf>,
    /// Where sidecars listen that come without a `bind_address`; `None`: everywhere (`0.0.0.0`).
    pub sidecar_bind: Option<IpAddr>,
    /// Ports for sidecars that come without one.
    pub sidecar_ports: RangeInclusive<u16>,
    /// Where it asks and answers DNS.
    pub dns: DnsOptions,
    /// What a sidecar must prove to be registered and started.
    pub attestation: Attestation,
    /// Where Nomad is, whose workload identities are believed, and which service the servers are.
    pub nomad: NomadConfig,
    /// What is taken at most.
    pub limits: AgentLimits,
    /// Joins another cluster than the one that was joined first.
    pub rejoin: bool,
    /// What this agent understands: all that its build does, but where a test plays an older one.
    pub features: Features,
    /// Takes changes also from connections that this very process made. The agent makes none
    /// itself, so in service such a one is somebody's who has it speak for them; `meshctl dev` and
    /// tests, whose process the agent only lives in, are another matter.
    pub takes_own_writes: bool,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl AgentOptions {
    /// The options of a configuration.
    ///
    /// # Errors
    /// When the certificate is not an agent's, is another node's than `node_id`, or no server is
    /// told.
    pub fn new(config: &AgentConfig, tls: Arc<ClusterTls>) -> Result<Self, AgentError> {
        let id = tls.id().filter(|id| id.role() == Role::Agent);
        let Some(id) = id else {
            return Err(AgentError::Option(
                "tls: the certificate is not an agent's; make one with `meshctl tls cert create -agent`"
                    .to_owned(),
            ));
        };
        if let Some(wanted) = &config.node_id
            && wanted != id.id()
        {
            return Err(AgentError::Option(format!(
                "node_id {wanted}: the certificate is for the node {}; leave node_id out, or give its certificate",
                id.id()
            )));
        }
        if config.servers.is_empty() && config.nomad.service.is_none() {
            return Err(AgentError::Option(
                "servers: none is told; write `servers = [\"10.0.0.1\"]`, or name their service in `nomad`"
                    .to_owned(),
            ));
        }
        let servers: Vec<String> = config.servers.iter().map(|at| with_port(at)).collect();
        let bind = Some(config.bind_addr).filter(|ip| !ip.is_unspecified());
        let advertise = config.advertise_addr.or(bind);
        let advertise = advertise.unwrap_or_else(|| own_address(&servers));
        Ok(Self {
            node_id: id.id().to_owned(),
            node_name: config.node_name.clone().unwrap_or_else(host_name),
            advertise: advertise.to_string(),
            meta: config.meta.clone(),
            datacenter: config.datacenter.clone(),
            servers,
            tls,
            data_dir: config.data_dir.clone(),
            instance_dir: config.instance_dir.clone(),
            register_token_file: config.register_token_file.clone(),
            http: config.http_addr,
            grpc: config.grpc_addr,
            grpc_socket: None,
            socket: Some(config.socket.clone()),
            sidecar_bind: Some(config.bind_addr).filter(|ip| *ip != Ipv4Addr::UNSPECIFIED),
            sidecar_ports: config.sidecar_min_port..=config.sidecar_max_port,
            dns: dns(&config.dns, advertise),
            attestation: config.attestation,
            nomad: config.nomad.clone(),
            limits: config.limits.clone(),
            rejoin: false,
            features: Features::default(),
            takes_own_writes: false,
            clock: Arc::new(SystemClock),
        })
    }
}

/// On loopback no allocation would reach it, so only who says so gets it there.
fn dns(config: &DnsConfig, advertise: IpAddr) -> DnsOptions {
    let default = Some(advertise).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    let ip = config.bind.or(default).filter(|_| config.enabled);
    DnsOptions {
        listen: ip.map(|ip| (ip, config.port).into()),
        must_listen: config.bind.is_some(),
        recursors: config.recursors.clone(),
        ..DnsOptions::default()
    }
}

/// A server's address with the port that is meant when none is written.
fn with_port(server: &str) -> String {
    let bare_v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    let has_port = !bare_v6
        && server
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, bare_v6) {
        (true, _) => server.to_owned(),
        (false, true) => format!("[{server}]:{GRPC_PORT}"),
        (false, false) => format!("{server}:{GRPC_PORT}"),
    }
}

/// The host's name as the kernel has it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The address from which the host would speak to its servers, or to others where none is told. Nothing is sent: connecting a
/// datagram socket only chooses the route.
fn own_address(servers: &[String]) -> IpAddr {
    let servers = servers.iter().map(String::as_str);
    // Where none is told: an address for documentation, of which only the way to it is looked up.
    let mut targets = servers
        .chain(["192.0.2.1:9"])
        .filter_map(|at| at.to_socket_addrs().ok());
    targets
        .find_map(|mut at| {
            let target = at.next()?;
            let any: SocketAddr = match target {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(target).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_servers() {
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:8701");
        assert_eq!(with_port("10.0.0.1:99"), "10.0.0.1:99");
        assert_eq!(with_port("::1"), "[::1]:8701");
        assert_eq!(with_port("[::1]:99"), "[::1]:99");
        assert_eq!(with_port("server.local"), "server.local:8701");
    }

    #[test]
    fn the_own_address_is_the_one_towards_the_servers() {
        assert_eq!(
            own_address(&["127.0.0.1:1".to_owned()]),
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        );
    }
}

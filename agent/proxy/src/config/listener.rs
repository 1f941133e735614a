//! What is listened at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{ExposePath, Key, Protocol, VirtualAddress, normalize_path};
use mesh_policy::Features;
use mesh_proto::config as form;
use mesh_tls::SpiffeId;

use super::{Address, Cluster, Host, OwnName, Rule, invalid, limit, parse};
use crate::ApplyError;

/// What tells a listener from another: while it stays, so do the listener's
/// connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ListenKey {
    /// An address. With port 0 the kernel chooses a port, so that there may be
    /// several, one for each purpose.
    Tcp(SocketAddr, String),
    /// A Unix socket, and its mode.
    Unix(PathBuf, Option<u32>),
    /// Nothing is bound: redirected calls that were going there.
    Virtual(VirtualAddress),
    /// Nothing is bound: what asks for these hosts at the ingress of this port.
    Host(u16, Vec<String>),
    /// Nothing is bound: what means this service at a terminating gateway.
    Service(Key),
}

impl ListenKey {
    /// Whether the two have the same TCP port, given by the config.
    pub(crate) fn has_port_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one, _), Self::Tcp(two, _)) => one.port() == two.port() && one.port() != 0,
            _ => false,
        }
    }

    /// Whether it is an address of its own, and not a part of what comes to
    /// another one.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self, Self::Tcp(..) | Self::Unix(..))
    }

    pub(super) fn tcp(address: SocketAddr, purpose: String) -> Self {
        let purpose = match address.port() {
            0 => purpose,
            _ => String::new(),
        };
        Self::Tcp(address, purpose)
    }
}

impl fmt::Display for ListenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address, _) => address.fmt(f),
            Self::Unix(path, _) => path.display().fmt(f),
            Self::Virtual(address) => address.fmt(f),
            Self::Service(key) => write!(f, "service {key}"),
            Self::Host(port, hosts) => write!(f, "port {port}, host {}", hosts.join(", ")),
        }
    }
}

/// Where other sidecars call.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) key: ListenKey,
    pub(crate) service: Key,
    pub(crate) name: OwnName,
    pub(crate) protocol: Protocol,
    /// The application, or the instances of a service outside, each with the sum of
    /// the weights up to it.
    pub(crate) behind: Vec<(Address, u64)>,
    pub(crate) connect_timeout: Duration,
    /// It is a service outside, whose own policy decides, and this is how TLS is
    /// spoken to it.
    pub(crate) outside: Option<Outside>,
}

/// How a service outside the mesh is called.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) tls: Option<Arc<form::OriginTls>>,
}

impl Inbound {
    pub(super) fn compile(
        form: &form::Inbound,
        service: &Key,
        identity: &SpiffeId,
    ) -> Result<Self, ApplyError> {
        let address = bind_address("inbound", &form.address, form.port)?;
        Ok(Self {
            key: ListenKey::tcp(address, "inbound".to_owned()),
            service: service.clone(),
            name: OwnName::new(service, identity),
            protocol: form.protocol,
            behind: vec![(parse("inbound: application", &form.application)?, 1)],
            connect_timeout: form.connect_timeout.into(),
            outside: None,
        })
    }

    /// A service outside the mesh, that a terminating gateway stands for.
    pub(super) fn outside(form: &form::OutsideService, identity: &SpiffeId) -> Self {
        let place = format!("terminating: {}", form.service);
        // Those whose node is not heard only when no other one is left.
        let healthy = |one: &&form::OutsideInstance| one.health == form::Health::Healthy;
        let mut used: Vec<_> = form.instances.iter().filter(healthy).collect();
        if used.is_empty() {
            used = form.instances.iter().collect();
        }
        let mut behind = Vec::with_capacity(used.len());
        let mut sum = 0;
        for one in used.into_iter().filter(|one| one.weight > 0) {
            let place = format!("{place}: {}", one.id);
            let host = parse::<Host>(&place, &one.address);
            let host = host.and_then(|host| match one.port {
                0 => Err(invalid(&place, "port 0 cannot be connected to")),
                _ => Ok(host),
            });
            match host {
                Ok(host) => {
                    sum += u64::from(one.weight);
                    let port = one.port;
                    behind.push((Address { host, port }, sum));
                }
                // It cannot be called, here or elsewhere. The others can.
                Err(error) => tracing::error!(%error, "an instance is left out"),
            }
        }
        Self {
            key: ListenKey::Service(form.service.clone()),
            service: form.service.clone(),
            name: OwnName::new(&form.service, identity),
            protocol: form.protocol,
            behind,
            connect_timeout: form.connect_timeout.into(),
            outside: Some(Outside {
                tls: form.tls.clone().map(Arc::new),
            }),
        }
    }
}

/// Where the application calls.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) key: ListenKey,
    pub(crate) service: Key,
    pub(crate) protocol: Protocol,
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) cluster: String,
    pub(crate) timeout: Option<Duration>,
}

impl Outbound {
    pub(super) fn compile(
        form: &form::Outbound,
        clusters: &BTreeMap<String, Arc<Cluster>>,
        features: &Features,
    ) -> Result<Self, ApplyError> {
        let place = format!("upstream {}", form.service);
        if !clusters.contains_key(&form.cluster) {
            return Err(ApplyError::NoSuchCluster {
                service: form.service.clone(),
                place: "its default".to_owned(),
                cluster: form.cluster.clone(),
            });
        }
        if !form.protocol.is_http() && !form.rules.is_empty() {
            return Err(invalid(
                &place,
                "it carries byte streams and cannot have rules",
            ));
        }
        let key = match &form.bind {
            form::Bind::Virtual { address } => ListenKey::Virtual(*address),
            form::Bind::Ingress { port, hosts } => ListenKey::Host(*port, hosts.clone()),
            form::Bind::Tcp { address, port } => {
                ListenKey::tcp(bind_address(&place, address, *port)?, place.clone())
            }
            form::Bind::Unix { path, mode } => ListenKey::Unix(
                PathBuf::from(path),
                match mode.as_str() {
                    "" => None,
                    mode => Some(
                        u32::from_str_radix(mode, 8)
                            .ok()
                            .filter(|mode| *mode <= 0o777)
                            .ok_or_else(|| {
                                invalid(&place, format!("mode {mode:?} is not octal, as 0660 is"))
                            })?,
                    ),
                },
            ),
        };
        Ok(Self {
            key,
            service: form.service.clone(),
            protocol: form.protocol,
            rules: form
                .rules
                .iter()
                .map(|rule| Ok(Arc::new(Rule::compile(&place, rule, clusters, features)?)))
                .collect::<Result<_, ApplyError>>()?,
            cluster: form.cluster.clone(),
            timeout: limit(form.timeout),
        })
    }
}

/// Paths of the application that are open without mTLS, at one port: for health
/// checks of what is not in the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Expose {
    pub(crate) key: ListenKey,
    /// Path, and the application's port.
    pub(crate) paths: Vec<(String, Address)>,
    pub(crate) protocol: Protocol,
}

impl Expose {
    pub(super) fn compile(
        forms: &[ExposePath],
        inbound: Option<&form::Inbound>,
    ) -> Result<Vec<Arc<Self>>, ApplyError> {
        let address = inbound.map_or("0.0.0.0", |inbound| inbound.address.as_str());
        let host = match inbound {
            Some(inbound) => parse::<Address>("inbound: application", &inbound.application)?.host,
            None => Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let mut ports: BTreeMap<u16, Self> = BTreeMap::new();
        for form in forms {
            let place = format!("expose {}", form.path);
            let path = normalize_path(&form.path)
                .map_err(|error| invalid(&place, error.to_string()))?
                .into_owned();
            let protocol = match form.protocol.as_str() {
                "" | "http" => Protocol::Http,
                "http2" => Protocol::Http2,
                other => return Err(invalid(&place, format!("protocol {other:?} is not known"))),
            };
            let bind = bind_address(&place, address, form.listener_port)?;
            let one = ports.entry(form.listener_port).or_insert_with(|| Self {
                key: ListenKey::tcp(bind, "expose".to_owned()),
                paths: Vec::new(),
                protocol,
            });
            if one.protocol != protocol {
                return Err(invalid(
                    &place,
                    format!("port {} has two protocols", form.listener_port),
                ));
            }
            let port = form.local_path_port;
            let host = host.clone();
            one.paths.push((path, Address { host, port }));
        }
        Ok(ports.into_values().map(Arc::new).collect())
    }
}

pub(super) fn bind_address(
    place: &str,
    address: &str,
    port: u16,
) -> Result<SocketAddr, ApplyError> {
    match address.parse::<Host>() {
        Ok(Host::Ip(ip)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(invalid(
            place,
            format!("{address:?} is not an IP address to listen at"),
        )),
    }
}

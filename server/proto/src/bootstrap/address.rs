//! Where an agent's stream and a proxy's admin listener are.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value, json};

use super::BootstrapError;

/// Where an agent takes proxies' streams: HTTP/2 without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentAddress {
    /// A TCP port.
    Tcp(HostPort),
    /// A Unix socket. Nomad's is relative (`alloc/tmp/consul_grpc.sock`): to the task's root, or
    /// to the folder above `$NOMAD_ALLOC_DIR` where the task has none of its own.
    Unix(PathBuf),
}

/// A host, by address or name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// An IP address (without brackets) or a name.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl HostPort {
    pub(super) fn to_envoy(&self) -> Value {
        json!({ "socket_address": { "address": self.host, "port_value": self.port } })
    }
}

impl FromStr for HostPort {
    type Err = BootstrapError;

    /// Reads `host:port` or `[v6]:port`.
    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let error = |reason: &str| BootstrapError::Field {
            place: "address".to_owned(),
            reason: format!(
                "{:?}: {reason}; write `host:port`",
                text.chars().take(80).collect::<String>()
            ),
        };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| error("it has no port"))?;
        let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(error("an IPv6 address stands in brackets"));
        }
        let host = bracketed.unwrap_or(host);
        check_host(host).map_err(error)?;
        // Digits only: `parse` alone would take a plus sign.
        let port = Some(port)
            .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| error("its port is not from 1 to 65535"))?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(at: std::net::SocketAddr) -> Self {
        Self {
            host: at.ip().to_string(),
            port: at.port(),
        }
    }
}

impl FromStr for AgentAddress {
    type Err = BootstrapError;

    /// Reads `host:port` or `unix://path`, as Consul's `-grpc-addr` does.
    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        match text.strip_prefix("unix://") {
            Some("") => Err(BootstrapError::Field {
                place: "address".to_owned(),
                reason: "`unix://` has no path".to_owned(),
            }),
            Some(path) => Ok(Self::Unix(path.into())),
            None => Ok(Self::Tcp(text.parse()?)),
        }
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

pub(super) fn check_host(host: &str) -> Result<(), &'static str> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    match host {
        "" => Err("it is empty"),
        _ if !host.chars().all(good) => Err("it is neither an address nor a name"),
        // A colon means an IPv6 address (RFC 4291, perhaps with a zone).
        _ if host.contains(':') && host.split('%').next().is_none_or(not_ipv6) => {
            Err("it is neither an address nor a name")
        }
        _ => Ok(()),
    }
}

fn not_ipv6(host: &str) -> bool {
    host.parse::<Ipv6Addr>().is_err()
}

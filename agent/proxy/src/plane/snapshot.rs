//! What runs now, for people and tests.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use mesh_model::Key;
use serde::Serialize;

use super::Shared;
use crate::config::{Compiled, ConfigText, ListenKey};

/// What runs now: the body of `/config`. It holds no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The config that runs; none before the first.
    pub config: Option<ConfigText>,
    /// What is listened at.
    pub listeners: Vec<Bound>,
    /// How many workers there are.
    pub workers: usize,
    /// Whether it drains or has drained.
    pub draining: bool,
    /// What of the policy in force is not understood, and denied.
    pub not_understood: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// What it is for.
    pub to: BoundTo,
    /// Where it is bound, with the port that the kernel chose for port 0.
    pub address: BoundAddress,
}

/// What a listener is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundTo {
    /// Other sidecars.
    Inbound,
    /// The application's calls of this service.
    Upstream(Key),
    /// Paths that are open without mTLS.
    Expose,
    /// Calls that the kernel redirected.
    Redirected,
    /// Calls from outside the mesh.
    Ingress,
    /// DNS, over TCP and UDP.
    Dns,
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BoundAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Snapshot {
    pub(super) fn new<'a>(
        config: Option<&Compiled>,
        listeners: impl Iterator<Item = (&'a ListenKey, &'a BoundAddress)>,
        dns: &[SocketAddr],
        shared: &Shared,
    ) -> Self {
        let listeners = match config {
            None => Vec::new(),
            Some(config) => listeners
                .map(|(key, address)| Bound {
                    to: purpose(config, key),
                    address: address.clone(),
                })
                .chain(dns.iter().map(|address| Bound {
                    to: BoundTo::Dns,
                    address: BoundAddress::Tcp(*address),
                }))
                .collect(),
        };
        Self {
            config: config.map(|config| config.text.clone()),
            listeners,
            workers: shared.options.concurrency.max(1),
            draining: shared.draining.load(Ordering::Acquire),
            not_understood: (shared.policy().not_understood.iter())
                .map(ToString::to_string)
                .collect(),
        }
    }
}

/// What a config has a listener for.
pub(super) fn purpose(config: &Compiled, key: &ListenKey) -> BoundTo {
    if let Some(outbound) = config.outbound.iter().find(|one| one.key == *key) {
        return BoundTo::Upstream(outbound.service.clone());
    }
    let transparent = config.transparent.as_ref();
    if transparent.is_some_and(|one| one.keys.contains(key)) {
        return BoundTo::Redirected;
    }
    let mut ingress = config.ingress.iter();
    if ingress.any(|one| one.keys.contains(key)) {
        return BoundTo::Ingress;
    }
    match config.expose.iter().any(|one| one.key == *key) {
        true => BoundTo::Expose,
        false => BoundTo::Inbound,
    }
}

impl Bound {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self.address {
            BoundAddress::Tcp(address) => Some(address),
            BoundAddress::Unix(_) => None,
        }
    }
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbound => f.write_str("inbound"),
            Self::Upstream(service) => write!(f, "upstream {service}"),
            Self::Expose => f.write_str("exposed paths"),
            Self::Redirected => f.write_str("redirected calls"),
            Self::Ingress => f.write_str("calls from outside"),
            Self::Dns => f.write_str("DNS"),
        }
    }
}

//! DNS: the mesh's names from the catalog, and all others from the name servers of the host.
//!
//! Inside an allocation the sidecar answers for the mesh, with virtual addresses, and asks here for
//! the rest only. Who asks at the agent's own port is told where instances are, as Consul's agent
//! tells it. What the host's servers say is passed on as it is, and an error where they say nothing:
//! no answer is made up.

mod forward;
mod listen;
mod names;
mod networks;
mod resolvers;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use forward::{Forwarder, Room};
pub(crate) use listen::{Listener, serve};
pub(crate) use names::Names;
use resolvers::{Plan, Resolvers};

/// The largest message: TCP has 16 bits for its length.
const MAX_MESSAGE: usize = 65_535;

/// Where the agent asks and answers DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// Where it answers, UDP and TCP; `None`: nowhere. Port 0: any free one.
    pub listen: Option<SocketAddr>,
    /// Whether it does not start where it cannot answer there.
    pub must_listen: bool,
    /// The name servers that it asks; empty: those of `resolv_conf`.
    pub recursors: Vec<SocketAddr>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            listen: None,
            must_listen: false,
            recursors: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

impl DnsOptions {
    /// Who asks; never itself at its own address.
    pub(crate) fn forwarder(&self, own: Option<SocketAddr>) -> Arc<Forwarder> {
        let resolvers = match self.recursors.is_empty() {
            true => Resolvers::file(self.resolv_conf.clone()),
            false => Resolvers::Fixed(Arc::new(Plan::of(self.recursors.clone()))),
        };
        Forwarder::new(resolvers, own)
    }
}

//! Why a config was not taken.

use std::io;

use mesh_model::Key;

/// Why a config was not taken. The last good one runs on; the config's policy
/// was taken all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The leaf is not for the identity that the config is for.
    #[error(
        "config of {config}: the certificate is for {leaf}, so peers would refuse it; a new leaf is needed"
    )]
    Identity {
        /// The identity in the config.
        config: String,
        /// The identity in the leaf.
        leaf: String,
    },
    /// The leaf that came with it is not a service's.
    #[error("certificate: {0}")]
    Leaf(#[from] mesh_tls::TlsError),
    /// An identity, address or name in it is not well formed.
    #[error("config: {place}: {reason}")]
    Invalid {
        /// Where, as a path: `cluster user-service: endpoint n1/u1`.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A listener names a cluster that is not in the config.
    #[error(
        "config: upstream {service}: {place} names the cluster {cluster:?}, which is not there"
    )]
    NoSuchCluster {
        /// The upstream.
        service: Key,
        /// Which part of it.
        place: String,
        /// The name.
        cluster: String,
    },
    /// It needs what this build does not have.
    #[error("config: {place} needs the feature {feature}; upgrade the sidecar")]
    Feature {
        /// Where.
        place: String,
        /// The feature's name.
        feature: String,
    },
    /// A port or socket cannot be bound.
    #[error("cannot listen at {address} for {purpose}: {source}{}", hint(.source))]
    Bind {
        /// Where.
        address: String,
        /// For what: `inbound`, or `upstream payment`.
        purpose: String,
        /// Why.
        source: io::Error,
    },
    /// It is transparent, and the sidecar's own connections would come back to
    /// it.
    #[error(
        "config: transparent: this sidecar runs as root and may not mark its sockets ({source}), so the rules would send its own connections back to it; give it CAP_NET_ADMIN, or a uid of its own that transparent_proxy {{ uid }} names"
    )]
    Mark {
        /// Why it may not.
        source: io::Error,
    },
    /// The data plane drains or has stopped.
    #[error("the proxy drains; it takes no config any more")]
    Draining,
    /// A worker has ended, which it never should.
    #[error("worker {0} does not answer")]
    Worker(usize),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, find it with `ss -ltnp`",
        io::ErrorKind::AddrNotAvailable => "; the address is none of this host's",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

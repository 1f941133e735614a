//! What goes wrong, with the codes that CNI gives it.

/// Why the plugin refused. Each reads on by itself: Nomad shows the words as
/// the allocation's event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The network config speaks a version of CNI that we do not.
    #[error("cniVersion {0:?} is not known to consul-cni; it speaks 0.1.0 to 1.1.0")]
    Version(String),
    /// A variable of the environment is missing or wrong.
    #[error("{0}")]
    Environment(String),
    /// `CONSUL_IPTABLES_CONFIG` in `CNI_ARGS` is missing or wrong.
    #[error("CNI_ARGS: CONSUL_IPTABLES_CONFIG: {0}")]
    Config(String),
    /// Standard input could not be read.
    #[error("standard input: {0}; it should be the network config, as JSON")]
    Input(String),
    /// Standard input is not a network config.
    #[error("standard input is not a network config: {0}")]
    Decode(String),
    /// The network config does not fit this plugin.
    #[error("the network config: {0}")]
    Network(String),
    /// The namespace cannot be used.
    #[error("CNI_NETNS {path:?}: {reason}")]
    Namespace {
        /// As it was given.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// iptables is missing, or refused.
    #[error("{0}")]
    Tables(String),
    /// Another program holds the lock of iptables.
    #[error("{0}; another program is changing the rules of this host, try again")]
    Busy(String),
    /// CHECK: the rules are gone.
    #[error(
        "the rules of transparent proxy are not in {netns:?}: {what}; something has flushed \
         them, restart the allocation"
    )]
    Missing {
        /// The namespace.
        netns: String,
        /// What is not there.
        what: String,
    },
}

impl Fault {
    /// The code that CNI's specification (section 5, "Error") has for it; those
    /// from 100 are the plugin's own.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) | Self::Config(_) | Self::Namespace { .. } => 4,
            Self::Input(_) => 5,
            Self::Decode(_) => 6,
            Self::Network(_) => 7,
            Self::Busy(_) => 11,
            Self::Tables(_) => 100,
            Self::Missing { .. } => 101,
        }
    }
}

/// Text from outside, fit for one line of a message: quoted, and cut.
pub(crate) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    match text.char_indices().nth(MAX_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

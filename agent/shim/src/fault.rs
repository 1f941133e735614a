//! What goes wrong, each cause with its own words and exit code.

/// Why there is no bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The command line is not one of Nomad's.
    #[error(
        "{0}; this is meshctl's `consul`, which does what Nomad asks of it: \
             `consul connect envoy … -bootstrap`"
    )]
    Usage(String),
    /// Nobody answers.
    #[error(
        "the mesh's agent does not answer at {at}: {reason}; is `meshctl agent` running on \
             this node?"
    )]
    Down {
        /// Where it was looked for.
        at: String,
        /// What happened.
        reason: String,
    },
    /// The sidecar is not registered, so far.
    #[error(
        "sidecar {0} is not registered with this node's agent yet; Nomad registers it and \
             tries again"
    )]
    Unregistered(String),
    /// Who asks may not have it.
    #[error("the agent refuses: {0}")]
    Token(String),
    /// Plaintext against TLS.
    #[error(
        "{0}; the agent speaks plaintext on loopback: leave `ssl` and `https://` out of \
             Nomad's `consul` block"
    )]
    Tls(String),
    /// What answers is something else, or another version.
    #[error(
        "what answers is not this version's agent: {0}; install the same meshctl for both, \
             and restart the agent"
    )]
    Version(String),
    /// All else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// What the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Down { .. } => 10,
            Self::Unregistered(_) => 11,
            Self::Token(_) => 12,
            Self::Tls(_) => 13,
            Self::Version(_) => 14,
        }
    }
}

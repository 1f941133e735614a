//! What can go wrong while a CA is made, opened or renewed. What goes wrong while it signs is
//! [`AuthorityError`](crate::AuthorityError).

use crate::authority::AuthorityError;
use crate::seal::SealError;

/// An error of the built-in CA or of `meshctl tls`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A private key could not be sealed or opened.
    #[error("ca: {0}")]
    Seal(#[from] SealError),
    /// Vault, where it is, did not do its part.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// The CA's rows in the state do not fit together.
    #[error("ca: {what}: {reason}")]
    State {
        /// Which row, such as `intermediate 5f2c…`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key that was given is not usable.
    #[error("{what}: {reason}")]
    Input {
        /// Which one, such as `CA certificate`.
        what: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("ca: {what} could not be made: {reason}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

impl CaError {
    pub(crate) fn make(what: &'static str, reason: impl ToString) -> Self {
        Self::Make {
            what,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn state(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::State {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn input(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Input {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}

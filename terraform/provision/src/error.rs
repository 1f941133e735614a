//! What can go wrong, in words for whoever runs it.

use mesh_nomad::NomadError;
use thiserror::Error;

/// Why what is wanted is not there.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The description is wrong.
    #[error("{place}: {reason}")]
    Invalid {
        /// Which field.
        place: String,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// Nomad was not reached.
    #[error("{0}. Is the address right, and Nomad there?")]
    Unreachable(#[from] NomadError),
    /// Nomad answered, and said no.
    #[error("Nomad, {what}: {reason}")]
    Nomad {
        /// What was asked of it.
        what: String,
        /// Its answer.
        reason: String,
    },
    /// Somebody else changed the same thing meanwhile.
    #[error("{0} was changed by somebody else at the same time; run it again")]
    Conflict(String),
    /// Something of that name is there, and was not made here.
    #[error("{0} is there, and was not made here. Give another `name`, or stop it and purge it")]
    Foreign(String),
    /// A server of the mesh answered, and said no.
    #[error("server at {address}: {reason}")]
    Mesh {
        /// Where.
        address: String,
        /// Its answer.
        reason: String,
    },
    /// There is no machine for it.
    #[error("{0}")]
    NoMachine(String),
    /// It would lose the quorum, or data.
    #[error("{0}")]
    Refused(String),
    /// It was waited for, and did not come.
    #[error("waited {seconds} s for {what}. {detail}")]
    Stuck {
        /// How long.
        seconds: u64,
        /// What was waited for.
        what: String,
        /// How it is, and what to look at.
        detail: String,
    },
    /// It was told to stop.
    #[error("it was interrupted. What is done stays, and the next run goes on from there")]
    Cancelled,
    /// It is to be destroyed, and nobody said that the data may go.
    #[error(
        "{0} is not destroyed: with the servers go the state, the CA's keys and every intention. \
         Save a snapshot (`meshctl snapshot save`), set `force_destroy = true`, apply, then destroy"
    )]
    ForceDestroy(String),
}

impl ProvisionError {
    pub(crate) fn invalid(place: impl Into<String>, reason: impl ToString) -> Self {
        Self::Invalid {
            place: place.into(),
            reason: reason.to_string(),
        }
    }
}

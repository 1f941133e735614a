//! The mesh's CA on this server: opened from the state, kept as long as the state has the same.
//!
//! Any server signs, or has Vault sign. The leader alone makes the CA and renews its intermediate,
//! as commands like any other.

mod expiry;
mod keep;
mod pass_on;
mod rate;
mod record;
pub(crate) mod reseal;
pub(crate) mod revoke;
pub(crate) mod rotate;
mod sign;

pub(crate) use expiry::warnings;
pub(crate) use keep::keep;
pub(crate) use pass_on::{others, sign_here, sign_or_pass_on};
pub(crate) use record::{Unrecorded, record};
pub(crate) use sign::spiffe_id;

use std::sync::{Arc, Mutex, PoisonError};

use mesh_ca::{Authority, AwsPca, BuiltIn, CaError, CaState, Keyring, VAULT, Vault, VaultLeaves};
use mesh_state::State;
use tokio::sync::Semaphore;

use crate::clock::{Clock, for_ca};
use rate::Rate;

/// Leaves that are signed at once; more wait.
const AT_ONCE: usize = 16;

/// See the module.
pub(crate) struct Ca {
    pub(crate) keyring: Keyring,
    /// Vault, where this server's configuration says how it is reached.
    pub(crate) vault: Option<Arc<Vault>>,
    /// AWS Private CA, where this build has it.
    pub(crate) aws: Arc<AwsPca>,
    clock: mesh_ca::Clock,
    open: Mutex<Arc<Opening>>,
    /// Why this server, as leader, could not keep the CA the last time.
    trouble: Mutex<Option<String>>,
    room: Semaphore,
    rate: Rate,
    /// What was signed here, until it is recorded.
    pub(crate) unrecorded: Unrecorded,
}

/// The CA of a state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    /// The epoch and the modify index of the row that it is of, 0: no row; and how many keys Vault
    /// had opened.
    of: (String, u64, usize),
    /// What the row says.
    pub(crate) state: Option<Arc<CaState>>,
    /// What signs.
    pub(crate) authority: Option<Arc<dyn Authority>>,
    /// Why it cannot.
    pub(crate) problem: Option<String>,
}

impl Ca {
    pub(crate) fn new(
        keyring: Keyring,
        vault: Option<Arc<Vault>>,
        aws: AwsPca,
        clock: &Arc<dyn Clock>,
        per_second: u32,
    ) -> Self {
        Self {
            keyring,
            vault,
            aws: Arc::new(aws),
            clock: for_ca(clock),
            open: Mutex::default(),
            trouble: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
            rate: Rate::new(clock.clone(), per_second),
            unrecorded: Unrecorded::default(),
        }
    }

    /// The CA of this state.
    pub(crate) fn of(&self, state: &State) -> Arc<Opening> {
        let row = state.ca();
        let index = row.map_or(0, |row| row.modify_index);
        let of = (state.version().epoch, index, self.keyring.opened());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.of != of {
            *open = Arc::new(self.read(of, row.map(|row| &row.value)));
        }
        open.clone()
    }

    /// What the leader says of how the CA is kept.
    pub(crate) fn keeps(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the CA could not be kept the last time; only the leader knows.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another authority in the place of the one of this state, until its row changes.
    #[cfg(test)]
    pub(crate) fn replace(&self, state: &State, authority: Arc<dyn Authority>) {
        let opening = Opening {
            authority: Some(authority),
            ..Opening::clone(&self.of(state))
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(opening);
    }

    fn read(&self, of: (String, u64, usize), value: Option<&serde_json::Value>) -> Opening {
        let mut opening = Opening {
            of,
            ..Opening::default()
        };
        let Some(value) = value else {
            opening.problem = Some("there is no CA yet: the leader makes it".to_owned());
            return opening;
        };
        match read_state(value) {
            Err(problem) => opening.problem = Some(problem),
            Ok(state) => {
                match self.authority(&state) {
                    Ok(authority) => opening.authority = Some(authority),
                    Err(problem) => opening.problem = Some(problem),
                }
                opening.state = Some(Arc::new(state));
            }
        }
        if let Some(problem) = &opening.problem {
            tracing::error!(%problem, "this server cannot sign; where there are others it has them do it");
        }
        opening
    }

    fn authority(&self, state: &CaState) -> Result<Arc<dyn Authority>, String> {
        let text = |error: CaError| error.to_string();
        let intermediate = state.intermediate.as_ref();
        let in_vault = intermediate.is_some_and(|one| one.key.is_none());
        if state.provider != VAULT || !in_vault {
            let sealing = self
                .keyring
                .of(state)
                .map_err(|error| format!("ca: {error}"))?;
            let open = BuiltIn::open(state, &sealing, self.clock.clone());
            return Ok(Arc::new(open.map_err(text)?));
        }
        let vault = self.vault.clone().ok_or_else(no_vault)?;
        let open = VaultLeaves::open(state, vault, self.clock.clone());
        Ok(Arc::new(open.map_err(text)?))
    }
}

/// What a server says that does not know how to reach Vault, and should.
pub(crate) fn no_vault() -> String {
    "the mesh's CA is in Vault, and this server's configuration does not say how it is reached; \
     give it `ca { vault { address = …, auth … } }` and start it again"
        .to_owned()
}

/// The CA in AWS that the state's CA is below, or is on its way to.
pub(crate) fn arn(ca: &CaState) -> Option<String> {
    let next = ca.rotation.as_ref().map(|rotation| &rotation.config);
    let configs = next.into_iter().chain([&ca.config]);
    let mut places = configs.filter_map(|config| config.aws_pca.as_ref());
    places.next().map(|place| place.existing_arn.clone())
}

/// What the CA's row says.
pub(crate) fn read_state(value: &serde_json::Value) -> Result<CaState, String> {
    serde::Deserialize::deserialize(value)
        .map_err(|error: serde_json::Error| format!("ca: its row cannot be read: {error}"))
}

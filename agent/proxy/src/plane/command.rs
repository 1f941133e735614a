//! What the plane tells its workers.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{Compiled, ListenKey};
use crate::listen::Listener;
use crate::plane::Drained;

/// An order to a worker. Orders are carried out one after the other.
pub(crate) enum Command {
    /// Run this config. The sockets are for its listeners that the worker does
    /// not have yet; its listeners that are not in the config end.
    Apply {
        config: Arc<Compiled>,
        sockets: Vec<(ListenKey, Listener)>,
        done: oneshot::Sender<()>,
    },
    /// Take nothing new from other sidecars, and answer when all that they
    /// began has ended, or at the deadline when what is left was cut.
    DrainInbound {
        deadline: Instant,
        done: oneshot::Sender<Drained>,
    },
    /// The same for the application's calls; until they have ended, new ones
    /// are taken.
    DrainOutbound {
        deadline: Instant,
        done: oneshot::Sender<Drained>,
    },
}

//! What the API shows of this node's ability to work: storage that fails stops the
//! node's consensus for good, and must be seen.

use std::sync::Arc;

use tokio::sync::watch;

/// How a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// It works.
    #[default]
    Ok,
    /// It works, but something fails and is tried again: a snapshot cannot be
    /// written, say.
    Degraded(String),
    /// It stopped, and takes no writes; what it acknowledged before is on disk. It
    /// must be started again once the reason is gone.
    Failed(String),
}

/// Where health is told.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(Arc<watch::Sender<Health>>);

impl Reporter {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Health::Ok)))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    /// The first failure stays: those that follow are its consequences.
    pub(crate) fn failed(&self, reason: &str) {
        self.0.send_if_modified(|health| {
            if matches!(health, Health::Failed(_)) {
                return false;
            }
            tracing::error!(reason, "raft stopped");
            *health = Health::Failed(reason.to_owned());
            true
        });
    }

    pub(crate) fn degraded(&self, reason: &str) {
        self.0.send_if_modified(|health| {
            let new = Health::Degraded(reason.to_owned());
            if matches!(health, Health::Failed(_)) || *health == new {
                return false;
            }
            tracing::warn!(reason, "raft is degraded");
            *health = new;
            true
        });
    }

    pub(crate) fn recovered(&self) {
        self.0.send_if_modified(|health| {
            let was = matches!(health, Health::Degraded(_));
            if was {
                *health = Health::Ok;
            }
            was
        });
    }

    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.0.borrow() {
            Health::Failed(reason) => Some(reason.clone()),
            _ => None,
        }
    }
}

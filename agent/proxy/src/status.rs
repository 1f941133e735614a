//! What the sidecar says of itself: ready or not, and why.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::ConfigText;

/// Shared by the control side and the admin listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status(Arc<RwLock<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    leaf: bool,
    roots: bool,
    revocations: bool,
    config: Option<ConfigText>,
    version: String,
    listening: bool,
    draining: bool,
    agent: String,
    problem: String,
}

impl Status {
    /// Ready, or what is waited for.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.read(|facts| {
            if facts.draining {
                return Err("draining".to_owned());
            }
            let missing: Vec<&str> = [
                ("roots", facts.roots),
                ("revocations", facts.revocations),
                ("leaf", facts.leaf),
                ("config", facts.config.is_some()),
                ("listeners", facts.listening),
            ]
            .into_iter()
            .filter(|(_, there)| !there)
            .map(|(name, _)| name)
            .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let notes = [facts.agent.as_str(), facts.problem.as_str()];
            let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            Err(match notes.is_empty() {
                true => format!("waiting for {}", missing.join(", ")),
                false => format!("waiting for {}: {}", missing.join(", "), notes.join("; ")),
            })
        })
    }

    /// The config in use and the version of the state that it was made of.
    pub(crate) fn config(&self) -> Option<(ConfigText, String)> {
        self.read(|facts| Some((facts.config.clone()?, facts.version.clone())))
    }

    /// There is a leaf.
    pub(crate) fn have_leaf(&self) {
        self.write(|facts| facts.leaf = true);
    }

    /// There are roots.
    pub(crate) fn have_roots(&self) {
        self.write(|facts| facts.roots = true);
    }

    /// It is known who is revoked.
    pub(crate) fn have_revocations(&self) {
        self.write(|facts| facts.revocations = true);
    }

    /// A config is in use, and its listeners are bound.
    pub(crate) fn running(&self, config: ConfigText, version: String) {
        self.write(|facts| {
            facts.config = Some(config);
            facts.version = version;
            facts.listening = true;
            facts.problem.clear();
        });
    }

    /// A config came that is not in use.
    pub(crate) fn refused(&self, problem: String) {
        self.write(|facts| facts.problem = problem);
    }

    /// How it stands with the agent; empty: connected.
    pub(crate) fn agent(&self, text: String) {
        self.write(|facts| facts.agent = text);
    }

    /// The end has begun.
    pub(crate) fn draining(&self) {
        self.write(|facts| facts.draining = true);
    }

    // Nothing is left half done under the lock, so a poisoned one is as good.
    fn read<T>(&self, with: impl FnOnce(&Facts) -> T) -> T {
        with(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, with: impl FnOnce(&mut Facts)) {
        with(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

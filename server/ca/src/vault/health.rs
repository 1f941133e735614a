//! How Vault does, as a server saw it last.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;

use crate::x509;

/// Longer ago than this, what was seen counts for nothing.
const FRESH: Duration = Duration::from_secs(15);

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// It was not asked yet.
    Unknown,
    /// It answers, and we are logged in.
    Ok,
    /// It answers that it is sealed, or not initialized.
    Sealed,
    /// It does not answer, or not sensibly.
    Down,
    /// It answers, but takes neither our token nor our login.
    Denied,
}

impl VaultState {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Sealed => "sealed",
            Self::Down => "down",
            Self::Denied => "denied",
        }
    }
}

/// How Vault does.
#[derive(Clone, Debug)]
pub struct VaultHealth {
    /// Where it is.
    pub address: String,
    /// In a word.
    pub state: VaultState,
    /// Why, in its own words where it said any.
    pub reason: Option<String>,
    /// Since when it is in this state, in seconds since 1970.
    pub since: u64,
    /// How long our token is still good, in seconds; `None`: for ever, or there is none.
    pub token_seconds: Option<u64>,
    /// What failed, since this server started.
    pub failures: VaultFailures,
    /// When it was seen.
    pub(super) seen: Option<Instant>,
}

/// Requests that failed, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VaultFailures {
    /// It was away, sealed, or failed itself.
    pub unavailable: u64,
    /// It was asked too often.
    pub limited: u64,
    /// It refused.
    pub denied: u64,
}

impl VaultHealth {
    pub(super) fn unknown(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            state: VaultState::Unknown,
            reason: None,
            since: x509::unix(SystemTime::now()),
            token_seconds: None,
            failures: VaultFailures::default(),
            seen: None,
        }
    }

    pub(super) fn saw(&mut self, state: VaultState, reason: Option<String>) {
        if self.state != state {
            self.since = x509::unix(SystemTime::now());
        }
        self.state = state;
        self.reason = reason;
        self.seen = Some(Instant::now());
    }

    /// Why it is of no use to ask it anything, if that was seen a moment ago.
    pub(super) fn away(&self) -> Option<String> {
        let fresh = self.seen.is_some_and(|seen| seen.elapsed() < FRESH);
        let away = matches!(self.state, VaultState::Sealed | VaultState::Down);
        let reason = || self.reason.clone().unwrap_or_default();
        (fresh && away).then(reason)
    }
}

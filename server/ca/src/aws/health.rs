//! How AWS Private CA does, as a server saw it last.

use std::time::SystemTime;

use serde::Serialize;

use super::pca::Trouble;
use crate::x509;

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AwsState {
    /// It was not asked yet.
    Unknown,
    /// It answers that the CA is active.
    Ok,
    /// It answers that the CA is not: disabled, expired, deleted.
    Unusable,
    /// It says that it is asked too often.
    Throttled,
    /// It does not answer, or not sensibly.
    Down,
    /// It takes no request of ours, or we have no credentials.
    Denied,
}

impl AwsState {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Unusable => "unusable",
            Self::Throttled => "throttled",
            Self::Down => "down",
            Self::Denied => "denied",
        }
    }
}

/// How the CA in AWS does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsHealth {
    /// The CA.
    pub arn: String,
    /// In a word.
    pub state: AwsState,
    /// Why, in AWS's own words where it said any.
    pub reason: Option<String>,
    /// Since when it is in this state, in seconds since 1970.
    pub since: u64,
    /// Requests that failed, since this server started.
    pub failures: AwsFailures,
}

/// Requests that failed, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AwsFailures {
    /// It did not answer, or failed itself, or the CA is not active.
    pub unavailable: u64,
    /// It was asked too often.
    pub limited: u64,
    /// It refused.
    pub denied: u64,
}

impl AwsHealth {
    pub(super) fn unknown(arn: &str) -> Self {
        Self {
            arn: arn.to_owned(),
            state: AwsState::Unknown,
            reason: None,
            since: x509::unix(SystemTime::now()),
            failures: AwsFailures::default(),
        }
    }

    /// Counts what went wrong.
    pub(super) fn failed(&mut self, trouble: &Trouble) {
        let count = match trouble {
            Trouble::Unavailable(_) | Trouble::Unusable(_) => &mut self.failures.unavailable,
            Trouble::Limited(_) => &mut self.failures.limited,
            Trouble::Denied(_) => &mut self.failures.denied,
        };
        *count += 1;
    }

    /// Takes what was seen; tells, once, where it is something else than before.
    pub(super) fn saw(&mut self, found: Result<(), Trouble>) {
        let (state, reason) = match found {
            Ok(()) => (AwsState::Ok, None),
            Err(Trouble::Unavailable(reason)) => (AwsState::Down, Some(reason)),
            Err(Trouble::Limited(reason)) => (AwsState::Throttled, Some(reason)),
            Err(Trouble::Denied(reason)) => (AwsState::Denied, Some(reason)),
            Err(Trouble::Unusable(reason)) => (AwsState::Unusable, Some(reason)),
        };
        if self.state != state {
            self.since = x509::unix(SystemTime::now());
            let arn = &self.arn;
            match state {
                AwsState::Ok => tracing::info!(%arn, "AWS Private CA does well"),
                _ => tracing::warn!(
                    %arn, state = state.as_str(), reason = reason.as_deref().unwrap_or_default(),
                    "AWS Private CA cannot be used; leaves are signed until the intermediate ends"
                ),
            }
        }
        self.state = state;
        self.reason = reason;
    }
}

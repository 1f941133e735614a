//! What goes into a set and what comes out of it.

use std::time::Duration;

/// An endpoint, as a list of them says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<K, T> {
    /// What makes it the same endpoint in the next list (an instance's id).
    pub key: K,
    /// Its part of the traffic beside the others. 0: none.
    pub weight: u32,
    /// What its checks say.
    pub health: Health,
    /// What the caller needs to reach it. The newest list's counts.
    pub value: T,
}

/// What is known of an endpoint from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All checks pass.
    Passing,
    /// Some check warns. Used like passing; who wants passing ones only leaves
    /// the others out of the list.
    Warning,
    /// Its node is silent. Used when no passing one is left.
    Unknown,
    /// A check fails. Never used.
    Critical,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, with anything but a 5xx.
    Success,
    /// It was answered with a 5xx (or a gRPC status that means the same).
    ServerError,
    /// No connection came about.
    ConnectFailure,
    /// The connection broke before the answer was whole.
    Reset,
    /// The answer did not come in time.
    Timeout,
    /// It was given up for reasons that say nothing about the endpoint.
    Cancelled,
}

/// Names an endpoint of a set, until it leaves the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A choice. It counts as a request in progress until it is given back with
/// [`EndpointSet::done`](crate::EndpointSet::done), once, also when the request
/// is cancelled.
#[derive(Debug)]
#[must_use = "give it back with done(), or the endpoint seems busy for ever"]
pub struct Picked {
    pub(crate) token: Token,
    pub(crate) is_panic: bool,
    pub(crate) began: Duration,
}

impl Picked {
    /// The endpoint, to be excluded from another pick.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether it was chosen for lack of anything better: see the crate's rule.
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }
}

/// What a set thinks of an endpoint, for an admin page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<'a, K, T> {
    /// Its key.
    pub key: &'a K,
    /// What the caller needs to reach it.
    pub value: &'a T,
    /// Its weight.
    pub weight: u32,
    /// What its checks say.
    pub health: Health,
    /// Requests in progress.
    pub active: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Until when it is ejected, if it is.
    pub ejected_until: Option<Duration>,
    /// Until when it is avoided, if it is.
    pub avoided_until: Option<Duration>,
}

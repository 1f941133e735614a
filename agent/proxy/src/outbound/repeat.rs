//! A request that may be sent more than once.
//!
//! Retries need it, and so does every request: an instance that drains may
//! turn one away that was on its way already (RFC 9113, 6.8), and then another
//! instance must get the same.

use http::request;

use crate::http::{Body, Call, Replay};

/// How much of a body is remembered for retries.
const FOR_RETRIES: usize = 64 * 1024;
/// How much for what an instance did not process.
const FOR_REFUSALS: usize = 16 * 1024;

/// A request that may be sent more than once.
pub(super) struct Repeatable {
    head: Option<request::Parts>,
    body: Option<Replay>,
}

impl Repeatable {
    pub(super) fn new(call: Call, retries: bool) -> Self {
        let bound = if retries { FOR_RETRIES } else { FOR_REFUSALS };
        let has_body = !call.body.is_empty();
        Self {
            head: Some(call.head),
            body: has_body.then(|| Replay::new(call.body, bound)),
        }
    }

    /// Whether another try would send the same.
    pub(super) fn is_whole(&self) -> bool {
        self.head.is_some() && self.body.as_ref().is_none_or(Replay::is_possible)
    }

    /// For a try; when it cannot be repeated any more, it is the last one.
    pub(super) fn take(&mut self) -> Option<(request::Parts, Body)> {
        let head = match self.is_whole() {
            true => self.head.clone(),
            false => self.head.take(),
        };
        let body = self.body.as_ref().map_or_else(Body::empty, Replay::body);
        Some((head?, body))
    }

    /// There will be no other try.
    pub(super) fn forget(&self) {
        if let Some(body) = &self.body {
            body.forget();
        }
    }
}

//! What is counted of traffic that goes on whatever becomes of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::steady::is_own;

/// What something was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A request on a connection that is kept.
    Kept,
    /// A request on a connection of its own.
    Fresh,
    /// A stream that had echoed.
    Stream,
    /// A stream before its first echo.
    Opening,
    /// The client had no port or no file.
    Own,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Fresh => "fresh",
            Self::Stream => "stream",
            Self::Opening => "opening",
            Self::Own => "own",
        }
    }
}

#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// All times that were taken.
#[derive(Clone, Default)]
pub(crate) struct Told {
    /// From when a request was planned to its answer.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) echoes: Vec<Duration>,
    /// How late the client was by its own fault.
    pub(crate) wakes: Vec<Duration>,
}

#[derive(Default)]
struct Counts {
    kept: u64,
    fresh: u64,
    failed: u64,
    own: u64,
    open: u64,
    opened: u64,
    broken: u64,
    told: Told,
    /// By what it was, and why: how often, and between when. Since the line before.
    failures: BTreeMap<(Kind, String), (u64, f64, f64)>,
}

impl Tally {
    pub(crate) fn answered(&self, kind: Kind, took: Duration) {
        let mut counts = self.lock();
        match kind {
            Kind::Fresh => counts.fresh += 1,
            _ => counts.kept += 1,
        }
        counts.told.latencies.push(took);
    }

    pub(crate) fn woken(&self, late: Duration) {
        self.lock().told.wakes.push(late);
    }

    pub(crate) fn opened(&self) {
        let mut counts = self.lock();
        counts.open += 1;
        counts.opened += 1;
    }

    pub(crate) fn closed(&self) {
        self.lock().open -= 1;
    }

    pub(crate) fn echoed(&self, took: Duration) {
        self.lock().told.echoes.push(took);
    }

    pub(crate) fn failed(&self, kind: Kind, error: &io::Error) {
        let now = now();
        let mut counts = self.lock();
        let kind = match is_own(error) {
            true => Kind::Own,
            false => kind,
        };
        match kind {
            Kind::Kept | Kind::Fresh => counts.failed += 1,
            Kind::Stream => counts.broken += 1,
            Kind::Opening => {}
            Kind::Own => counts.own += 1,
        }
        let key = (kind, error.to_string());
        let (count, _, last) = counts.failures.entry(key).or_insert((0, now, now));
        *count += 1;
        *last = now;
    }

    /// What there was until now, and the failures since the line before.
    pub(crate) fn line(&self) -> Map<String, Value> {
        let mut counts = self.lock();
        let failures: Vec<_> = std::mem::take(&mut counts.failures)
            .into_iter()
            .map(|((kind, what), (count, first, last))| {
                json!({
                    "kind": kind.name(), "what": what, "count": count, "first": first, "last": last,
                })
            })
            .collect();
        let all: [(&str, Value); 10] = [
            ("at", now().into()),
            ("kept", counts.kept.into()),
            ("fresh", counts.fresh.into()),
            ("failed", counts.failed.into()),
            ("own", counts.own.into()),
            ("open", counts.open.into()),
            ("opened", counts.opened.into()),
            ("broken", counts.broken.into()),
            ("echoes", counts.told.echoes.len().into()),
            ("failures", failures.into()),
        ];
        let named = all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        named.collect()
    }

    pub(crate) fn told(&self) -> Told {
        self.lock().told.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

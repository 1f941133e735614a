//! The frontend's calls: steady, through its sidecar, and counted by what came
//! of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// One service that the frontend calls.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its name.
    pub(crate) service: &'static str,
    /// The sidecar's local port for it, and the path.
    pub(crate) url: String,
    /// How often.
    pub(crate) every: Duration,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// An answer of this version.
    Answered(String),
    /// An intention said no.
    Denied(String),
    /// All else, with the reason.
    Failed(String),
}

/// What the last seconds brought, for one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How often each outcome came.
    pub(crate) outcomes: BTreeMap<Outcome, usize>,
    /// The middle of the answers' times.
    pub(crate) median: Option<Duration>,
    /// Calls a second.
    pub(crate) rate: f64,
}

/// How far back is looked.
const WINDOW: Duration = Duration::from_secs(5);

/// The calls of the last seconds, by service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<BTreeMap<&'static str, VecDeque<Record>>>>);

#[derive(Clone, Debug)]
struct Record {
    at: Instant,
    took: Duration,
    outcome: Outcome,
}

impl Log {
    fn add(&self, service: &'static str, record: Record) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(service).or_default();
        while calls
            .front()
            .is_some_and(|one| record.at.duration_since(one.at) > WINDOW)
        {
            calls.pop_front();
        }
        calls.push_back(record);
    }

    /// What the last seconds brought.
    pub(crate) fn seen(&self, service: &str, now: Instant) -> Seen {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || {
            let all = calls.get(service).into_iter().flatten();
            all.filter(|one| now.saturating_duration_since(one.at) <= WINDOW)
        };
        let mut seen = Seen::default();
        let mut times = Vec::new();
        for one in recent() {
            *seen.outcomes.entry(one.outcome.clone()).or_default() += 1;
            if matches!(one.outcome, Outcome::Answered(_)) {
                times.push(one.took);
            }
        }
        times.sort_unstable();
        seen.median = times.get(times.len() / 2).copied();
        seen.rate = recent().count() as f64 / WINDOW.as_secs_f64();
        seen
    }
}

/// Makes the calls for as long as `tasks` lives.
pub(crate) fn start(calls: &[Call], log: &Log, tasks: &mut JoinSet<()>) -> reqwest::Result<()> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()?;
    for call in calls {
        let (call, log, client) = (call.clone(), log.clone(), client.clone());
        tasks.spawn(async move {
            let mut tick = tokio::time::interval(call.every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                let at = Instant::now();
                let outcome = make(&client, &call.url).await;
                let took = at.elapsed();
                log.add(call.service, Record { at, took, outcome });
            }
        });
    }
    Ok(())
}

async fn make(client: &reqwest::Client, url: &str) -> Outcome {
    let response = match client.get(url).send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return Outcome::Failed("the sidecar is not there".to_owned());
        }
        Err(error) if error.is_timeout() => return Outcome::Failed("no answer in 5 s".to_owned()),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let status = response.status();
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    if let Some(reason) = header("x-mesh-denied") {
        return Outcome::Denied(reason);
    }
    let error = header("x-mesh-error");
    if !status.is_success() {
        return Outcome::Failed(error.unwrap_or_else(|| status.to_string()));
    }
    match response.json::<serde_json::Value>().await {
        Ok(body) => Outcome::Answered(body["version"].as_str().unwrap_or("?").to_owned()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_window_holds() {
        let log = Log::default();
        let start = Instant::now();
        let answered = |version: &str| Outcome::Answered(version.to_owned());
        for (seconds, outcome) in [
            (0, answered("v1")),
            (4, answered("v2")),
            (5, answered("v2")),
        ] {
            let at = start + Duration::from_secs(seconds);
            let took = Duration::from_millis(seconds);
            log.add("web", Record { at, took, outcome });
        }
        let seen = log.seen("web", start + Duration::from_secs(6));
        assert_eq!(seen.outcomes, BTreeMap::from([(answered("v2"), 2)]));
        assert_eq!(seen.median, Some(Duration::from_millis(5)));
        assert!((seen.rate - 0.4).abs() < 1e-9);
        assert!(log.seen("db", start).outcomes.is_empty());
    }
}

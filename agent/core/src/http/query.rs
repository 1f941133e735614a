//! Consul's reads of what the servers have: their parameters, how a change is waited for, and the
//! headers of their answers.
//!
//! What asks for another answer (`filter`, `tag`) and is not understood is refused. What only asks
//! for the same one in another order or from somewhere nearer (`near`, `cached`) is ignored.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mesh_consul::filter::{Filter, Selectors};
use mesh_model::{DEFAULT_NAMESPACE, Key};
use mesh_proto::servers::v1 as pb;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Answer;
use super::{Door, Failure};
use crate::uplink::ReadError;

/// How long a change is waited for when nothing is said, and at most, as in Consul.
const WAIT: Duration = Duration::from_secs(300);
pub(super) const MAX_WAIT: Duration = Duration::from_secs(600);

/// The parameters as they come; some may come several times.
pub(super) type Pairs = Query<Vec<(String, String)>>;

/// What a read is asked with.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pairs: Vec<(String, String)>,
    index: Option<u64>,
    wait: Duration,
    freshness: &'static str,
}

impl Asked {
    pub(super) fn read(door: &Door, Query(pairs): Pairs) -> Result<Self, Failure> {
        let mut asked = Self {
            pairs,
            wait: WAIT,
            ..Self::default()
        };
        let bad = |name: &str, why: String| Failure::bad(format!("{name}: {why}"));
        if let Some(index) = asked.text("index") {
            let index: u64 = index
                .parse()
                .map_err(|_| bad("index", format!("`{index}` is not a whole number")))?;
            asked.index = Some(index).filter(|index| *index > 0);
        }
        if let Some(wait) = asked.text("wait") {
            let wait: mesh_model::Duration =
                wait.parse().map_err(|e| bad("wait", format!("{e}")))?;
            asked.wait = match wait.std() {
                Duration::ZERO => WAIT,
                wait => wait.min(MAX_WAIT),
            };
        }
        asked.freshness = match (asked.flag("stale"), asked.flag("consistent")) {
            (true, true) => {
                return Err(Failure::bad("stale and consistent: write one of them"));
            }
            (true, false) => "stale",
            (false, true) => "consistent",
            (false, false) => "",
        };
        if let Some(dc) = asked.text("dc")
            && dc != door.datacenter()
        {
            return Err(Failure::internal(format!("No path to datacenter {dc}")));
        }
        if let Some(partition) = asked.text("partition")
            && partition != "default"
        {
            return Err(bad("partition", "there is only `default`".to_owned()));
        }
        if asked.text("node-meta").is_some() {
            return Err(bad("node-meta", "not supported; use filter".to_owned()));
        }
        Ok(asked)
    }

    /// A parameter that says something.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All of a parameter that may come several times.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.pairs.iter().filter(move |(key, _)| key == name);
        let values = named.map(|(_, value)| value.as_str());
        values.filter(|value| !value.is_empty())
    }

    /// Whether a parameter stands, as Consul reads it: with anything but `false`.
    pub(super) fn flag(&self, name: &str) -> bool {
        let mut named = self.pairs.iter().filter(|(key, _)| key == name);
        named.any(|(_, value)| !matches!(value.as_str(), "false" | "0"))
    }

    /// The index that is known already; none: no change is waited for.
    pub(super) fn index(&self) -> Option<u64> {
        self.index
    }

    /// How long a change is waited for.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether a change is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.index.is_some()
    }

    pub(super) fn namespace(&self) -> &str {
        self.text("ns").unwrap_or(DEFAULT_NAMESPACE)
    }

    /// A name in the namespace that is asked for; none, where it can be nobody's.
    pub(super) fn key(&self, name: &str) -> Option<Key> {
        let key = Key::new(self.namespace(), name);
        key.check().is_ok().then_some(key)
    }

    pub(super) fn filter(&self, selectors: Selectors) -> Result<Filter, Failure> {
        let text = self.text("filter").unwrap_or_default();
        Ok(Filter::parse(text, selectors)?)
    }

    /// The servers' answer to a GET of this path; a status that is not 200 is a failure.
    pub(super) async fn ask(&self, door: &Door, path: &str) -> Result<Found, Failure> {
        self.ask_if(door, path)
            .await?
            .ok_or_else(|| Failure::not_found(format!("{path}: the servers know of no such thing")))
    }

    /// The same, where there need be no such thing.
    pub(super) async fn ask_if(&self, door: &Door, path: &str) -> Result<Option<Found>, Failure> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut target = format!("{path}{joint}{}", self.freshness);
        let wait = self.index.map(|_| self.wait);
        if let Some(index) = self.index {
            target.push_str(&format!("&index={index}&wait={}ms", self.wait.as_millis()));
        }
        let target = target.replace("?&", "?");
        let target = target.trim_end_matches(['?', '&']).to_owned();
        let answer = door.servers.read(target, wait).await.map_err(failure)?;
        let found = Found(answer, self.freshness);
        match found.0.status {
            200 => Ok(Some(found)),
            404 => Ok(None),
            _ => Err(found.failure()),
        }
    }
}

/// An answer of the servers'.
#[derive(Debug)]
pub(super) struct Found(pb::ReadResponse, &'static str);

impl Found {
    /// Its rows.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0.body)
            .map_err(|e| Failure::internal(format!("the server's answer cannot be read: {e}")))
    }

    /// The index that is to be asked with next.
    pub(super) fn index(&self) -> u64 {
        self.0.index.max(1)
    }

    /// What is answered of it, with Consul's headers.
    pub(super) fn answer(&self, shown: Value) -> Answer {
        Ok(self.with(Json(shown)))
    }

    /// There is no such thing, which can be waited for as well.
    pub(super) fn none(&self, message: &str) -> Answer {
        Ok(self.with(Failure::not_found(message)))
    }

    fn with(&self, answer: impl IntoResponse) -> Response {
        let mut answer = answer.into_response();
        let headers = answer.headers_mut();
        headers.insert("x-consul-index", HeaderValue::from(self.index()));
        let known = if self.0.known_leader { "true" } else { "false" };
        headers.insert("x-consul-knownleader", HeaderValue::from_static(known));
        let age = self.0.last_contact_ms.unwrap_or_default();
        headers.insert("x-consul-lastcontact", HeaderValue::from(age));
        let consistency = if self.1.is_empty() { "leader" } else { self.1 };
        headers.insert(
            "x-consul-effective-consistency",
            HeaderValue::from_static(consistency),
        );
        answer
    }

    /// The server's refusal, in its words.
    fn failure(&self) -> Failure {
        let body: Value = serde_json::from_slice(&self.0.body).unwrap_or_default();
        let message = body.pointer("/error/message").and_then(Value::as_str);
        let status = u16::try_from(self.0.status).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Failure::new(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message.unwrap_or("the server refused the read"),
        )
    }
}

pub(super) fn failure(error: ReadError) -> Failure {
    let status = match error {
        ReadError::TooMany => StatusCode::TOO_MANY_REQUESTS,
        ReadError::NoServer | ReadError::TooOld | ReadError::Failed(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    Failure::new(status, error.to_string())
}

//! `/v1/intentions/check`: would it be allowed, and why. The sidecars' own evaluator answers.

use futures::FutureExt;
use http::Method;
use mesh_model::{
    HeaderMatch, Intention, IntentionRule, Key, PathMatch, Permission, QueryMatch, RequestMatch,
    Row, StringMatch, normalize_path,
};
use mesh_policy::{
    ConnectionDecision, Decider, Decision, HeaderLookup, Policy, RequestFacts, RequestMatcher,
};
use mesh_state::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::ApiError;
use super::route::{Access, Body, Call, Reply, Route, Shape};
use super::rows;
use super::run::consistency;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::POST,
            "/v1/intentions/check",
            "checkIntention",
            "Whether a call is allowed, and why",
            Shape::One("Checked"),
            |call| check(call).boxed(),
        )
        .body(Body::Json("Check"))
        .query("consistent", "As of now, proved by a majority")
        .query("stale", "As this server has it, with or without a leader")
        .access(Access::Read),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    source: String,
    destination: String,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    query: Option<String>,
}

/// A request to ask about, in its normal form.
struct Asked {
    method: String,
    path: String,
    query: String,
    headers: Headers,
}

struct Headers(Vec<(String, String)>);

impl HeaderLookup for Headers {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.as_slice().header(name)
    }
}

impl Asked {
    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        }
    }
}

async fn check(call: Call) -> Result<Reply, ApiError> {
    let question = Question::deserialize(rows::body(&call.body)?)
        .map_err(|error| ApiError::request(format!("the body: {error}")))?;
    let side = |name: &str, text: &str| -> Result<Key, ApiError> {
        let key: Result<Key, _> = text.parse();
        let key = key.map_err(|error| ApiError::request(format!("{name}: {error}")))?;
        let exact = key.check();
        exact.map_err(|error| ApiError::request(format!("{name}: {error}")))?;
        Ok(key)
    };
    let source = side("source", &question.source)?;
    let destination = side("destination", &question.destination)?;
    let asked = asked(question)?;
    call.core.fresh(consistency(&call.args)?).await?;
    let state = call.core.store.state();
    let answer = answer(&state, &source, &destination, asked.as_ref())?;
    Ok(Reply::json(answer))
}

fn asked(question: Question) -> Result<Option<Asked>, ApiError> {
    let Some(path) = question.path else {
        let more =
            question.method.is_some() || question.query.is_some() || !question.headers.is_empty();
        return match more {
            true => Err(ApiError::request(
                "path: is missing beside method, headers or query",
            )),
            false => Ok(None),
        };
    };
    let (path, inline) = match path.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (path, None),
    };
    let query = match (question.query, inline) {
        (Some(_), Some(_)) => {
            return Err(ApiError::request("query: stands in `path` too; keep one"));
        }
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let path =
        normalize_path(&path).map_err(|error| ApiError::request(format!("path: {error}")))?;
    Ok(Some(Asked {
        method: question
            .method
            .map_or_else(|| "GET".to_owned(), |method| method.to_ascii_uppercase()),
        path: path.into_owned(),
        query,
        headers: Headers(question.headers.into_iter().collect()),
    }))
}

/// The answer, as a function of the state.
fn answer(
    state: &State,
    source: &Key,
    destination: &Key,
    asked: Option<&Asked>,
) -> Result<Value, ApiError> {
    let default = state.default_intention();
    let protocol = state.service_or_default(destination).protocol;
    let rows = state.intentions_for(destination);
    let policy = Policy::of(default, rows.iter().map(|row| &row.value))
        .map_err(|error| ApiError::internal(format!("the policy cannot be read: {error}")))?;
    let connection = policy.connection(source);
    let by_request = protocol.is_http()
        && asked.is_none()
        && matches!(connection, ConnectionDecision::ByRequest { .. });
    let decision = match asked {
        Some(asked) if protocol.is_http() => policy.request(source, &asked.facts()),
        _ => policy.stream(source),
    };
    let permissions = match &connection {
        ConnectionDecision::ByRequest { permissions, .. } => *permissions,
        ConnectionDecision::Whole(_) => 0,
    };
    let reason = match by_request {
        true if permissions == 1 => "depends on the request: 1 permission".to_owned(),
        true => format!("depends on the request: {permissions} permissions"),
        false => decision.by.to_string(),
    };
    let (pair, number) = decided_by(&decision, &connection);
    let covering: Vec<&Arc<Row<Intention>>> = rows
        .iter()
        .filter(|row| row.value.source.covers(source))
        .collect();
    let explain: Vec<Value> = covering
        .iter()
        .enumerate()
        .map(|(place, row)| explained(&row.value, place == 0, asked))
        .collect();
    Ok(json!({
        "allowed": decision.is_allowed() && !by_request,
        "decided_by_request": by_request,
        "permissions": permissions,
        "reason": reason,
        "intention": pair.map(|(source, destination)| {
            json!({"source": source, "destination": destination})
        }),
        "permission": number,
        "default_intention": default,
        "protocol": protocol,
        "explain": explain,
    }))
}

fn decided_by(
    decision: &Decision,
    connection: &ConnectionDecision,
) -> (Option<(Key, Key)>, Option<usize>) {
    let governing = match connection {
        ConnectionDecision::ByRequest {
            source,
            destination,
            ..
        } => Some((source.clone(), destination.clone())),
        ConnectionDecision::Whole(_) => None,
    };
    match &decision.by {
        Decider::Intention {
            source,
            destination,
            ..
        } => (Some((source.clone(), destination.clone())), None),
        Decider::Permission { number, .. } => (governing, Some(*number)),
        _ => (governing, None),
    }
}

fn explained(intention: &Intention, governs: bool, asked: Option<&Asked>) -> Value {
    let mut says = json!({
        "source": intention.source,
        "destination": intention.destination,
        "precedence": intention.precedence(),
        "governs": governs,
    });
    let (word, permissions) = match &intention.rule {
        IntentionRule::Action(action) => (action.as_str(), Vec::new()),
        IntentionRule::Permissions(permissions) => ("permissions", tried(permissions, asked)),
    };
    says["says"] = word.into();
    if !permissions.is_empty() {
        says["permissions"] = permissions.into();
    }
    says
}

/// Each permission, and whether it matches. What stands after the first that
/// does is not reached, and says so.
fn tried(permissions: &[Permission], asked: Option<&Asked>) -> Vec<Value> {
    let mut decided = false;
    let rows = permissions.iter().enumerate().map(|(place, permission)| {
        let (matches, note) = match asked {
            None => (None, "depends on the request".to_owned()),
            Some(asked) => match mismatch(&permission.request, asked) {
                Some(why) => (Some(false), why),
                None if decided => (Some(true), "matches, but an earlier one decided".to_owned()),
                None => {
                    decided = true;
                    (Some(true), "matches".to_owned())
                }
            },
        };
        json!({
            "number": place + 1,
            "action": permission.action,
            "matches": matches,
            "note": note,
        })
    });
    rows.collect()
}

/// Why a request is not one of those; `None`: it is.
fn mismatch(request: &RequestMatch, asked: &Asked) -> Option<String> {
    let holds = |part: RequestMatch| {
        RequestMatcher::compile(&part).is_ok_and(|matcher| matcher.matches(&asked.facts()))
    };
    if let Some(path) = &request.path {
        let part = RequestMatch {
            path: Some(path.clone()),
            ..RequestMatch::default()
        };
        if !holds(part) {
            let wanted = match path {
                PathMatch::Exact(path) => format!("is not {path}"),
                PathMatch::Prefix(path) => format!("does not begin with {path}"),
                PathMatch::Regex(path) => format!("does not match {path}"),
            };
            return Some(format!("path {} {wanted}", asked.path));
        }
    }
    if !request.methods.is_empty() && !request.methods.contains(&asked.method) {
        let methods = request.methods.join(", ");
        return Some(format!("method {} is not one of {methods}", asked.method));
    }
    let header = |one: &HeaderMatch| {
        !holds(RequestMatch {
            headers: vec![one.clone()],
            ..RequestMatch::default()
        })
    };
    if let Some(one) = request.headers.iter().find(|one| header(one)) {
        return Some(condition("header", &one.name, &one.value, one.invert));
    }
    let query = |one: &QueryMatch| {
        !holds(RequestMatch {
            query: vec![one.clone()],
            ..RequestMatch::default()
        })
    };
    let one = request.query.iter().find(|one| query(one))?;
    Some(condition(
        "query parameter",
        &one.name,
        &one.value,
        one.invert,
    ))
}

fn condition(what: &str, name: &str, value: &StringMatch, invert: bool) -> String {
    let (is, is_not, wanted) = match value {
        StringMatch::Present => ("is", "is not", "there".to_owned()),
        StringMatch::Exact(text) => ("is", "is not", format!("`{text}`")),
        StringMatch::Prefix(text) => ("begins with", "does not begin with", format!("`{text}`")),
        StringMatch::Suffix(text) => ("ends with", "does not end with", format!("`{text}`")),
        StringMatch::Contains(text) => ("contains", "does not contain", format!("`{text}`")),
        StringMatch::Regex(text) => ("matches", "does not match", format!("`{text}`")),
    };
    match invert {
        false => format!("{what} {name} {is_not} {wanted}"),
        true => format!("{what} {name} {is} {wanted}, and must not"),
    }
}

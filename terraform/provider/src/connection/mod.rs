//! The servers' HTTP API, as a provider needs it: any of several servers, tried again for as
//! long as the cluster is between two leaders.

mod error;
mod place;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_tfprotocol::Context;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value as Json;
use tokio::time::Instant;

pub(crate) use error::{ApiError, ClientError};
pub(crate) use place::{NAMESPACE, Settings, VARIABLES};

/// How long one request may take; a server gives up after 30 s.
const REQUEST: Duration = Duration::from_secs(35);
/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the cluster may be without a leader, or out of reach, before that is said.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may be out of reach where no server was ever reached: then the address is wrong
/// more often than the cluster is down.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The servers.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    servers: Vec<Url>,
    /// The server that answered last.
    current: AtomicUsize,
    answered: AtomicUsize,
    owner: String,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Json>,
}

impl Question {
    fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|&part| part.to_owned()).collect(),
            query: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn put(path: &[&str], body: Json) -> Self {
        Self {
            body: Some(body),
            ..Self::new(Method::PUT, path)
        }
    }

    pub(crate) fn post(path: &[&str], body: Json) -> Self {
        Self {
            body: Some(body),
            ..Self::new(Method::POST, path)
        }
    }

    pub(crate) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn maybe(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let built = reqwest::Client::builder()
            .tls_backend_preconfigured(settings.tls()?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .build();
        Ok(Self {
            http: built.map_err(|error| ClientError::Settings {
                field: "address",
                reason: error.to_string(),
            })?,
            servers: settings.servers.clone(),
            current: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            owner: settings.owner.clone(),
        })
    }

    /// In whose name rows are written.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// Asks until there is an answer: while the servers cannot be reached or have no leader, it
    /// is asked again, also for writes. Those must therefore be such that a second one does no
    /// harm: check-and-set makes them so.
    pub(crate) async fn ask(&self, cx: &Context, question: &Question) -> Result<Json, ClientError> {
        Ok(self.ask_at(cx, question).await?.0)
    }

    /// The same, with the index of what was read.
    pub(crate) async fn ask_at(
        &self,
        cx: &Context,
        question: &Question,
    ) -> Result<(Json, u64), ClientError> {
        let began = Instant::now();
        // Never what is in it: a body may have a key.
        cx.progress(format!("{} /{}", question.method, question.path.join("/")));
        loop {
            let error = match cx.until(self.once(question)).await {
                Err(_) => return Err(ClientError::Interrupted),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
            };
            let patience = match self.answered.load(Ordering::Relaxed) {
                0 => FIRST_PATIENCE,
                _ => PATIENCE,
            };
            if !error.passes() || began.elapsed() > patience {
                return Err(error);
            }
            cx.progress(format!("asking again, since {error}"));
            self.current.fetch_add(1, Ordering::Relaxed);
            if cx.sleep(PAUSE).await.is_err() {
                return Err(ClientError::Interrupted);
            }
        }
    }

    async fn once(&self, question: &Question) -> Result<(Json, u64), ClientError> {
        let at = self.current.load(Ordering::Relaxed) % self.servers.len().max(1);
        let Some(server) = self.servers.get(at) else {
            return Err(ClientError::Settings {
                field: "address",
                reason: "names no server".to_owned(),
            });
        };
        let address = server.as_str().trim_end_matches('/').to_owned();
        let url = url(server, question);
        let mut request = self.http.request(question.method.clone(), url);
        if question.method != Method::GET {
            request = request.header("X-Meshctl-Owner", &self.owner);
        }
        if let Some(body) = &question.body {
            request = request.json(body);
        }
        let lost = |error: reqwest::Error| ClientError::unreachable(&address, &error);
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let index = response.headers().get("X-Meshctl-Index");
        let index = index.and_then(|text| text.to_str().ok()?.parse().ok());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(odd(&address, "more than 64 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let json: Result<Json, _> = serde_json::from_slice(&bytes);
        let Ok(json) = json else {
            return Err(odd(&address, &format!("{status}, without JSON")));
        };
        if status.is_success() {
            self.answered.store(1, Ordering::Relaxed);
            return Ok((json, index.unwrap_or_default()));
        }
        Err(refused(&address, status, &json))
    }
}

fn url(server: &Url, question: &Question) -> Url {
    let mut url = server.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(&question.path);
    }
    if !question.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&question.query);
    }
    url
}

fn odd(address: &str, reason: &str) -> ClientError {
    ClientError::Odd {
        address: address.to_owned(),
        reason: reason.to_owned(),
    }
}

fn refused(address: &str, status: StatusCode, json: &Json) -> ClientError {
    match serde_json::from_value::<ApiError>(json["error"].clone()) {
        Ok(error) if !error.code.is_empty() => ClientError::Api(error),
        _ => odd(address, &format!("{status} without a reason")),
    }
}

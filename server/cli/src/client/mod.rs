//! The HTTP API of a server, as `docs/reference/api.md` has it.
//!
//! An answer is read leniently: a newer server may say more than this meshctl
//! knows, and a list must still print. What is sent is strict.

mod address;
mod calls;
mod types;

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use types::{
    Applied, Checked, Cluster, Explained, Finding, Instance, Node, Operation, Proxy, Status, Tally,
    Waited, says, unrow,
};

use crate::args::{Connection, Freshness, Owner};
use crate::console::Console;
use crate::error::{ApiError, CliError};

/// How long a request may take; the server gives up after 30 s.
const REQUEST: Duration = Duration::from_secs(35);
/// How long a snapshot may take, either way.
const SNAPSHOT: Duration = Duration::from_secs(330);
/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer that is read into memory, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// A server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    freshness: Freshness,
}

/// An answer, as JSON and as what it means.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) json: Value,
    pub(crate) value: T,
}

/// What is asked for: a path in its parts, and parameters.
#[derive(Clone, Debug, Default)]
struct Question<'a> {
    path: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    owner: Option<&'a str>,
    body: Option<Body>,
    /// Whether it changes nothing, though it is no GET.
    is_read: bool,
    /// How long it may take beyond the usual.
    wait: Duration,
}

#[derive(Clone, Debug)]
enum Body {
    Json(Value),
    Text(String),
    Bytes(Vec<u8>),
}

impl<'a> Question<'a> {
    fn to(path: &[&'a str]) -> Self {
        Self {
            path: path.to_vec(),
            ..Self::default()
        }
    }

    fn query(mut self, name: &'a str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    fn maybe(self, name: &'a str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// It changes nothing, though it is no GET.
    fn reads(mut self) -> Self {
        self.is_read = true;
        self
    }

    /// In whose name a write is made.
    fn owner(mut self, owner: &'a Owner) -> Self {
        self.owner = Some(&owner.owner);
        match owner.force {
            true => self.query("force", true),
            false => self,
        }
    }

    fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Client {
    /// The server that the flags and variables name.
    pub(crate) fn new(
        connection: &Connection,
        freshness: Freshness,
        console: &Console<'_>,
    ) -> Result<Self, CliError> {
        let at = address::resolve(connection, console)?;
        let built = reqwest::Client::builder()
            .tls_backend_preconfigured(at.tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build();
        let http = built.map_err(|error| CliError::Unreachable {
            address: at.url.to_string(),
            reason: chain(&error),
        })?;
        Ok(Self {
            http,
            base: at.url,
            freshness,
        })
    }

    /// As people write it.
    pub(crate) fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    async fn read<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
    ) -> Result<Answer<T>, CliError> {
        self.ask(Method::GET, self.as_fresh(question)).await
    }

    /// With how fresh the answer must be.
    fn as_fresh<'a>(&self, mut question: Question<'a>) -> Question<'a> {
        if self.freshness.stale {
            question = question.query("stale", true);
        }
        if self.freshness.consistent {
            question = question.query("consistent", true);
        }
        question
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        question: Question<'_>,
    ) -> Result<Answer<T>, CliError> {
        let response = self.send(method, question, REQUEST).await?;
        let bytes = self.bytes(response).await?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| self.odd(error))?;
        let value = T::deserialize(&json).map_err(|error| self.odd(error))?;
        Ok(Answer { json, value })
    }

    async fn text(&self, mut question: Question<'_>) -> Result<String, CliError> {
        if self.freshness.stale {
            question = question.query("stale", true);
        }
        let response = self.send(Method::GET, question, REQUEST).await?;
        let bytes = self.bytes(response).await?;
        String::from_utf8(bytes).map_err(|error| self.odd(error))
    }

    /// Sends it; an answer that is an error becomes one.
    async fn send(
        &self,
        method: Method,
        question: Question<'_>,
        limit: Duration,
    ) -> Result<Response, CliError> {
        let url = self.url(&question)?;
        let is_read = question.is_read || method == Method::GET;
        let mut request = self
            .http
            .request(method, url)
            .timeout(limit + question.wait);
        if let Some(owner) = question.owner {
            let owner = HeaderValue::from_str(owner);
            let owner = owner.map_err(|_| {
                let advice = "An owner is 1 to 63 of a-z, A-Z, 0-9 and _.:/-";
                CliError::refused("-owner has a character that an owner cannot have", advice)
            })?;
            request = request.header("X-Meshctl-Owner", owner);
        }
        request = match question.body {
            None => request,
            Some(Body::Json(value)) => request.json(&value),
            Some(Body::Text(text)) => request.header(CONTENT_TYPE, "text/plain").body(text),
            Some(Body::Bytes(bytes)) => {
                let kind = "application/octet-stream";
                request.header(CONTENT_TYPE, kind).body(bytes)
            }
        };
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refused(response, is_read).await),
        }
    }

    fn url(&self, question: &Question<'_>) -> Result<Url, CliError> {
        let mut url = self.base.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            return Err(self.odd("it cannot have a path"));
        };
        segments.pop_if_empty().extend(&question.path);
        drop(segments);
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&question.query);
        }
        Ok(url)
    }

    async fn refused(&self, response: Response, is_read: bool) -> CliError {
        let status = response.status();
        let bytes = match self.bytes(response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        #[derive(serde::Deserialize)]
        struct Wrapped {
            error: ApiError,
        }
        match serde_json::from_slice::<Wrapped>(&bytes) {
            Ok(Wrapped { mut error }) if !error.code.is_empty() => {
                error.is_read = is_read;
                // Of the API; what there is here, the advice says.
                if let Some(at) = error.message.find("; ?stale") {
                    error.message.truncate(at);
                }
                CliError::Api(error)
            }
            _ => self.odd(format!("{status} without a reason")),
        }
    }

    async fn bytes(&self, mut response: Response) -> Result<Vec<u8>, CliError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(self.odd("more than 256 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn lost(&self, error: &reqwest::Error) -> CliError {
        CliError::Unreachable {
            address: self.address(),
            reason: match error.is_timeout() {
                true => "no answer in time".to_owned(),
                false => chain(error),
            },
        }
    }

    fn odd(&self, reason: impl ToString) -> CliError {
        CliError::Answer {
            address: self.address(),
            reason: reason.to_string(),
        }
    }
}

/// What a handshake says, or else the innermost reason: what is around it only
/// says that a request failed.
fn chain(error: &reqwest::Error) -> String {
    let explained = mesh_tls::explain(error);
    if explained != error.to_string() {
        return explained;
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

//! The table of routes. The router and the OpenAPI document are both made of it, so they cannot
//! differ.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use mesh_state::{State, WatchKey};
use serde_json::Value;

use super::args::Args;
use super::error::ApiError;
use crate::core::Core;
use crate::listen::Caller;

/// Bodies, unless a route says otherwise.
const BODY: usize = 1 << 20;
/// Time, unless a route says otherwise.
const TIME: Duration = Duration::from_secs(30);

/// What every read takes.
pub(crate) const READ: [Param; 5] = [
    Param(
        "index",
        "Answer when something that is read has an index above this",
    ),
    Param(
        "wait",
        "How long to wait with `index`: default 5m, at most 10m",
    ),
    Param(
        "epoch",
        "The epoch of `index`; another one is answered at once",
    ),
    Param("consistent", "As of now, proved by a majority"),
    Param("stale", "As this server has it, with or without a leader"),
];

/// What every write of rows takes.
pub(crate) const WRITE: [Param; 3] = [
    Param(
        "cas",
        "Only when the row's modify index is this; 0: when there is none",
    ),
    Param("force", "Takes over a row of another owner"),
    Param("dry_run", "Validates, changes nothing"),
];

/// One operation.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// As axum and OpenAPI both write it.
    pub(crate) path: &'static str,
    /// Unique; the operation's id.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: Vec<Param>,
    pub(crate) body: Body,
    pub(crate) answer: Shape,
    pub(crate) access: Access,
    pub(crate) work: Work,
    /// The longest body, in bytes.
    pub(crate) body_limit: usize,
    /// How long it may take, waiting apart.
    pub(crate) time_limit: Duration,
    /// It waits for a change, and counts as a blocking query.
    pub(crate) waits: bool,
}

/// A parameter of the query: name and meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param(pub(crate) &'static str, pub(crate) &'static str);

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// JSON of that schema.
    Json(&'static str),
    /// Anything; checked by the route itself.
    Raw,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// JSON of that schema.
    One(&'static str),
    /// A list of that schema.
    List(&'static str),
    /// Of that media type.
    Raw(&'static str),
    /// The OpenAPI document.
    Document,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    Open,
    /// Every part of the cluster.
    Read,
    /// Operators and servers; an agent the entries of gateways, where the servers
    /// let agents write them. The route itself sees to the latter.
    Gateways,
    /// Operators and servers.
    Operator,
}

/// What it does.
pub(crate) enum Work {
    /// A function of the state, which can be waited for.
    Read(Keys, Read),
    /// Anything else.
    Act(Act),
}

/// What a read depends on.
pub(crate) type Keys = fn(&Args) -> Result<Vec<WatchKey>, ApiError>;
/// A read.
pub(crate) type Read = fn(&State, &Args) -> Result<Content, ApiError>;
/// Anything else.
pub(crate) type Act = fn(Call) -> BoxFuture<'static, Result<Reply, ApiError>>;

/// A request, past every check of its form.
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) args: Args,
    pub(crate) owner: String,
    pub(crate) caller: Caller,
    pub(crate) body: Bytes,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Json(Value),
    Text { media: &'static str, bytes: Bytes },
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content: Content,
    /// Of what was read or written; `None`: the state's.
    pub(crate) index: Option<u64>,
}

impl Reply {
    pub(crate) fn json(value: Value) -> Self {
        Self {
            status: StatusCode::OK,
            content: value.into(),
            index: None,
        }
    }

    pub(crate) fn at(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }
}

impl Route {
    /// A read that can be waited for.
    pub(crate) fn read(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        answer: Shape,
        keys: Keys,
        read: Read,
    ) -> Self {
        Self {
            method: Method::GET,
            path,
            id,
            summary,
            query: READ.to_vec(),
            body: Body::None,
            answer,
            access: Access::Read,
            work: Work::Read(keys, read),
            body_limit: 0,
            time_limit: TIME,
            waits: false,
        }
    }

    /// Anything else; operators only, unless told otherwise.
    pub(crate) fn act(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        answer: Shape,
        act: Act,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            query: Vec::new(),
            body: Body::None,
            answer,
            access: Access::Operator,
            work: Work::Act(act),
            body_limit: 0,
            time_limit: TIME,
            waits: false,
        }
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self.body_limit = BODY;
        self
    }

    pub(crate) fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    pub(crate) fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    pub(crate) fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(crate) fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push(Param(name, meaning));
        self
    }

    /// With the parameters of writes.
    pub(crate) fn writes(mut self) -> Self {
        self.query.extend(WRITE);
        self
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.work, Work::Read(..))
    }
}

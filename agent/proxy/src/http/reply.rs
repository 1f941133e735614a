//! What the proxy itself answers, for people to read.
//!
//! Each says what happened and what to do, once in a header (so that it shows
//! where bodies are not logged) and once as the body. A gRPC client gets it as
//! a status and a message, since it would throw away anything else.

use std::fmt::Write;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::{Answer, Body};

/// The verified identity of who calls, for the application. Nobody else can
/// set it.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("x-mesh-source");
/// Why a request was denied.
pub(crate) const DENIED: HeaderName = HeaderName::from_static("x-mesh-denied");
/// Why a request could not be carried.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-mesh-error");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request could not be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) status: StatusCode,
    /// What happened, and what to do.
    pub(crate) what: String,
    /// It is certain that nobody has processed the request.
    pub(crate) refused: bool,
}

impl Trouble {
    pub(crate) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self {
            status,
            what: what.into(),
            refused: false,
        }
    }

    /// The same, of a request that nobody has processed.
    pub(crate) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, what)
    }

    pub(crate) fn bad_request(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    pub(crate) fn timeout(what: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, what)
    }
}

/// The answer to a request that an intention denies.
pub(crate) fn denied(reason: &str, grpc: bool) -> Answer {
    let reason = format!("denied by {reason}");
    reply(StatusCode::FORBIDDEN, DENIED, &reason, grpc)
}

/// The answer to a request that cannot be carried.
pub(crate) fn trouble(trouble: &Trouble, grpc: bool) -> Answer {
    let mut answer = reply(trouble.status, ERROR, &trouble.what, grpc);
    answer.refused = trouble.refused;
    answer
}

fn reply(status: StatusCode, name: HeaderName, what: &str, grpc: bool) -> Answer {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(name, printable(what));
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
        headers.insert(GRPC_MESSAGE, percent_encoded(what));
        return answer(StatusCode::OK, headers, Body::empty());
    }
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer(status, headers, Body::full(format!("{what}\n")))
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Answer {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.headers = headers;
    Answer::new(head, body)
}

/// <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>
fn grpc_status(status: StatusCode) -> u16 {
    match status {
        StatusCode::BAD_REQUEST => 13,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::GATEWAY_TIMEOUT => 4,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => 14,
        _ => 2,
    }
}

/// What a header can hold; names in a message may come from anywhere.
fn printable(text: &str) -> HeaderValue {
    let plain: String = text
        .chars()
        .map(|char| if matches!(char, ' '..='~') { char } else { '?' })
        .take(1024)
        .collect();
    HeaderValue::from_str(&plain).unwrap_or_else(|_| HeaderValue::from_static("?"))
}

/// gRPC over HTTP/2: Percent-Byte-Encoded.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes().take(1024) {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    HeaderValue::from_str(&out).unwrap_or_else(|_| HeaderValue::from_static("?"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn for_http_and_for_grpc() {
        let answer = denied("intention web => payment (deny)", false);
        assert_eq!(answer.head.status, 403);
        assert_eq!(
            answer.head.headers[DENIED],
            "denied by intention web => payment (deny)"
        );
        let answer = trouble(&Trouble::timeout("100 % é"), true);
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.head.headers[GRPC_STATUS], "4");
        assert_eq!(answer.head.headers[GRPC_MESSAGE], "100 %25 %C3%A9");
        assert_eq!(answer.head.headers[ERROR], "100 % ?");
        assert!(answer.body.is_empty());
    }
}

//! A field of a head, read once: the dynamic table holds it as it was read, so
//! that what is said again costs a copy of references.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
    Header(HeaderName),
    /// Nothing that may be sent; how long it is.
    Bad(usize),
}

/// A field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    Authority(Authority),
    Method(Method),
    Path(PathAndQuery),
    Scheme(Scheme),
    Status(StatusCode),
    Protocol(Bytes),
    Header(HeaderName, HeaderValue),
    /// Nothing that may be sent; how long its name is.
    Bad(usize),
}

impl Name {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match bytes {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            // Upper case is not lowered: it is malformed (RFC 9113, 8.2.1).
            _ => match HeaderName::from_lowercase(bytes) {
                Ok(name) => Self::Header(name),
                Err(_) => Self::Bad(bytes.len()),
            },
        }
    }

    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Authority => ":authority".len(),
            Self::Method => ":method".len(),
            Self::Path => ":path".len(),
            Self::Scheme => ":scheme".len(),
            Self::Status => ":status".len(),
            Self::Protocol => ":protocol".len(),
            Self::Header(name) => name.as_str().len(),
            Self::Bad(length) => *length,
        }
    }

    /// The field of this name with this value.
    pub(crate) fn with(self, value: &[u8]) -> Field {
        let bad = Field::Bad(self.length());
        let field = match self {
            Self::Authority => Authority::try_from(value).ok().map(Field::Authority),
            Self::Method => Method::from_bytes(value).ok().map(Field::Method),
            Self::Path => path(value).map(Field::Path),
            Self::Scheme => Scheme::try_from(value).ok().map(Field::Scheme),
            Self::Status => StatusCode::from_bytes(value).ok().map(Field::Status),
            Self::Protocol => std::str::from_utf8(value)
                .ok()
                .map(|_| Field::Protocol(Bytes::copy_from_slice(value))),
            Self::Header(name) => {
                header_value(&name, value).map(|value| Field::Header(name, value))
            }
            Self::Bad(_) => None,
        };
        field.unwrap_or(bad)
    }
}

/// Never empty, and from the root (RFC 9113, 8.3.1).
fn path(value: &[u8]) -> Option<PathAndQuery> {
    match value {
        [b'/', ..] | b"*" => PathAndQuery::try_from(value).ok(),
        _ => None,
    }
}

/// What is a connection's is malformed in HTTP/2 (RFC 9113, 8.2.2), and so is a
/// value with space at an end (8.2.1).
fn header_value(name: &HeaderName, value: &[u8]) -> Option<HeaderValue> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_space(value.first()) || is_space(value.last()) {
        return None;
    }
    let may_be = match *name {
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => false,
        header::TE => value == b"trailers",
        _ => !matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    };
    match may_be {
        true => HeaderValue::from_bytes(value).ok(),
        false => None,
    }
}

impl Field {
    /// Its name.
    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Authority(_) => Name::Authority,
            Self::Method(_) => Name::Method,
            Self::Path(_) => Name::Path,
            Self::Scheme(_) => Name::Scheme,
            Self::Status(_) => Name::Status,
            Self::Protocol(_) => Name::Protocol,
            Self::Header(name, _) => Name::Header(name.clone()),
            Self::Bad(length) => Name::Bad(*length),
        }
    }
}

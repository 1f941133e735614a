//! Heads: what makes one, and what makes it malformed (RFC 9113, section 8).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request, response};

use crate::hpack::HpackError;
use crate::hpack::decoder::Decoder;
use crate::hpack::encoder::Encoder;
use crate::hpack::field::Field;

/// What a head says, as far as it was taken.
#[derive(Default)]
pub(crate) struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    pub(crate) headers: HeaderMap,
    /// How long the body is, if that is said.
    pub(crate) length: Option<u64>,
    pub(crate) over_size: bool,
    /// A header has come: no pseudo-header may.
    regular: bool,
    malformed: Option<&'static str>,
}

/// Headers of which there is room from the beginning.
const USUAL: usize = 12;

/// Reads a block of at most this size; of one that is larger, or malformed,
/// only what later blocks need.
pub(crate) fn read(
    decoder: &mut Decoder,
    block: &[u8],
    header_bytes: usize,
) -> Result<Fields, HpackError> {
    let mut fields = Fields {
        headers: HeaderMap::with_capacity(USUAL),
        ..Fields::default()
    };
    let mut size = 0usize;
    decoder.block(block, |bytes, taken| {
        size = size.saturating_add(bytes);
        if size > header_bytes {
            fields.over_size = true;
        } else if fields.malformed.is_none() {
            fields.malformed = fields.add(taken.into_field()).err();
        }
    })?;
    Ok(fields)
}

/// Reads a block that nobody wants.
pub(crate) fn skip(decoder: &mut Decoder, block: &[u8]) -> Result<(), HpackError> {
    decoder.block(block, |_, _| {})
}

impl Fields {
    #[inline]
    fn add(&mut self, field: Field) -> Result<(), &'static str> {
        let twice = match field {
            Field::Header(name, value) => {
                self.regular = true;
                return self.add_header(name, value);
            }
            Field::Bad(_) => return Err("a field that may not be sent"),
            _ if self.regular => return Err("a pseudo-header after a header"),
            Field::Authority(value) => self.authority.replace(value).is_some(),
            Field::Method(value) => self.method.replace(value).is_some(),
            Field::Path(value) => self.path.replace(value).is_some(),
            Field::Scheme(value) => self.scheme.replace(value).is_some(),
            Field::Status(value) => self.status.replace(value).is_some(),
            Field::Protocol(value) => self.protocol.replace(value).is_some(),
        };
        match twice {
            true => Err("a pseudo-header twice"),
            false => Ok(()),
        }
    }

    #[inline]
    fn add_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), &'static str> {
        if name == header::CONTENT_LENGTH {
            let length = length(value.as_bytes()).ok_or("a content-length that is no number")?;
            if self
                .length
                .replace(length)
                .is_some_and(|other| other != length)
            {
                return Err("two lengths");
            }
        }
        if self.headers.try_append(name, value).is_err() {
            self.over_size = true;
        }
        Ok(())
    }

    /// A request.
    pub(crate) fn into_request(self) -> Result<request::Parts, &'static str> {
        if let Some(what) = self.malformed {
            return Err(what);
        }
        // Extended CONNECT was not offered.
        if self.protocol.is_some() || self.status.is_some() {
            return Err("a pseudo-header that is none of a request");
        }
        let method = self.method.ok_or("no :method")?;
        let mut parts = uri::Parts::default();
        if method == Method::CONNECT {
            if self.scheme.is_some() || self.path.is_some() {
                return Err("a CONNECT with :scheme or :path");
            }
            parts.authority = Some(self.authority.ok_or("a CONNECT without :authority")?);
        } else {
            let scheme = self.scheme.ok_or("no :scheme")?;
            let path = self.path.ok_or("no :path")?;
            if path == "*" && method != Method::OPTIONS {
                return Err("a :path that is none");
            }
            parts.path_and_query = Some(path);
            // A URI has no scheme without an authority.
            parts.scheme = self.authority.is_some().then_some(scheme);
            parts.authority = self.authority;
        }
        let uri = Uri::from_parts(parts).map_err(|_| "no URI")?;
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = method;
        head.uri = uri;
        head.version = Version::HTTP_2;
        head.headers = self.headers;
        Ok(head)
    }

    /// An answer.
    pub(crate) fn into_response(self) -> Result<response::Parts, &'static str> {
        if let Some(what) = self.malformed {
            return Err(what);
        }
        if self.is_of_request() {
            return Err("a pseudo-header that is none of an answer");
        }
        let status = self.status.ok_or("no :status")?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err("101, which is none of HTTP/2");
        }
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = status;
        head.version = Version::HTTP_2;
        head.headers = self.headers;
        Ok(head)
    }

    /// Trailers.
    pub(crate) fn into_trailers(self) -> Result<HeaderMap, &'static str> {
        if let Some(what) = self.malformed {
            return Err(what);
        }
        match self.status.is_some() || self.is_of_request() {
            true => Err("a pseudo-header in trailers"),
            false => Ok(self.headers),
        }
    }

    fn is_of_request(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match digits {
        true => std::str::from_utf8(value).ok()?.parse().ok(),
        false => None,
    }
}

/// Writes a request's head.
pub(crate) fn write_request(encoder: &mut Encoder, out: &mut Vec<u8>, head: &request::Parts) {
    encoder.begin(out);
    match head.method {
        Method::GET => Encoder::fixed(out, 2),
        Method::POST => Encoder::fixed(out, 3),
        _ => encoder.field(out, b":method", head.method.as_str().as_bytes(), |_| 2),
    }
    let authority = head.uri.authority().map(Authority::as_str);
    if head.method != Method::CONNECT {
        match head.uri.scheme_str() {
            None | Some("http") => Encoder::fixed(out, 6),
            Some("https") => Encoder::fixed(out, 7),
            Some(other) => encoder.field(out, b":scheme", other.as_bytes(), |_| 6),
        }
    }
    if let Some(authority) = authority {
        encoder.field(out, b":authority", authority.as_bytes(), |_| 1);
    }
    if head.method != Method::CONNECT {
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        match path {
            "" if head.method == Method::OPTIONS => encoder.field(out, b":path", b"*", |_| 4),
            "" | "/" => Encoder::fixed(out, 4),
            _ => encoder.field(out, b":path", path.as_bytes(), |_| 4),
        }
    }
    write_headers(encoder, out, &head.headers);
}

/// Writes an answer's head.
pub(crate) fn write_response(encoder: &mut Encoder, out: &mut Vec<u8>, head: &response::Parts) {
    encoder.begin(out);
    write_status(encoder, out, head.status);
    write_headers(encoder, out, &head.headers);
}

/// Writes the pseudo-header of an answer.
pub(crate) fn write_status(encoder: &mut Encoder, out: &mut Vec<u8>, status: StatusCode) {
    let index = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return encoder.field(out, b":status", status.as_str().as_bytes(), |_| 8),
    };
    Encoder::fixed(out, index);
}

/// Writes trailers.
pub(crate) fn write_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &HeaderMap) {
    encoder.begin(out);
    write_headers(encoder, out, trailers);
}

/// What is a connection's own is not written (RFC 9113, 8.2.2).
fn write_headers(encoder: &mut Encoder, out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        let is_own = match *name {
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => true,
            header::TE => value != "trailers",
            _ => false,
        };
        if !is_own && !matches!(name.as_str(), "keep-alive" | "proxy-connection") {
            encoder.header(out, name, value);
        }
    }
}

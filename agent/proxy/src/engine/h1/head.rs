//! Heads: what stands before a body.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    request, response,
};
use httparse::Status;

use super::Malformed;
use super::framing::Length;
use super::names;
use crate::http::is_no_trailer;

/// Digits of a length; what they hold at most fits in 64 bits.
const DIGITS: usize = 19;
/// Headers that are parsed without an allocation for more.
const FEW: usize = 128;

/// Looks for the end of a head, in what was not looked at before; says how long
/// the head is.
pub(super) fn end_of_head(bytes: &[u8], looked_at: usize) -> Result<Option<usize>, Malformed> {
    let mut at = looked_at;
    while let Some(next) = line_end(bytes.get(at..).unwrap_or_default()) {
        let end = at + next + 1;
        match bytes.get(..end).unwrap_or_default() {
            [.., b'\r', b'\n', b'\r', b'\n'] => return Ok(Some(end)),
            [.., b'\r', b'\n'] => at = end,
            _ => return Err(Malformed::Rule("a line that ends with LF alone")),
        }
    }
    Ok(None)
}

/// Where the first line ends. Most of one is looked at sixteen bytes at a time.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let is_end = |byte: &u8| *byte == b'\n';
    let (pieces, _) = bytes.as_chunks::<16>();
    let without = pieces
        .iter()
        .take_while(|piece| !piece.iter().fold(false, |any, byte| any | is_end(byte)))
        .count();
    let at = 16 * without;
    let next = bytes.get(at..)?.iter().position(is_end)?;
    Some(at + next)
}

/// A request's head, and what it says of what follows.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) parts: request::Parts,
    pub(super) length: Length,
    /// Whether another request may follow.
    pub(super) keep: bool,
    /// The body comes only when it is asked for.
    pub(super) expects: bool,
}

/// An answer's head, and what it says of what follows.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) parts: response::Parts,
    pub(super) length: Length,
    pub(super) keep: bool,
}

/// Reads the head of a request, which is whole.
pub(super) fn request(bytes: &Bytes, most: usize) -> Result<RequestHead, Malformed> {
    with_headers(most, |headers| {
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed
            .parse_with_uninit_headers(bytes, headers)
            .map_err(of_parser)?;
        let (Status::Complete(_), Some(method), Some(target), Some(version)) =
            (status, parsed.method, parsed.path, parsed.version)
        else {
            return Err(Malformed::Rule("a head that is none"));
        };
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Malformed::Rule("a method that is none"))?;
        parts.uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes()))
            .map_err(|_| Malformed::Rule("a target that is none"))?;
        parts.version = version_of(version);
        parts.headers = header_map(bytes, parsed.headers)?;
        let headers = &parts.headers;
        let has = Has::of(headers);
        if has.twice && headers.get_all(HOST).iter().nth(1).is_some() {
            return Err(Malformed::Rule("more than one host"));
        }
        let length = match (has.chunked(headers, version)?, has.length(headers)?) {
            (Some(_), Some(_)) => return Err(Malformed::Rule("a length beside chunks")),
            (Some(true), None) => Length::Chunked,
            (Some(false), None) => return Err(Malformed::Rule("a coding that is not chunked")),
            (None, length) => Length::Exact(length.unwrap_or(0)),
        };
        let keep = has.keeps(headers, version);
        let expects = has.expect
            && version == 1
            && headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Ok(RequestHead {
            parts,
            length,
            keep,
            expects,
        })
    })
}

/// Reads the head of an answer to `method`, which is whole.
pub(super) fn response(
    bytes: &Bytes,
    most: usize,
    method: &Method,
) -> Result<ResponseHead, Malformed> {
    with_headers(most, |headers| {
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, bytes, headers)
            .map_err(of_parser)?;
        let (Status::Complete(_), Some(code), Some(version)) =
            (status, parsed.code, parsed.version)
        else {
            return Err(Malformed::Rule("a head that is none"));
        };
        let mut parts = Response::new(()).into_parts().0;
        parts.status =
            StatusCode::from_u16(code).map_err(|_| Malformed::Rule("a status that is none"))?;
        parts.version = version_of(version);
        parts.headers = header_map(bytes, parsed.headers)?;
        let has = Has::of(&parts.headers);
        let mut keep = has.keeps(&parts.headers, version);
        let bodiless = method == Method::HEAD
            || parts.status.is_informational()
            || parts.status == StatusCode::NO_CONTENT
            || parts.status == StatusCode::NOT_MODIFIED;
        let chunked = match has.coding && is_identity(&parts.headers) {
            true => None,
            false => has.chunked(&parts.headers, version)?,
        };
        let length = match (chunked, has.length(&parts.headers)?) {
            _ if bodiless => Length::Exact(0),
            (Some(true), length) => {
                // Not to be trusted further (RFC 9112, 6.3).
                keep = keep && length.is_none();
                Length::Chunked
            }
            // The caller would take what is coded for what was asked for.
            (Some(false), _) => return Err(Malformed::Rule("a coding that is not chunked")),
            (None, Some(length)) => Length::Exact(length),
            (None, None) => Length::UntilEnd,
        };
        Ok(ResponseHead {
            parts,
            keep: keep && length != Length::UntilEnd,
            length,
        })
    })
}

/// Which headers there are of those that say how a message is read. To look once
/// costs less than to look each up, and mostly there are few.
#[derive(Default)]
pub(super) struct Has {
    pub(super) coding: bool,
    pub(super) length: bool,
    connection: bool,
    expect: bool,
    /// Some header.
    twice: bool,
}

impl Has {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut has = Self {
            twice: headers.len() > headers.keys_len(),
            ..Self::default()
        };
        for name in headers.keys() {
            match name.as_str() {
                "transfer-encoding" => has.coding = true,
                "content-length" => has.length = true,
                "connection" => has.connection = true,
                "expect" => has.expect = true,
                _ => {}
            }
        }
        has
    }

    fn chunked(&self, headers: &HeaderMap, minor: u8) -> Result<Option<bool>, Malformed> {
        match self.coding {
            true => is_chunked(headers, minor),
            false => Ok(None),
        }
    }

    fn length(&self, headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
        match self.length {
            true => content_length(headers),
            false => Ok(None),
        }
    }

    fn keeps(&self, headers: &HeaderMap, minor: u8) -> bool {
        match self.connection {
            true => keeps(headers, minor),
            false => minor > 0,
        }
    }
}

/// Lends room for so many headers.
fn with_headers<'b, T>(
    most: usize,
    work: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    match few.get_mut(..most) {
        Some(headers) => work(headers),
        None => work(&mut vec![MaybeUninit::uninit(); most]),
    }
}

fn of_parser(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        httparse::Error::Version => Malformed::Rule("a version that is not HTTP/1"),
        _ => Malformed::Rule("a head that is none"),
    }
}

fn version_of(minor: u8) -> Version {
    match minor {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// The headers, as parts of the bytes that they were read from.
pub(super) fn header_map(
    bytes: &Bytes,
    headers: &[httparse::Header<'_>],
) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::with_capacity(headers.len() + 4); // some are added on the way
    for header in headers {
        let name = names::read(header.name.as_bytes())
            .map_err(|_| Malformed::Rule("a header's name that is none"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value))
            .map_err(|_| Malformed::Rule("a header's value that is none"))?;
        map.try_append(name, value)
            .map_err(|_| Malformed::TooLarge)?;
    }
    Ok(map)
}

/// Whether the body is chunked, where a coding is said. There may be one
/// coding, since no other is understood here.
fn is_chunked(headers: &HeaderMap, minor: u8) -> Result<Option<bool>, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(None);
    };
    if codings.next().is_some() {
        return Err(Malformed::Rule("more than one coding"));
    }
    if minor == 0 {
        return Err(Malformed::Rule("a coding in HTTP/1.0"));
    }
    Ok(Some(coding.as_bytes().eq_ignore_ascii_case(b"chunked")))
}

/// The coding that is none, of which some applications still speak.
fn is_identity(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next();
    codings.next().is_none()
        && first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(Malformed::Rule("more than one length"));
    }
    let digits = length.as_bytes();
    // Larger is none, and with zeros in front not everybody counts the same.
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Rule("a length that is none"));
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let length = text.parse();
    length
        .map(Some)
        .map_err(|_| Malformed::Rule("a length that is none"))
}

fn keeps(headers: &HeaderMap, minor: u8) -> bool {
    let says = |option: &str| {
        let mut all = headers.get_all(CONNECTION).iter();
        all.any(|value| has_option(value, option))
    };
    !says("close") && (minor > 0 || says("keep-alive"))
}

fn has_option(value: &HeaderValue, option: &str) -> bool {
    let mut options = value.as_bytes().split(|byte| *byte == b',');
    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// Writes the head of a request.
pub(super) fn put_request(out: &mut Vec<u8>, head: &request::Parts, length: Option<Length>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    put_headers(out, &head.headers);
    put_length(out, &head.headers, length);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer. `connection`: what is to be said of it.
pub(super) fn put_response(
    out: &mut Vec<u8>,
    head: &response::Parts,
    length: Option<Length>,
    connection: &str,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let reason = head.status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    put_headers(out, &head.headers);
    put_length(out, &head.headers, length);
    if !connection.is_empty() {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn put_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        put_header(out, name, value);
    }
}

/// Trailers, but for those that are none.
pub(super) fn put_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        if !is_no_trailer(name) {
            put_header(out, name, value);
        }
    }
}

fn put_header(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, headers: &HeaderMap, length: Option<Length>) {
    match length {
        Some(Length::Chunked) if !headers.contains_key(TRANSFER_ENCODING) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Some(Length::Exact(length)) if !headers.contains_key(CONTENT_LENGTH) => {
            out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        _ => {}
    }
}

/// How a body goes out, of which this is said: what its head says already counts.
pub(super) fn length_to_send(headers: &HeaderMap, exact: Option<u64>) -> Result<Length, Malformed> {
    Ok(match (content_length(headers)?, exact) {
        (Some(length), _) | (None, Some(length)) => Length::Exact(length),
        (None, None) => Length::Chunked,
    })
}

/// Reads a head of either kind.
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(Some(end)) = end_of_head(data, 0) else {
        return;
    };
    let head = Bytes::copy_from_slice(data.get(..end).unwrap_or_default());
    if let Ok(read) = request(&head, FEW) {
        // What is written is read again as the same.
        let mut out = Vec::new();
        put_request(&mut out, &read.parts, Some(read.length));
        let again = request(&Bytes::from(out), FEW + 1);
        assert_eq!(again.map(|it| it.length), Ok(read.length), "{head:?}");
    }
    let _ = response(&head, FEW, &Method::GET);
}

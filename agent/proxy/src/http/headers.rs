//! Which headers go on to the next hop, and which are this hop's alone.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, MAX_FORWARDS, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Version};
use mesh_policy::HeaderLookup;

use super::reply::{DENIED, ERROR, SOURCE};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// How the names begin that are the mesh's own.
const MESH: &str = "x-mesh-";
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Makes the headers of a request fit to go on: what is this hop's goes (RFC
/// 9110, 7.6.1), and so does what only the mesh may say. Gives back what the
/// request wants to be upgraded to; only with that may it be sent on as an
/// upgrade.
pub(crate) fn clean_request(headers: &mut HeaderMap, version: Version) -> Option<HeaderValue> {
    if !headers.keys().any(|name| is_hop(name) || is_claim(name)) {
        return None; // mostly, and then one look is all
    }
    let upgrade = upgrade_of(headers, version);
    // Of TE only this may go on (RFC 9113, 8.2.2), and gRPC needs it.
    let trailers = wants_trailers(headers);
    clean_hop(headers);
    headers.remove(TE);
    headers.remove(HTTP2_SETTINGS);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let claims = headers.keys().filter(|name| is_claim(name));
    for name in claims.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    upgrade
}

/// The same for an answer. What a request was upgraded to is kept by the caller.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    if headers.keys().any(is_hop) {
        clean_hop(headers);
    }
}

/// Whether it is, or may be, a hop's alone.
fn is_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether it says who calls, which only the mesh may.
fn is_claim(name: &HeaderName) -> bool {
    reads_as(name, &SOURCE) || reads_as(name, &CLIENT_CERT)
}

/// Makes trailers fit to go on: what only the mesh may say is no trailer, and
/// neither is what would mean something else than what was read before it.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            let start = name.as_str().get(..MESH.len());
            start.is_some_and(|start| start.replace('_', "-") == MESH)
                || reads_as(name, &CLIENT_CERT)
                || is_no_trailer(name)
        })
        .cloned()
        .collect();
    for name in ours {
        trailers.remove(name);
    }
}

/// What says how a message is read, whom it is for, who sends it or what is
/// done with it stands before its body (RFC 9110, 6.5.1). HTTP/2 breaks off at
/// what is a connection's.
pub(crate) fn is_no_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 22] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        HTTP2_SETTINGS,
        KEEP_ALIVE,
        MAX_FORWARDS,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PROXY_CONNECTION,
        RANGE,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    NEVER.contains(name)
}

/// Whether an application that is called by CGI's rules (RFC 3875, 4.1.18), as
/// those of WSGI and PHP are, finds both under one name.
fn reads_as(name: &HeaderName, other: &HeaderName) -> bool {
    let (name, other) = (name.as_str().as_bytes(), other.as_str().as_bytes());
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    name.len() == other.len()
        && name.first() == other.first()
        && name.iter().map(fold).eq(other.iter().map(fold))
}

/// What says `x-mesh-…` came from a sidecar only if a sidecar wrote it.
pub(crate) fn clean_application(headers: &mut HeaderMap) {
    let is_ours = |name: &HeaderName| matches!(name.as_str(), "x-mesh-denied" | "x-mesh-error");
    if headers.keys().any(is_ours) {
        headers.remove(DENIED);
        headers.remove(ERROR);
    }
}

fn clean_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            // These say what the message is; no connection option may hide it.
            if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                headers.remove(name);
            }
        }
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH); // RFC 9112, 6.3: it did not count
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(UPGRADE);
}

/// Whether a request of HTTP/1.1 asks for an upgrade that can be carried.
pub(crate) fn wants_upgrade(headers: &HeaderMap, version: Version) -> bool {
    upgrade_of(headers, version).is_some()
}

fn upgrade_of(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let asked = version == Version::HTTP_11
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    if !asked {
        return None;
    }
    let mut protocols = Vec::new();
    for value in headers.get_all(UPGRADE) {
        let names = value.to_str().ok()?.split(',').map(str::trim);
        protocols.extend(names.filter(|name| !name.is_empty()));
    }
    // h2c asks for what this hop does by itself, and what would follow on it
    // nobody would look at.
    let is_h2c = |name: &&str| {
        let name = name.split('/').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("h2c")
    };
    if protocols.is_empty() || protocols.iter().any(is_h2c) {
        return None;
    }
    HeaderValue::from_str(&protocols.join(", ")).ok()
}

/// Whether trailers are of use to who sent these.
pub(crate) fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether it is gRPC, which wants errors in its own form.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A request's headers, for matchers.
pub(crate) struct Lookup<'a>(pub(crate) &'a HeaderMap);

impl HeaderLookup for Lookup<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.0.get_all(name).iter();
        let first = text(values.next()?);
        let joined = values.fold(first, |mut joined, next| {
            let whole = joined.to_mut();
            whole.push(',');
            whole.push_str(&text(next));
            joined
        });
        Some(joined)
    }
}

/// Bytes that are not UTF-8 become U+FFFD: they are equal to nothing that can
/// be written in a rule, and are still there.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_this_hop_goes() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Hop"),
            ("connection", "x-other, host, content-length"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("te", "gzip, trailers"),
            ("x-mesh-source", "spiffe://forged"),
            ("x-forwarded-client-cert", "forged"),
            ("x_mesh_source", "forged"),
            ("x-mesh_source", "forged"),
            ("x_forwarded-client_cert", "forged"),
            ("accept", "*/*"),
        ]);
        assert_eq!(clean_request(&mut map, Version::HTTP_11), None);
        assert_eq!(names(&map), ["accept", "content-length", "host", "te"]);
        assert_eq!(map["te"], "trailers");
    }

    #[test]
    fn a_length_beside_chunks_does_not_count() {
        let mut map = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        clean_request(&mut map, Version::HTTP_11);
        assert!(map.is_empty());
        let mut map = headers(&[
            ("connection", "Transfer-Encoding"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
        ]);
        clean_response(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn an_option_that_is_no_text_hides_no_other() {
        let mut map = headers(&[("x-hop", "1")]);
        let odd = HeaderValue::from_bytes(b"x-hop, \xff").unwrap();
        map.insert("connection", odd);
        clean_response(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn what_is_no_trailer() {
        let mut map = headers(&[
            ("connection", "x"),
            ("te", "x"),
            ("cookie", "x"),
            ("content-length", "3"),
            ("x-mesh-source", "forged"),
            ("x_mesh_source", "forged"),
            ("grpc-status", "0"),
            ("x-checksum", "1"),
        ]);
        clean_trailers(&mut map);
        assert_eq!(names(&map), ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn upgrades() {
        let asks = |connection, upgrade, version| {
            let map = headers(&[("connection", connection), ("upgrade", upgrade)]);
            wants_upgrade(&map, version)
        };
        assert!(asks("keep-alive, Upgrade", "websocket", Version::HTTP_11));
        assert!(!asks("keep-alive", "websocket", Version::HTTP_11));
        for h2c in [
            "h2c",
            "h2c, foo",
            "foo,H2C",
            "h2c/1",
            "foo, h2c /1",
            ",",
            "",
        ] {
            assert!(!asks("upgrade", h2c, Version::HTTP_11), "{h2c}");
        }
        let mut map = headers(&[("connection", "upgrade"), ("upgrade", "a ,b")]);
        map.append("upgrade", HeaderValue::from_static("c"));
        assert_eq!(upgrade_of(&map, Version::HTTP_11).unwrap(), "a, b, c");
        map.append("upgrade", HeaderValue::from_static("h2c"));
        assert_eq!(upgrade_of(&map, Version::HTTP_11), None);
        assert!(!asks("upgrade", "websocket", Version::HTTP_2));
    }

    #[test]
    fn lookup_joins() {
        let mut map = headers(&[("x-a", "1"), ("x-a", "2")]);
        map.insert("x-b", HeaderValue::from_bytes(b"\xff").unwrap());
        let lookup = Lookup(&map);
        assert_eq!(lookup.header("x-a").unwrap(), "1,2");
        assert_eq!(lookup.header("x-b").unwrap(), "\u{fffd}");
        assert_eq!(lookup.header("x-c"), None);
    }
}

//! Which headers go on to the next hop, and which are this hop's alone.

use std::borrow::Cow;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Version};
use mesh_policy::HeaderLookup;

use super::reply::{DENIED, ERROR, SOURCE};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Makes the headers of a request fit to go on: what is this hop's goes (RFC
/// 9110, 7.6.1), and so does what only the mesh may say. Gives back what the
/// request wants to be upgraded to; only with that may it be sent on as an
/// upgrade.
pub(crate) fn clean_request(headers: &mut HeaderMap, version: Version) -> Option<HeaderValue> {
    let upgrade = upgrade_of(headers, version);
    // Of TE only this may go on (RFC 9113, 8.2.2), and gRPC needs it.
    let trailers = wants_trailers(headers);
    clean_hop(headers);
    headers.remove(TE);
    headers.remove(HTTP2_SETTINGS);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(SOURCE);
    headers.remove(CLIENT_CERT);
    upgrade
}

/// The same for an answer. What a request was upgraded to is kept by the caller.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    clean_hop(headers);
}

/// What says `x-mesh-…` came from a sidecar only if a sidecar wrote it.
pub(crate) fn clean_application(headers: &mut HeaderMap) {
    headers.remove(DENIED);
    headers.remove(ERROR);
}

fn clean_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            // These say what the message is; no connection option may hide it.
            if name != HOST && name != CONTENT_LENGTH {
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
    let value = headers.get(UPGRADE)?;
    let asked = version == Version::HTTP_11
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    // h2c asks for what this hop does by itself.
    (asked && !value.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| value.clone())
}

fn wants_trailers(headers: &HeaderMap) -> bool {
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
    }

    #[test]
    fn upgrades() {
        let asks = |connection, upgrade, version| {
            let map = headers(&[("connection", connection), ("upgrade", upgrade)]);
            wants_upgrade(&map, version)
        };
        assert!(asks("keep-alive, Upgrade", "websocket", Version::HTTP_11));
        assert!(!asks("keep-alive", "websocket", Version::HTTP_11));
        assert!(!asks("upgrade", "h2c", Version::HTTP_11));
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

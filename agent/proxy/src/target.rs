//! What a request asks for, in its one form.
//!
//! The path is normalised before anything looks at it, and the normal form is
//! what goes on: to the other sidecar, which decides on it, and to the
//! application. Were the original forwarded, each of them would have to read
//! it in the same way, and the application does as it likes. What cannot be
//! normalised is answered with 400. The query goes on as it came.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use http::header::{COOKIE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, StatusCode, Uri, Version, request};
use mesh_model::{Key, normalize_path};

use crate::http::Trouble;

/// The normal form of what a request asks for.
pub(crate) fn normal(head: &request::Parts) -> Result<PathAndQuery, Trouble> {
    if head.method == Method::CONNECT {
        return Err(Trouble::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is not carried; for other bytes than HTTP the service's protocol is tcp",
        ));
    }
    let Some(given) = head.uri.path_and_query() else {
        return Err(Trouble::bad_request("the request has no path"));
    };
    if head.method == Method::OPTIONS && given == "*" {
        return Ok(given.clone());
    }
    let path = normalize_path(given.path())
        .map_err(|error| Trouble::bad_request(format!("{error}; it was not forwarded")))?;
    // One may begin with its query (`http://host?x`); its path is `/` all the same.
    if given.as_str().starts_with('/') && path == given.path() {
        return Ok(given.clone());
    }
    let whole = match given.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    PathAndQuery::from_maybe_shared(Bytes::from(whole))
        .map_err(|error| Trouble::bad_request(format!("path: {error}")))
}

/// Whom a request is for: of a whole URI (or `:authority`), else `host`. The
/// header then says the same, whatever was in it: rules look at it, and it is
/// what the application gets.
///
/// A host that is none is refused, as RFC 9112, 3.2 wants it: each that reads it
/// may take it for another. An empty one says that there is no name.
pub(crate) fn authority(head: &mut request::Parts) -> Result<Option<Authority>, Trouble> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    if host.is_none() && head.version == Version::HTTP_11 {
        let what = "the request has no host header, which HTTP/1.1 needs";
        return Err(Trouble::bad_request(what));
    }
    let named = match host {
        Some(host) if !host.is_empty() => Some(named(host)?),
        _ => None,
    };
    if let Some(authority) = head.uri.authority().cloned() {
        if host.is_some() && named.is_none() {
            let what = "the request's target names a host, and its host header is empty";
            return Err(Trouble::bad_request(what));
        }
        without_user(&authority)?;
        if let Some(host) = host_of(&authority) {
            head.headers.insert(HOST, host);
        }
        return Ok(Some(authority));
    }
    if let Some(host) = host.filter(|_| more).cloned() {
        head.headers.insert(HOST, host);
    }
    Ok(named)
}

/// Hosts of a thread that are known by heart, and how long they may be.
const BY_HEART: usize = 8;
const SHORT: usize = 128;

thread_local! {
    /// An application asks for the same few again and again.
    static NAMED: RefCell<[Option<Authority>; BY_HEART]> = const { RefCell::new([const { None }; BY_HEART]) };
    /// The last host, as a header: mostly the next is the same.
    static LAST: RefCell<Option<HeaderValue>> = const { RefCell::new(None) };
}

fn host_of(authority: &Authority) -> Option<HeaderValue> {
    let text = authority.as_str();
    LAST.with_borrow_mut(|last| {
        if last.as_ref().is_none_or(|last| last != text) {
            *last = HeaderValue::from_str(text).ok();
        }
        last.clone()
    })
}

fn named(host: &HeaderValue) -> Result<Authority, Trouble> {
    let bytes = host.as_bytes();
    let at = bytes
        .iter()
        .rev()
        .take(8)
        .fold(bytes.len(), |sum, byte| sum + usize::from(*byte));
    NAMED.with_borrow_mut(|all| {
        let known = all.get_mut(at % BY_HEART);
        if let Some(Some(known)) = &known
            && known.as_str().as_bytes() == bytes
        {
            return Ok(known.clone());
        }
        let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(bytes))
            .map_err(|error| Trouble::bad_request(format!("the request's host header: {error}")))?;
        without_user(&authority)?;
        if let Some(known) = known.filter(|_| bytes.len() <= SHORT) {
            *known = Some(authority.clone());
        }
        Ok(authority)
    })
}

fn without_user(authority: &Authority) -> Result<(), Trouble> {
    match authority.as_str().contains('@') {
        true => Err(Trouble::bad_request(
            "the request's host has a user before it, which no host may have",
        )),
        false => Ok(()),
    }
}

/// Makes a head one of HTTP/2: a whole URI and no `host`.
pub(crate) fn for_http2(
    head: &mut request::Parts,
    path: PathAndQuery,
    authority: Option<Authority>,
    service: &Key,
) {
    head.headers.remove(HOST);
    let authority = authority
        .or_else(|| Authority::try_from(service.name.as_str()).ok())
        .unwrap_or_else(|| Authority::from_static("localhost"));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    head.uri = Uri::from_parts(parts).unwrap_or_default(); // it has all three
}

/// Makes a head one of HTTP/1.1: a path, `host` (if nobody named one, whom it
/// goes to), and the cookies in one line (RFC 9113, 8.2.3).
pub(crate) fn for_http1(
    head: &mut request::Parts,
    path: PathAndQuery,
    authority: Option<Authority>,
    to: &impl fmt::Display,
) {
    head.uri = Uri::from(path);
    if !head.headers.contains_key(HOST) {
        let host = match authority {
            Some(authority) => HeaderValue::from_str(authority.as_str()),
            None => HeaderValue::from_str(&to.to_string()),
        };
        if let Ok(host) = host {
            head.headers.insert(HOST, host);
        }
    }
    let mut cookies = head.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut all = [first.as_bytes(), second.as_bytes()].join(&b"; "[..]);
        for more in cookies {
            all.extend_from_slice(b"; ");
            all.extend_from_slice(more.as_bytes());
        }
        if let Ok(all) = HeaderValue::from_maybe_shared(Bytes::from(all)) {
            head.headers.insert(COOKIE, all);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(method: &str, uri: &str) -> request::Parts {
        let request = http::Request::builder().method(method).uri(uri).body(());
        request.unwrap().into_parts().0
    }

    #[test]
    fn normal_forms() {
        for (given, expected) in [
            ("/a/b?x=1", "/a/b?x=1"),
            ("/public/../admin?x=%2e", "/admin?x=%2e"),
            ("/public/%2e%2e/admin", "/admin"),
            ("//admin//x", "/admin/x"),
            ("http://host/a/./b", "/a/b"),
            ("http://host", "/"),
            ("http://host?x=1", "/?x=1"),
            ("http://host?", "/?"),
        ] {
            assert_eq!(normal(&head("GET", given)).unwrap(), expected);
        }
        assert_eq!(normal(&head("OPTIONS", "*")).unwrap(), "*");
        for (method, given) in [
            ("GET", "/a%2fb"),
            ("GET", "/a%00"),
            ("GET", "*"),
            ("CONNECT", "h:1"),
        ] {
            assert!(normal(&head(method, given)).is_err(), "{given}");
        }
    }

    #[test]
    fn one_host() {
        let mut one = head("GET", "http://right/");
        one.headers.append(HOST, HeaderValue::from_static("wrong"));
        assert_eq!(authority(&mut one).unwrap().unwrap(), "right");
        assert_eq!(one.headers[HOST], "right");
        let mut two = head("GET", "/");
        two.headers.append(HOST, HeaderValue::from_static("first"));
        two.headers.append(HOST, HeaderValue::from_static("second"));
        assert_eq!(authority(&mut two).unwrap().unwrap(), "first");
        assert_eq!(two.headers.get_all(HOST).iter().count(), 1);
    }

    #[test]
    fn hosts_that_are_none() {
        let read = |uri: &str, host: Option<&'static str>, version| {
            let mut head = head("GET", uri);
            head.version = version;
            if let Some(host) = host {
                head.headers.insert(HOST, HeaderValue::from_static(host));
            }
            authority(&mut head).map(|it| it.map(|it| it.to_string()))
        };
        let v11 = Version::HTTP_11;
        assert_eq!(read("/", Some(""), v11), Ok(None));
        assert_eq!(read("/", None, Version::HTTP_10), Ok(None));
        let given = Ok(Some("[::1]:80".to_owned()));
        assert_eq!(read("/", Some("[::1]:80"), v11), given);
        for (uri, host) in [
            ("/", None),
            ("http://a/", None),
            ("http://a/", Some("")),
            ("http://a/", Some("a b")),
            ("http://me@a/", Some("a")),
            ("/", Some("a/b")),
            ("/", Some("me@a")),
            ("/", Some("a, b")),
        ] {
            assert!(read(uri, host, v11).is_err(), "{uri} {host:?}");
        }
    }

    #[test]
    fn cookies_are_one_and_a_host_is_there() {
        let mut one = head("GET", "/");
        for crumb in ["a=1", "b=2", "c=3"] {
            let crumb = HeaderValue::from_static(crumb);
            one.headers.append(COOKIE, crumb);
        }
        let path = PathAndQuery::from_static("/");
        for_http1(&mut one, path, None, &"127.0.0.1:80");
        assert_eq!(one.headers[COOKIE], "a=1; b=2; c=3");
        assert_eq!(one.headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(one.headers[HOST], "127.0.0.1:80");
    }

    #[test]
    fn forms_for_each_version() {
        let mut one = head("GET", "/a");
        one.headers.insert(HOST, HeaderValue::from_static("web:80"));
        let authority = authority(&mut one).unwrap();
        for_http2(
            &mut one,
            PathAndQuery::from_static("/b?c"),
            authority.clone(),
            &Key::of("x"),
        );
        assert_eq!(one.uri.to_string(), "http://web:80/b?c");
        assert!(one.headers.is_empty());
        let path = PathAndQuery::from_static("/b?c");
        for_http1(&mut one, path, authority, &"other");
        assert_eq!(one.uri.to_string(), "/b?c");
        assert_eq!(one.headers[HOST], "web:80");
        for_http2(
            &mut one,
            PathAndQuery::from_static("/"),
            None,
            &Key::of("x"),
        );
        assert_eq!(one.uri.to_string(), "http://x/");
    }
}

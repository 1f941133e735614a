//! The static table (RFC 7541, appendix A).

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, StatusCode};

use super::field::{Field, Name};

/// Entries of it.
pub(crate) const COUNT: usize = 61;

/// What stands at each place from 1 on, but for the pseudo-headers before.
static HEADERS: [HeaderName; 47] = [
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ACCEPT,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    header::REFRESH,
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

/// The place of the first of [`HEADERS`].
const FIRST_HEADER: usize = 15;

/// What stands at a place.
pub(crate) fn field(index: usize) -> Option<Field> {
    Some(match index {
        // An empty name is no authority; by its name only it can be used.
        1 => Field::Bad(":authority".len()),
        2 => Field::Method(Method::GET),
        3 => Field::Method(Method::POST),
        4 => Field::Path(PathAndQuery::from_static("/")),
        5 => Field::Path(PathAndQuery::from_static("/index.html")),
        6 => Field::Scheme(Scheme::HTTP),
        7 => Field::Scheme(Scheme::HTTPS),
        8 => Field::Status(StatusCode::OK),
        9 => Field::Status(StatusCode::NO_CONTENT),
        10 => Field::Status(StatusCode::PARTIAL_CONTENT),
        11 => Field::Status(StatusCode::NOT_MODIFIED),
        12 => Field::Status(StatusCode::BAD_REQUEST),
        13 => Field::Status(StatusCode::NOT_FOUND),
        14 => Field::Status(StatusCode::INTERNAL_SERVER_ERROR),
        16 => Field::Header(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, deflate"),
        ),
        _ => {
            let name = HEADERS.get(index.checked_sub(FIRST_HEADER)?)?;
            Field::Header(name.clone(), HeaderValue::from_static(""))
        }
    })
}

/// The name at a place.
pub(crate) fn name(index: usize) -> Option<Name> {
    Some(match index {
        1 => Name::Authority,
        2 | 3 => Name::Method,
        4 | 5 => Name::Path,
        6 | 7 => Name::Scheme,
        8..=14 => Name::Status,
        _ => Name::Header(HEADERS.get(index.checked_sub(FIRST_HEADER)?)?.clone()),
    })
}

/// The place of a name, and 0 if there is none.
#[allow(clippy::match_same_arms)] // one line a length
pub(crate) fn index_of(name: &str) -> usize {
    match name.len() {
        3 => match name {
            "age" => 21,
            "via" => 60,
            _ => 0,
        },
        4 => match name {
            "date" => 33,
            "etag" => 34,
            "from" => 37,
            "host" => 38,
            "link" => 45,
            "vary" => 59,
            _ => 0,
        },
        5 => match name {
            "allow" => 22,
            "range" => 50,
            _ => 0,
        },
        6 => match name {
            "accept" => 19,
            "cookie" => 32,
            "expect" => 35,
            "server" => 54,
            _ => 0,
        },
        7 => match name {
            "expires" => 36,
            "referer" => 51,
            "refresh" => 52,
            _ => 0,
        },
        8 => match name {
            "if-match" => 39,
            "if-range" => 42,
            "location" => 46,
            _ => 0,
        },
        10 => match name {
            "set-cookie" => 55,
            "user-agent" => 58,
            _ => 0,
        },
        11 if name == "retry-after" => 53,
        12 if name == "content-type" => 31,
        12 if name == "max-forwards" => 47,
        13 => match name {
            "accept-ranges" => 18,
            "authorization" => 23,
            "cache-control" => 24,
            "content-range" => 30,
            "if-none-match" => 41,
            "last-modified" => 44,
            _ => 0,
        },
        14 if name == "accept-charset" => 15,
        14 if name == "content-length" => 28,
        15 if name == "accept-encoding" => 16,
        15 if name == "accept-language" => 17,
        16 => match name {
            "content-encoding" => 26,
            "content-language" => 27,
            "content-location" => 29,
            "www-authenticate" => 61,
            _ => 0,
        },
        17 if name == "if-modified-since" => 40,
        17 if name == "transfer-encoding" => 57,
        18 if name == "proxy-authenticate" => 48,
        19 => match name {
            "content-disposition" => 25,
            "if-unmodified-since" => 43,
            "proxy-authorization" => 49,
            _ => 0,
        },
        25 if name == "strict-transport-security" => 56,
        27 if name == "access-control-allow-origin" => 20,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_has_its_place() {
        for index in FIRST_HEADER..=COUNT {
            let Some(Name::Header(name)) = name(index) else {
                panic!("{index}")
            };
            assert_eq!(index_of(name.as_str()), index);
            assert!(field(index).is_some());
        }
        assert_eq!(index_of("x-other"), 0);
        assert!(field(0).is_none() && field(COUNT + 1).is_none());
        assert!(name(0).is_none() && name(COUNT + 1).is_none());
    }
}

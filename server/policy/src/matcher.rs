//! Whether a request is one of those that a `match` or a permission means.
//!
//! Compiled once, when a config comes; on a request's path nothing is
//! allocated unless a condition looks at a header that stands several times or
//! at an escaped parameter.

use std::borrow::Cow;

use mesh_model::{PathMatch, RequestMatch, StringMatch};
use regex::Regex;

/// The headers of a request.
pub trait HeaderLookup {
    /// The value of the header `name` (lower case); several are joined by `,`.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl HeaderLookup for [(String, String)] {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, next| {
            Cow::Owned(format!("{joined},{next}"))
        }))
    }
}

/// What is known of a request.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path, normalised, without the query.
    pub path: &'a str,
    /// The query without its `?`; empty when there is none.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a dyn HeaderLookup,
}

/// A compiled [`RequestMatch`].
#[derive(Clone, Debug)]
pub struct RequestMatcher {
    path: Option<Text>,
    methods: Vec<String>,
    headers: Vec<Condition>,
    query: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    name: String,
    value: Text,
    invert: bool,
}

#[derive(Clone, Debug)]
enum Text {
    Present,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

const REGEX_SIZE: usize = 256 * 1024;

impl RequestMatcher {
    /// Compiles it; the error is the regular expression's.
    pub fn compile(request: &RequestMatch) -> Result<Self, String> {
        let path = match &request.path {
            None => None,
            Some(PathMatch::Exact(path)) => Some(Text::Exact(path.clone())),
            Some(PathMatch::Prefix(path)) => Some(Text::Prefix(path.clone())),
            Some(PathMatch::Regex(path)) => Some(Text::Regex(whole(path)?)),
        };
        let condition = |name: &str, value: &StringMatch, invert| {
            Ok::<_, String>(Condition {
                name: name.to_owned(),
                value: Text::compile(value)?,
                invert,
            })
        };
        Ok(Self {
            path,
            methods: request.methods.clone(),
            headers: request
                .headers
                .iter()
                .map(|one| condition(&one.name, &one.value, one.invert))
                .collect::<Result<_, _>>()?,
            query: request
                .query
                .iter()
                .map(|one| condition(&one.name, &one.value, one.invert))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether everything in it holds.
    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.path
            .as_ref()
            .is_none_or(|path| path.holds(request.path))
            && (self.methods.is_empty() || self.methods.iter().any(|one| one == request.method))
            && self.headers.iter().all(|one| one.header(request))
            && self.query.iter().all(|one| one.parameter(request))
    }
}

impl Condition {
    fn header(&self, request: &RequestFacts<'_>) -> bool {
        let holds = request
            .headers
            .header(&self.name)
            .is_some_and(|value| self.value.holds(&value));
        holds != self.invert
    }

    fn parameter(&self, request: &RequestFacts<'_>) -> bool {
        let holds = request.query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !pair.is_empty() && decoded(name) == self.name && self.value.holds(&decoded(value))
        });
        holds != self.invert
    }
}

impl Text {
    fn compile(value: &StringMatch) -> Result<Self, String> {
        Ok(match value {
            StringMatch::Present => Self::Present,
            StringMatch::Exact(text) => Self::Exact(text.clone()),
            StringMatch::Prefix(text) => Self::Prefix(text.clone()),
            StringMatch::Suffix(text) => Self::Suffix(text.clone()),
            StringMatch::Contains(text) => Self::Contains(text.clone()),
            StringMatch::Regex(text) => Self::Regex(whole(text)?),
        })
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(one) => text == one,
            Self::Prefix(one) => text.starts_with(one.as_str()),
            Self::Suffix(one) => text.ends_with(one.as_str()),
            Self::Contains(one) => text.contains(one.as_str()),
            Self::Regex(one) => one.is_match(text),
        }
    }
}

/// A regular expression for the whole text. The regex crate runs in linear
/// time; the limit keeps a large one from filling memory.
fn whole(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| error.to_string())
}

/// `+` and percent-escapes of a query (WHATWG URL, 5.1) undone.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(
        form: &str,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> bool {
        let request: RequestMatch = serde_json::from_str(form).unwrap();
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        RequestMatcher::compile(&request)
            .unwrap()
            .matches(&RequestFacts {
                method,
                path,
                query,
                headers: &headers,
            })
    }

    #[test]
    fn paths_and_methods() {
        assert!(matches("{}", "GET", "/", "", &[]));
        let form = r#"{"path_prefix":"/v1/","methods":["GET"]}"#;
        assert!(matches(form, "GET", "/v1/x", "", &[]));
        assert!(!matches(form, "POST", "/v1/x", "", &[]));
        assert!(!matches(form, "GET", "/v1", "", &[]));
        assert!(matches(r#"{"path_exact":"/a"}"#, "GET", "/a", "", &[]));
        assert!(!matches(r#"{"path_exact":"/a"}"#, "GET", "/a/", "", &[]));
        let form = r#"{"path_regex":"/u/[0-9]+"}"#;
        assert!(matches(form, "GET", "/u/12", "", &[]));
        assert!(!matches(form, "GET", "/u/12/x", "", &[]));
        assert!(!matches(form, "GET", "/x/u/12", "", &[]));
        // An alternative must not escape the anchors.
        assert!(!matches(r#"{"path_regex":"/a|/b"}"#, "GET", "/bc", "", &[]));
    }

    #[test]
    fn headers() {
        let form = r#"{"headers":[{"name":"x-v","exact":"a,b"}]}"#;
        assert!(matches(form, "GET", "/", "", &[("X-V", "a"), ("x-v", "b")]));
        let absent = r#"{"headers":[{"name":"x-v","present":true,"invert":true}]}"#;
        assert!(matches(absent, "GET", "/", "", &[]));
        assert!(!matches(absent, "GET", "/", "", &[("x-v", "")]));
    }

    #[test]
    fn query() {
        let form = r#"{"query":[{"name":"a b","exact":"1+1"}]}"#;
        assert!(matches(form, "GET", "/", "z&a%20b=0&a+b=1%2b1", &[]));
        assert!(!matches(form, "GET", "/", "a+b=1+1", &[]));
        let present = r#"{"query":[{"name":"debug","present":true}]}"#;
        assert!(matches(present, "GET", "/", "debug", &[]));
        assert!(!matches(present, "GET", "/", "debugger=1", &[]));
        assert!(!matches(present, "GET", "/", "", &[]));
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,60}") {
            let _ = decoded(&text);
        }
    }
}

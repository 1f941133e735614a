//! What a request is matched by: the words of a route's `match` and of an
//! intention's `permission` are the same.

use serde::{Deserialize, Serialize};

use crate::{PathError, is_default, normalize_path};

/// Everything in it must hold. An empty one matches every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MatchForm", into = "MatchForm")]
pub struct RequestMatch {
    /// The path, normalised, without the query.
    pub path: Option<PathMatch>,
    /// One of these methods, upper case; empty: any.
    pub methods: Vec<String>,
    /// Every one of these holds.
    pub headers: Vec<HeaderMatch>,
    /// Every one of these holds.
    pub query: Vec<QueryMatch>,
}

/// What the path must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Exactly this.
    Exact(String),
    /// It begins with these characters (`/v1` covers `/v10`, as Consul's and
    /// Envoy's prefixes do; write `/v1/` for the folder).
    Prefix(String),
    /// The whole path matches this regular expression.
    Regex(String),
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// It is there, whatever it is.
    Present,
    /// Exactly this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// It ends with this.
    Suffix(String),
    /// This is in it.
    Contains(String),
    /// The whole of it matches this regular expression.
    Regex(String),
}

/// A condition on a header. A header that stands several times is one value,
/// joined by `,` (RFC 9110, 5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StringForm", into = "StringForm")]
pub struct HeaderMatch {
    /// The header's name, lower case.
    pub name: String,
    /// What its value must be.
    pub value: StringMatch,
    /// The condition is turned around. An absent header then matches.
    pub invert: bool,
}

/// A condition on a parameter of the query. One of its values must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StringForm", into = "StringForm")]
pub struct QueryMatch {
    /// The parameter's name.
    pub name: String,
    /// What its value must be.
    pub value: StringMatch,
    /// The condition is turned around. An absent parameter then matches.
    pub invert: bool,
}

/// Why a condition was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// Two of `path_exact`, `path_prefix`, `path_regex`.
    #[error("has {0}; write one of path_exact, path_prefix and path_regex")]
    SeveralPaths(String),
    /// A path that no request can have.
    #[error("path `{0}` does not begin with `/`")]
    RelativePath(String),
    /// A path that normalising would change, so that it could never match.
    #[error("path `{0}` can never match, since paths are normalised first; write it as `{1}`")]
    NotNormal(String, String),
    /// A path that is refused before anything is matched.
    #[error("path `{0}` can never match: {1}")]
    Path(String, PathError),
    /// A regular expression that cannot be compiled.
    #[error("regular expression `{0}`: {1}")]
    Regex(String, String),
    /// None or several of `present`, `exact`, …
    #[error(
        "`{0}` has {1} conditions; write exactly one of present, exact, prefix, suffix, contains and regex"
    )]
    Conditions(String, usize),
    /// `present = false`.
    #[error("`{0}` has present = false; write present = true and invert = true")]
    NotPresent(String),
    /// A header name with characters that none can have.
    #[error("`{0}` is not a header's name; use letters, digits and `-`")]
    HeaderName(String),
    /// A method that HTTP does not have.
    #[error("method `{0}` is not known; use one of {known}", known = METHODS.join(", "))]
    Method(String),
}

/// The methods of RFC 9110 and PATCH.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE",
];

/// Largest compiled regular expression, in bytes: keeps a hostile one from
/// filling memory. (The regex crate runs in linear time.)
pub(crate) const REGEX_SIZE: usize = 256 * 1024;

/// Checks method names and turns them to upper case.
pub fn parse_methods(methods: Vec<String>) -> Result<Vec<String>, MatchError> {
    methods
        .into_iter()
        .map(|method| {
            let upper = method.to_ascii_uppercase();
            match METHODS.contains(&upper.as_str()) {
                true => Ok(upper),
                false => Err(MatchError::Method(method)),
            }
        })
        .collect()
}

impl PathMatch {
    /// Checks that a normalised path can match.
    pub fn check(&self) -> Result<(), MatchError> {
        match self.clone() {
            Self::Exact(path) => normal(path, "").map(drop),
            Self::Prefix(path) => normal(path, "x").map(drop),
            Self::Regex(regex) => compiles(regex).map(drop),
        }
    }

    /// The condition of the three keys that a user may write.
    pub fn from_keys(
        exact: Option<String>,
        prefix: Option<String>,
        regex: Option<String>,
    ) -> Result<Option<Self>, MatchError> {
        let given: Vec<&str> = [
            exact.as_ref().map(|_| "path_exact"),
            prefix.as_ref().map(|_| "path_prefix"),
            regex.as_ref().map(|_| "path_regex"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if given.len() > 1 {
            return Err(MatchError::SeveralPaths(given.join(" and ")));
        }
        Ok(match (exact, prefix, regex) {
            (Some(path), _, _) => Some(Self::Exact(normal(path, "")?)),
            (_, Some(path), _) => Some(Self::Prefix(normal(path, "x")?)),
            (_, _, Some(path)) => Some(Self::Regex(compiles(path)?)),
            _ => None,
        })
    }
}

/// Takes a path that a normalised path can be, or can go on from with `next`:
/// `/.` is a prefix of `/.well-known`, though `/.` itself is never seen.
fn normal(path: String, next: &str) -> Result<String, MatchError> {
    if !path.starts_with('/') {
        return Err(MatchError::RelativePath(path));
    }
    let whole = format!("{path}{next}");
    match normalize_path(&whole) {
        Ok(normal) if normal == whole => Ok(path),
        Ok(normal) => {
            let normal = normal.strip_suffix(next).unwrap_or(&normal).to_owned();
            Err(MatchError::NotNormal(path, normal))
        }
        Err(error) => Err(MatchError::Path(path, error)),
    }
}

fn compiles(text: String) -> Result<String, MatchError> {
    let built = regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(REGEX_SIZE)
        .build();
    match built {
        Ok(_) => Ok(text),
        Err(error) => {
            let said = error.to_string();
            let last = said.lines().last().unwrap_or_default();
            let reason = last.trim().trim_start_matches("error: ").to_owned();
            Err(MatchError::Regex(text, reason))
        }
    }
}

impl StringMatch {
    /// The condition of the keys that a user may write under `name`.
    #[allow(clippy::too_many_arguments)] // one for each key
    pub fn from_keys(
        name: &str,
        present: Option<bool>,
        exact: Option<String>,
        prefix: Option<String>,
        suffix: Option<String>,
        contains: Option<String>,
        regex: Option<String>,
    ) -> Result<Self, MatchError> {
        if present == Some(false) {
            return Err(MatchError::NotPresent(name.to_owned()));
        }
        let regex = regex.map(compiles).transpose()?;
        let mut given = [
            present.map(|_| Self::Present),
            exact.map(Self::Exact),
            prefix.map(Self::Prefix),
            suffix.map(Self::Suffix),
            contains.map(Self::Contains),
            regex.map(Self::Regex),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.count()) {
            (Some(one), 0) => Ok(one),
            (first, more) => Err(MatchError::Conditions(
                name.to_owned(),
                more + usize::from(first.is_some()),
            )),
        }
    }
}

impl HeaderMatch {
    /// A condition on the header `name`, which is checked and lower-cased.
    pub fn new(name: &str, value: StringMatch, invert: bool) -> Result<Self, MatchError> {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || name.len() > 256 || !name.chars().all(token) {
            return Err(MatchError::HeaderName(name.chars().take(64).collect()));
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            value,
            invert,
        })
    }
}

/// [`RequestMatch`] as it is written: flat keys, as in HCL.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchForm {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) path_exact: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) path_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) path_regex: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) methods: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) headers: Vec<HeaderMatch>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) query: Vec<QueryMatch>,
}

impl TryFrom<MatchForm> for RequestMatch {
    type Error = MatchError;

    fn try_from(form: MatchForm) -> Result<Self, MatchError> {
        Ok(Self {
            path: PathMatch::from_keys(form.path_exact, form.path_prefix, form.path_regex)?,
            methods: parse_methods(form.methods)?,
            headers: form.headers,
            query: form.query,
        })
    }
}

impl From<RequestMatch> for MatchForm {
    fn from(value: RequestMatch) -> Self {
        let mut form = Self {
            methods: value.methods,
            headers: value.headers,
            query: value.query,
            ..Self::default()
        };
        match value.path {
            Some(PathMatch::Exact(path)) => form.path_exact = Some(path),
            Some(PathMatch::Prefix(path)) => form.path_prefix = Some(path),
            Some(PathMatch::Regex(path)) => form.path_regex = Some(path),
            None => {}
        }
        form
    }
}

/// [`HeaderMatch`] and [`QueryMatch`] as they are written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StringForm {
    name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    present: Option<bool>,
    #[serde(default, skip_serializing_if = "is_default")]
    exact: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    suffix: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    contains: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    regex: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    invert: bool,
}

impl StringForm {
    fn new(name: String, value: StringMatch, invert: bool) -> Self {
        let mut form = Self {
            name,
            invert,
            ..Self::default()
        };
        match value {
            StringMatch::Present => form.present = Some(true),
            StringMatch::Exact(text) => form.exact = Some(text),
            StringMatch::Prefix(text) => form.prefix = Some(text),
            StringMatch::Suffix(text) => form.suffix = Some(text),
            StringMatch::Contains(text) => form.contains = Some(text),
            StringMatch::Regex(text) => form.regex = Some(text),
        }
        form
    }

    fn value(self) -> Result<(String, StringMatch, bool), MatchError> {
        let value = StringMatch::from_keys(
            &self.name,
            self.present,
            self.exact,
            self.prefix,
            self.suffix,
            self.contains,
            self.regex,
        )?;
        Ok((self.name, value, self.invert))
    }
}

impl TryFrom<StringForm> for HeaderMatch {
    type Error = MatchError;

    fn try_from(form: StringForm) -> Result<Self, MatchError> {
        let (name, value, invert) = form.value()?;
        Self::new(&name, value, invert)
    }
}

impl TryFrom<StringForm> for QueryMatch {
    type Error = MatchError;

    fn try_from(form: StringForm) -> Result<Self, MatchError> {
        let (name, value, invert) = form.value()?;
        Ok(Self {
            name,
            value,
            invert,
        })
    }
}

impl From<HeaderMatch> for StringForm {
    fn from(value: HeaderMatch) -> Self {
        Self::new(value.name, value.value, value.invert)
    }
}

impl From<QueryMatch> for StringForm {
    fn from(value: QueryMatch) -> Self {
        Self::new(value.name, value.value, value.invert)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_and_writes_flat_keys() {
        let text = r#"{"path_prefix":"/v1/","methods":["get"],"headers":[{"name":"X-Canary","exact":"1"}],"query":[{"name":"debug","present":true}]}"#;
        let read: RequestMatch = serde_json::from_str(text).unwrap();
        assert_eq!(read.methods, ["GET"]);
        assert_eq!(read.headers[0].name, "x-canary");
        let again: RequestMatch =
            serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read, again);
        assert_eq!(
            serde_json::to_string(&RequestMatch::default()).unwrap(),
            "{}"
        );
    }

    #[test]
    fn a_prefix_may_end_where_a_path_cannot() {
        for path in ["/.", "/a/.", "/a/..", "/"] {
            let text = format!(r#"{{"path_prefix":"{path}"}}"#);
            assert!(
                serde_json::from_str::<RequestMatch>(&text).is_ok(),
                "{path}"
            );
        }
        assert!(serde_json::from_str::<RequestMatch>(r#"{"path_exact":"/."}"#).is_err());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            (r#"{"path_prefix":"v1"}"#, "does not begin with `/`"),
            (
                r#"{"path_prefix":"/a","path_exact":"/b"}"#,
                "path_exact and path_prefix",
            ),
            (r#"{"path_exact":"/a/../b"}"#, "write it as `/b`"),
            (r#"{"path_prefix":"/a//"}"#, "write it as `/a/`"),
            (r#"{"path_prefix":"/a%2fb"}"#, "an encoded slash"),
            (r#"{"path_regex":"("}"#, "regular expression `(`"),
            (r#"{"methods":["FETCH"]}"#, "method `FETCH`"),
            (r#"{"headers":[{"name":"a"}]}"#, "0 conditions"),
            (
                r#"{"headers":[{"name":"a","exact":"b","regex":"c"}]}"#,
                "2 conditions",
            ),
            (
                r#"{"headers":[{"name":"a b","present":true}]}"#,
                "not a header's name",
            ),
            (r#"{"jwt":"x"}"#, "unknown field `jwt`"),
        ] {
            let error = serde_json::from_str::<RequestMatch>(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}

//! Names and keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The namespace that need not be written.
pub const DEFAULT_NAMESPACE: &str = "default";

/// In an intention, "every service" (or every namespace).
pub const WILDCARD: &str = "*";

/// Longest name that we take: one DNS label (RFC 1035, 2.3.4), since a name
/// becomes a label of the SNI between sidecars and of the mesh's DNS.
const MAX_NAME: usize = 63;

/// What a row is found by: (namespace, name).
///
/// Reads and prints as `name` in the default namespace, else `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The namespace; `default` when none is written.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

pub(crate) fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

impl Key {
    /// The key of `name` in `namespace`. The parts are not checked; use
    /// [`Key::from_str`] for what comes from outside.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of `name` in the default namespace.
    pub fn of(name: impl Into<String>) -> Self {
        Self::new(DEFAULT_NAMESPACE, name)
    }

    /// Whether this is the key of one service, with no wildcard in it.
    pub fn is_exact(&self) -> bool {
        self.namespace != WILDCARD && self.name != WILDCARD
    }

    /// Whether this pattern (of an intention) covers `key`.
    pub fn covers(&self, key: &Self) -> bool {
        (self.namespace == WILDCARD || self.namespace == key.namespace)
            && (self.name == WILDCARD || self.name == key.name)
    }

    /// Checks both parts as the key of one service.
    pub fn check(&self) -> Result<(), NameError> {
        check_name(&self.namespace)?;
        check_name(&self.name)
    }

    /// Checks both parts as one side of an intention, where `*` is allowed, but
    /// not as a namespace of an exact name.
    pub fn check_pattern(&self) -> Result<(), NameError> {
        if self.namespace == WILDCARD {
            return match self.name.as_str() {
                WILDCARD => Ok(()),
                _ => Err(NameError::WildcardNamespace(self.name.clone())),
            };
        }
        check_name(&self.namespace)?;
        match self.name.as_str() {
            WILDCARD => Ok(()),
            name => check_name(name),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == DEFAULT_NAMESPACE {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl FromStr for Key {
    type Err = NameError;

    /// Reads `name`, `*`, `namespace/name`, `namespace/*` or `*/*`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let key = match text.split_once('/') {
            None => Self::of(text),
            Some((_, rest)) if rest.contains('/') => {
                return Err(NameError::TooManySlashes(text.to_owned()));
            }
            Some((namespace, name)) => Self::new(namespace, name),
        };
        key.check_pattern()?;
        Ok(key)
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name is empty; write one, such as `user-service`")]
    Empty,
    /// Longer than one DNS label.
    #[error("name `{0}…` has {1} characters; at most 63 are allowed")]
    TooLong(String, usize),
    /// A character that a DNS label cannot have.
    #[error(
        "name `{0}` has the character {1:?}; use letters, digits, `-` and `_`, and begin and end with a letter or digit"
    )]
    Character(String, char),
    /// Two slashes in a key.
    #[error("`{0}` has more than one `/`; write `name` or `namespace/name`")]
    TooManySlashes(String),
    /// `*/name`.
    #[error("`*/{0}` names one service in every namespace; write `namespace/{0}` or `*/*`")]
    WildcardNamespace(String),
}

/// Checks a service's or namespace's name: 1 to 63 of `a-zA-Z0-9_-`, beginning
/// and ending with a letter or digit.
pub fn check_name(name: &str) -> Result<(), NameError> {
    check_label(name)?;
    let ends = [name.chars().next(), name.chars().next_back()];
    match ends
        .into_iter()
        .flatten()
        .find(|c| !c.is_ascii_alphanumeric())
    {
        Some(c) => Err(NameError::Character(name.to_owned(), c)),
        None => Ok(()),
    }
}

/// Checks a label that may begin or end with any of its characters: a subset's
/// or rule's name.
pub fn check_label(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        let head = name.chars().take(20).collect();
        return Err(NameError::TooLong(head, name.chars().count()));
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
    {
        Some(c) => Err(NameError::Character(name.to_owned(), c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_read_and_print() {
        for (text, namespace, name) in [
            ("web", "default", "web"),
            ("*", "default", "*"),
            ("team/web", "team", "web"),
            ("team/*", "team", "*"),
            ("*/*", "*", "*"),
        ] {
            let key: Key = text.parse().unwrap();
            assert_eq!(key, Key::new(namespace, name));
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn bad_keys_are_refused() {
        for text in [
            "", "/", "a/", "/a", "a/b/c", "*/web", "we b", "-web", "web-", "wéb",
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        assert!("x".repeat(63).parse::<Key>().is_ok());
        assert!("x".repeat(64).parse::<Key>().is_err());
    }

    #[test]
    fn a_pattern_covers() {
        let web = Key::of("web");
        assert!(Key::of("*").covers(&web));
        assert!(Key::new("*", "*").covers(&web));
        assert!(!Key::new("team", "*").covers(&web));
        assert!(!Key::of("db").covers(&web));
    }
}

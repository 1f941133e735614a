//! An intention: who may call whom.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::matching::MatchForm;
use crate::{HeaderMatch, Key, MatchError, QueryMatch, RequestMatch, is_default};

/// Allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The call goes on.
    Allow,
    /// The call is refused.
    Deny,
}

impl Action {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|a| a.as_str() == text)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `intention` block of one pair. Either side may be a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "IntentionForm", into = "IntentionForm")]
pub struct Intention {
    /// Who calls.
    pub source: Key,
    /// Who is called.
    pub destination: Key,
    /// What holds.
    pub rule: IntentionRule,
    /// Free text for people.
    pub description: String,
    /// Free keys for people and programs.
    pub meta: BTreeMap<String, String>,
}

/// What an intention says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntentionRule {
    /// Of every connection.
    Action(Action),
    /// Of requests: the first that matches decides, and the mesh's default
    /// where none does (not an intention of lower precedence).
    Permissions(Vec<Permission>),
}

/// One of an intention's ordered permissions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PermissionForm", into = "PermissionForm")]
pub struct Permission {
    /// What holds for a request that matches.
    pub action: Action,
    /// Which requests.
    pub request: RequestMatch,
}

impl Intention {
    /// The precedence of peers' tables, 1 (least) to 9: the more exact
    /// destination wins, then the more exact source.
    pub fn precedence(&self) -> u8 {
        let exactness = |key: &Key| match (key.namespace == "*", key.name == "*") {
            (false, false) => 3,
            (false, true) => 2,
            (true, _) => 1,
        };
        (exactness(&self.destination) - 1) * 3 + exactness(&self.source)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentionForm {
    source: Key,
    destination: Key,
    #[serde(default, skip_serializing_if = "is_default")]
    action: Option<Action>,
    #[serde(default, skip_serializing_if = "is_default")]
    permissions: Vec<Permission>,
    #[serde(default, skip_serializing_if = "is_default")]
    description: String,
    #[serde(default, skip_serializing_if = "is_default")]
    meta: BTreeMap<String, String>,
}

impl TryFrom<IntentionForm> for Intention {
    type Error = String;

    fn try_from(form: IntentionForm) -> Result<Self, String> {
        let place = format!("intention {} => {}", form.source, form.destination);
        let rule = match (form.action, form.permissions.is_empty()) {
            (Some(action), true) => IntentionRule::Action(action),
            (None, false) => IntentionRule::Permissions(form.permissions),
            (Some(_), false) => {
                return Err(format!(
                    "{place}: has both an action and permissions; keep one"
                ));
            }
            (None, true) => {
                return Err(format!(
                    "{place}: has neither an action nor permissions; add action = \"allow\" or \"deny\""
                ));
            }
        };
        Ok(Self {
            source: form.source,
            destination: form.destination,
            rule,
            description: form.description,
            meta: form.meta,
        })
    }
}

impl From<Intention> for IntentionForm {
    fn from(value: Intention) -> Self {
        let (action, permissions) = match value.rule {
            IntentionRule::Action(action) => (Some(action), Vec::new()),
            IntentionRule::Permissions(permissions) => (None, permissions),
        };
        Self {
            source: value.source,
            destination: value.destination,
            action,
            permissions,
            description: value.description,
            meta: value.meta,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PermissionForm {
    action: Action,
    #[serde(default, skip_serializing_if = "is_default")]
    path_exact: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    path_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    path_regex: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    headers: Vec<HeaderMatch>,
    #[serde(default, skip_serializing_if = "is_default")]
    query: Vec<QueryMatch>,
}

impl TryFrom<PermissionForm> for Permission {
    type Error = MatchError;

    fn try_from(form: PermissionForm) -> Result<Self, MatchError> {
        Ok(Self {
            action: form.action,
            request: MatchForm {
                path_exact: form.path_exact,
                path_prefix: form.path_prefix,
                path_regex: form.path_regex,
                methods: form.methods,
                headers: form.headers,
                query: form.query,
            }
            .try_into()?,
        })
    }
}

impl From<Permission> for PermissionForm {
    fn from(value: Permission) -> Self {
        let form = MatchForm::from(value.request);
        Self {
            action: value.action,
            path_exact: form.path_exact,
            path_prefix: form.path_prefix,
            path_regex: form.path_regex,
            methods: form.methods,
            headers: form.headers,
            query: form.query,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair(source: &str, destination: &str) -> Intention {
        Intention {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            rule: IntentionRule::Action(Action::Allow),
            description: String::new(),
            meta: BTreeMap::new(),
        }
    }

    #[test]
    fn precedence_is_the_known_table() {
        for (source, destination, precedence) in [
            ("web", "db", 9),
            ("*", "db", 8),
            ("*/*", "db", 7),
            ("web", "*", 6),
            ("*", "*", 5),
            ("*/*", "*", 4),
            ("web", "*/*", 3),
            ("*", "*/*", 2),
            ("*/*", "*/*", 1),
        ] {
            assert_eq!(pair(source, destination).precedence(), precedence);
        }
    }

    #[test]
    fn an_unknown_condition_is_refused() {
        let text = r#"{"source":{"name":"a"},"destination":{"name":"b"},"permissions":[{"action":"allow","path_prefix":"/","jwt":{"provider":"x"}}]}"#;
        let error = serde_json::from_str::<Intention>(text).unwrap_err();
        assert!(error.to_string().contains("unknown field `jwt`"), "{error}");
    }

    #[test]
    fn action_and_permissions_exclude_each_other() {
        let neither = r#"{"source":{"name":"a"},"destination":{"name":"b"}}"#;
        let error = serde_json::from_str::<Intention>(neither).unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
        let both = r#"{"source":{"name":"a"},"destination":{"name":"b"},"action":"deny","permissions":[{"action":"allow"}]}"#;
        let error = serde_json::from_str::<Intention>(both).unwrap_err();
        assert!(error.to_string().contains("both"), "{error}");
    }
}

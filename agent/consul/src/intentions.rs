//! `/v1/connect/intentions…`: the servers' intentions as Consul shows them.

use mesh_model::{
    HeaderMatch, Intention, IntentionRule, Key, PathMatch, Permission, QueryMatch, RequestMatch,
    StringMatch,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::filter::{Kind, Selectors};

/// An intention, as the servers' API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The intention.
    pub intention: Intention,
    precedence: u64,
    create_index: u64,
    modify_index: u64,
    created_at: String,
    modified_at: String,
}

/// What Consul's clients take for no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Selectors of [`Row::json`].
pub const INTENTION: Selectors = &[
    ("Action", Kind::Text),
    ("Description", Kind::Text),
    ("DestinationNS", Kind::Text),
    ("DestinationName", Kind::Text),
    ("Meta", Kind::Map),
    ("Precedence", Kind::Number),
    ("SourceNS", Kind::Text),
    ("SourceName", Kind::Text),
    ("SourceType", Kind::Text),
];

impl Row {
    /// Reads one. An intention of which a part is not known here is not shown without it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(row: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = row else {
            return Err("an intention is not an object".to_owned());
        };
        let mut number = |name: &str| fields.remove(name).and_then(|value| value.as_u64());
        let precedence = number("precedence").unwrap_or_default();
        let create_index = number("create_index").unwrap_or_default();
        let modify_index = number("modify_index").unwrap_or_default();
        let mut time = |name: &str| match fields.remove(name) {
            Some(Value::String(time)) => time,
            _ => NO_TIME.to_owned(),
        };
        let created_at = time("created_at");
        let modified_at = time("modified_at");
        fields.remove("owner");
        let intention = Intention::deserialize(Value::Object(fields));
        Ok(Self {
            intention: intention.map_err(|error| error.to_string())?,
            precedence,
            create_index,
            modify_index,
            created_at,
            modified_at,
        })
    }

    /// As Consul shows it. It has no id: those are of a form of Consul's that is gone.
    #[must_use]
    pub fn json(&self) -> Value {
        let Intention {
            source,
            destination,
            rule,
            description,
            meta,
        } = &self.intention;
        let mut shown = json!({
            "ID": "",
            "Description": description,
            "SourceNS": source.namespace,
            "SourceName": source.name,
            "DestinationNS": destination.namespace,
            "DestinationName": destination.name,
            "SourceType": "consul",
            "Meta": meta,
            "Precedence": self.precedence,
            "CreateIndex": self.create_index,
            "ModifyIndex": self.modify_index,
            "CreatedAt": self.created_at,
            "UpdatedAt": self.modified_at,
        });
        match rule {
            IntentionRule::Action(action) => shown["Action"] = action.as_str().into(),
            IntentionRule::Permissions(all) => {
                shown["Permissions"] = all.iter().map(permission).collect();
            }
        }
        shown
    }

    /// Whether it stands between exactly these two.
    #[must_use]
    pub fn is_of(&self, source: &Key, destination: &Key) -> bool {
        self.intention.source == *source && self.intention.destination == *destination
    }
}

fn permission(permission: &Permission) -> Value {
    let RequestMatch {
        path,
        methods,
        headers,
        query,
    } = &permission.request;
    let mut http = Map::new();
    if let Some(path) = path {
        let (key, text) = match path {
            PathMatch::Exact(text) => ("PathExact", text),
            PathMatch::Prefix(text) => ("PathPrefix", text),
            PathMatch::Regex(text) => ("PathRegex", text),
        };
        http.insert(key.into(), text.clone().into());
    }
    if !methods.is_empty() {
        http.insert("Methods".into(), json!(methods));
    }
    let header = |one: &HeaderMatch| condition(&one.name, &one.value, one.invert);
    if !headers.is_empty() {
        http.insert("Header".into(), headers.iter().map(header).collect());
    }
    // Consul's have none; without it one would look wider than it is.
    let parameter = |one: &QueryMatch| condition(&one.name, &one.value, one.invert);
    if !query.is_empty() {
        http.insert("QueryParam".into(), query.iter().map(parameter).collect());
    }
    json!({"Action": permission.action.as_str(), "HTTP": http})
}

fn condition(name: &str, value: &StringMatch, invert: bool) -> Value {
    let (key, value) = match value {
        StringMatch::Present => ("Present", json!(true)),
        StringMatch::Exact(text) => ("Exact", json!(text)),
        StringMatch::Prefix(text) => ("Prefix", json!(text)),
        StringMatch::Suffix(text) => ("Suffix", json!(text)),
        StringMatch::Contains(text) => ("Contains", json!(text)),
        StringMatch::Regex(text) => ("Regex", json!(text)),
    };
    let mut shown = json!({"Name": name, key: value});
    if invert {
        shown["Invert"] = true.into();
    }
    shown
}

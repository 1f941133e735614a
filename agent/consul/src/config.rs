//! `/v1/config/…`: config entries as they were written, with the row's indexes.

use mesh_model::consul::parse_config_entry;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A config entry, as the servers' API has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Row {
    kind: String,
    name: String,
    text: String,
    create_index: u64,
    modify_index: u64,
}

/// Lists of objects. In HCL a block may stand for one, and then it is not said that it is a list;
/// Consul knows by the field, and so does whoever reads what is shown.
const LISTS: [&str; 9] = [
    "Header",
    "Listeners",
    "Paths",
    "Permissions",
    "QueryParam",
    "Routes",
    "Services",
    "Sources",
    "Splits",
];

/// Why an entry cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind}/{name} cannot be read by this version; read its text with `meshctl config read -kind {kind} -name {name}`"
)]
pub struct Unreadable {
    kind: String,
    name: String,
}

impl Row {
    /// As Consul shows it: what was written, as JSON or HCL, and its indexes.
    ///
    /// # Errors
    /// When this version cannot read it: what was left out of it would be missed by nobody.
    pub fn json(&self) -> Result<Value, Unreadable> {
        let Some(mut entry) = self.entry() else {
            return Err(Unreadable {
                kind: self.kind.clone(),
                name: self.name.clone(),
            });
        };
        // Its keys may have been written in any of Consul's spellings.
        for (name, value) in [
            ("Kind", Value::from(self.kind.clone())),
            ("Name", Value::from(self.name.clone())),
            ("CreateIndex", Value::from(self.create_index)),
            ("ModifyIndex", Value::from(self.modify_index)),
        ] {
            entry.retain(|key, _| !same(key, name));
            entry.insert(name.to_owned(), value);
        }
        Ok(Value::Object(entry))
    }

    fn entry(&self) -> Option<Map<String, Value>> {
        if let Ok(Value::Object(entry)) = serde_json::from_str(&self.text) {
            return Some(entry);
        }
        match parse_config_entry("entry", &self.text).ok()?.raw {
            Value::Object(entry) => Some(with_lists(entry)),
            _ => None,
        }
    }
}

/// What was read of HCL, with lists where lists are meant.
fn with_lists(entry: Map<String, Value>) -> Map<String, Value> {
    let whole = |(key, value): (String, Value)| {
        let value = match value {
            Value::Object(inner) => {
                let inner = Value::Object(with_lists(inner));
                match LISTS.iter().any(|list| same(&key, list)) {
                    true => Value::Array(vec![inner]),
                    false => inner,
                }
            }
            Value::Array(all) => all.into_iter().map(each).collect(),
            plain => plain,
        };
        (key, value)
    };
    entry.into_iter().map(whole).collect()
}

fn each(value: Value) -> Value {
    match value {
        Value::Object(inner) => Value::Object(with_lists(inner)),
        plain => plain,
    }
}

/// Whether a key is this one, in whichever of Consul's spellings.
fn same(key: &str, name: &str) -> bool {
    key.bytes()
        .filter(|byte| *byte != b'_')
        .map(|byte| byte.to_ascii_lowercase())
        .eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

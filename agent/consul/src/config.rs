//! `/v1/config/…`: config entries as they were written, with the row's indexes.

use serde::Deserialize;
use serde_json::Value;

/// A config entry, as the servers' API has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Row {
    kind: String,
    name: String,
    text: String,
    create_index: u64,
    modify_index: u64,
}

/// Why an entry cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind}/{name} was written in HCL, which does not say what is a list; read it with `meshctl config read -kind {kind} -name {name}`, or write it as JSON"
)]
pub struct NotJson {
    kind: String,
    name: String,
}

impl Row {
    /// As Consul shows it: what was written, and its indexes.
    ///
    /// # Errors
    /// When it was not written as JSON.
    pub fn json(&self) -> Result<Value, NotJson> {
        let entry = serde_json::from_str(&self.text);
        let Ok(Value::Object(mut entry)) = entry else {
            return Err(NotJson {
                kind: self.kind.clone(),
                name: self.name.clone(),
            });
        };
        // Its keys may have been written in any of Consul's spellings.
        let same = |key: &str, name: &str| {
            key.bytes()
                .filter(|byte| *byte != b'_')
                .map(|byte| byte.to_ascii_lowercase())
                .eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
        };
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
}

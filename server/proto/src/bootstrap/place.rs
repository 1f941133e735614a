//! Walking JSON, so that an error names the place.

use serde_json::Value;

use super::BootstrapError;

/// A value within the JSON, and its path for errors.
pub(super) struct Place<'a> {
    path: String,
    pub(super) value: Option<&'a Value>,
}

impl<'a> Place<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value: Some(value),
        }
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> BootstrapError {
        BootstrapError::Field {
            place: self.path.clone(),
            reason: reason.into(),
        }
    }

    /// What stands under a key; `null` is as good as nothing.
    pub(super) fn at(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            path: format!("{}{dot}{key}", self.path),
            value: self
                .value
                .and_then(|value| value.get(key))
                .filter(|value| !value.is_null()),
        }
    }

    pub(super) fn optional(&self, key: &str) -> Result<Option<Self>, BootstrapError> {
        let place = self.at(key);
        match place.value {
            None => Ok(None),
            Some(Value::Object(_)) => Ok(Some(place)),
            Some(_) => Err(place.error("not an object")),
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<Self, BootstrapError> {
        self.optional(key)?
            .ok_or_else(|| self.at(key).error("missing"))
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<String>, BootstrapError> {
        let place = self.at(key);
        match place.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(place.error("not a string")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<String, BootstrapError> {
        self.optional_text(key)?
            .ok_or_else(|| self.at(key).error("missing"))
    }

    pub(super) fn list(&self, key: &str) -> Result<Vec<Self>, BootstrapError> {
        let place = self.at(key);
        match place.value {
            None => Err(place.error("missing")),
            Some(Value::Array(values)) => Ok(values
                .iter()
                .enumerate()
                .map(|(index, value)| Place {
                    path: format!("{}[{index}]", place.path),
                    value: Some(value),
                })
                .collect()),
            Some(_) => Err(place.error("not a list")),
        }
    }

    pub(super) fn first(&self, key: &str) -> Result<Self, BootstrapError> {
        let first = self.list(key)?.into_iter().next();
        first.ok_or_else(|| self.at(key).error("it is empty"))
    }
}

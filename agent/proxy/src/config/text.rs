//! A config as it was given, for who wants to see it.

use std::sync::Arc;

use mesh_proto::config::ProxyConfig;
use serde::Serialize;
use serde_json::value::RawValue;

use super::invalid;
use crate::ApplyError;

/// A config as it was given. It is kept as JSON, which takes a third of the memory that the form
/// itself would, and is read by nothing that serves a request.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct ConfigText(Arc<RawValue>);

impl ConfigText {
    pub(super) fn of(form: &ProxyConfig) -> Result<Self, ApplyError> {
        let text = serde_json::value::to_raw_value(form);
        let text = text.map_err(|error| invalid("config", error.to_string()))?;
        Ok(Self(text.into()))
    }

    /// The form again.
    ///
    /// # Errors
    ///
    /// If it is none, which a text that was made of one never is.
    pub fn read(&self) -> Result<ProxyConfig, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

//! A config as it was given, for who wants to see it.

use std::fmt;
use std::sync::Arc;

use mesh_proto::config::ProxyConfig;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::invalid;
use crate::ApplyError;

/// A config as it was given. It is kept as JSON, pressed, which takes a thirtieth of the memory that
/// the form itself would: much in it repeats, and nothing that serves a request reads it.
#[derive(Clone)]
pub struct ConfigText(Arc<[u8]>);

impl ConfigText {
    pub(super) fn of(form: &ProxyConfig) -> Result<Self, ApplyError> {
        let text = serde_json::to_vec(form);
        let text = text.map_err(|error| invalid("config", error.to_string()))?;
        Ok(Self(lz4_flex::compress_prepend_size(&text).into()))
    }

    /// The form again.
    ///
    /// # Errors
    ///
    /// If it is none, which a text that was made of one never is.
    pub fn read(&self) -> Result<ProxyConfig, serde_json::Error> {
        serde_json::from_str(&self.text()?)
    }

    fn text(&self) -> Result<String, serde_json::Error> {
        let text = lz4_flex::decompress_size_prepended(&self.0);
        let text = text.map_err(serde::ser::Error::custom)?;
        String::from_utf8(text).map_err(serde::ser::Error::custom)
    }
}

impl Serialize for ConfigText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text().and_then(RawValue::from_string);
        text.map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl fmt::Debug for ConfigText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text().unwrap_or_default())
    }
}

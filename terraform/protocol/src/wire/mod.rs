//! Values as bytes: MessagePack, which Terraform sends and takes, and JSON, in
//! which it keeps states.

mod json;
mod msgpack;

pub use json::{from_json, to_json};
pub use msgpack::{decode, encode};

/// Bytes that are no value of their type, or a value that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}")]
pub struct WireError {
    /// Where: empty, or a path with `: ` after it.
    place: String,
    /// What is wrong.
    message: String,
}

impl WireError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            message: message.into(),
        }
    }

    /// It is within that.
    fn within(mut self, name: &str) -> Self {
        self.place = match self.place.is_empty() {
            true => format!("{name}: "),
            false => format!("{name}.{}", self.place),
        };
        self
    }
}

#[cfg(test)]
mod tests;

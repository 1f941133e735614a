//! Flags over configuration files.
//!
//! Flags become the text of one more file, read after all others: so they are
//! checked as files are, and there is one list of what is known.

use std::path::{Path, PathBuf};

use mesh_model::Diagnostics;

use crate::commands::files::{Source, sources};
use crate::console::Console;
use crate::error::CliError;

/// What this text is called in errors.
const NAME: &str = "command line";

/// The flags that were given, as HCL.
#[derive(Debug, Default)]
pub(crate) struct Overlay(String);

impl Overlay {
    /// A text, if it is given.
    pub(crate) fn text(mut self, key: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push_str(&format!("{key} = {}\n", quoted(value)));
        }
        self
    }

    /// A path, if it is given.
    pub(crate) fn path(self, key: &str, value: Option<&Path>) -> Self {
        self.text(key, value.map(|path| path.to_string_lossy()).as_deref())
    }

    /// A number, if it is given.
    pub(crate) fn number(mut self, key: &str, value: Option<u64>) -> Self {
        if let Some(value) = value {
            self.0.push_str(&format!("{key} = {value}\n"));
        }
        self
    }

    /// A switch, if it is on.
    pub(crate) fn switch(mut self, key: &str, on: bool) -> Self {
        if on {
            self.0.push_str(&format!("{key} = true\n"));
        }
        self
    }

    /// A list, if it has something.
    pub(crate) fn list(mut self, key: &str, values: &[String]) -> Self {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            self.0
                .push_str(&format!("{key} = [{}]\n", values.join(", ")));
        }
        self
    }

    /// A block, if it has something.
    pub(crate) fn block(mut self, name: &str, inner: Self) -> Self {
        if !inner.0.is_empty() {
            self.0.push_str(&format!("{name} {{\n{}}}\n", inner.0));
        }
        self
    }

    /// Reads the files and then this; `parse` is the configuration's own.
    pub(crate) fn read<T>(
        self,
        files: &[PathBuf],
        parse: impl Fn(&[(&str, &str)]) -> Result<T, Diagnostics>,
        console: &mut Console<'_>,
    ) -> Result<T, CliError> {
        let mut all: Vec<Source> = sources(files, console)?;
        all.push((NAME.to_owned(), self.0));
        let borrowed: Vec<(&str, &str)> = all
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        parse(&borrowed).map_err(CliError::Invalid)
    }
}

/// A text as an HCL string that means it word for word.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' if rest.peek() == Some(&'{') => {
                out.push(c);
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mesh_model::config::ServerConfig;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_win_over_files() {
        let overlay = Overlay::default()
            .text("datacenter", Some("dc2"))
            .list("retry_join", &["10.0.0.9".to_owned()])
            .block("ca", Overlay::default().text("leaf_ttl", Some("1h")));
        let file = "datacenter = \"dc1\"\nretry_join = [\"10.0.0.1\", \"10.0.0.2\"]\n";
        let config = ServerConfig::parse(&[("a.hcl", file), (NAME, &overlay.0)]).unwrap();
        assert_eq!(config.datacenter, "dc2");
        assert_eq!(config.retry_join, ["10.0.0.9:8701"]);
        assert_eq!(config.ca.leaf_ttl.to_string(), "1h");
    }

    #[test]
    fn a_wrong_flag_is_named() {
        let overlay = Overlay::default().text("http_addr", Some("nowhere at all"));
        let error = ServerConfig::parse(&[(NAME, &overlay.0)]).unwrap_err();
        assert!(error.to_string().starts_with("command line:1:"), "{error}");
    }

    proptest! {
        #[test]
        fn any_path_survives(text in "[^\0]{1,20}") {
            let overlay = Overlay::default().text("data_dir", Some(&text));
            let config = ServerConfig::parse(&[(NAME, &overlay.0)]);
            let config = config.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(config.data_dir, PathBuf::from(text));
        }
    }
}

//! Where a command reads and writes: the terminal, or a test's memory.

use std::io::{self, BufRead, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::CliError;
use crate::output::Table;

/// Everything of the outside that a command uses besides files and the server.
pub struct Console<'a> {
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Errors, warnings and progress.
    pub err: &'a mut dyn Write,
    /// Where a confirmation is read.
    pub input: &'a mut dyn BufRead,
    /// Whether a person is at `input`.
    pub interactive: bool,
    /// Whether `out` is a terminal that takes colours.
    pub colour: bool,
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Now.
    pub now: SystemTime,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("interactive", &self.interactive)
            .field("colour", &self.colour)
            .finish_non_exhaustive()
    }
}

/// Colours, where the terminal takes them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Green,
    Red,
    Yellow,
}

impl Console<'_> {
    /// Writes a line of the answer.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), CliError> {
        writeln!(self.out, "{text}").map_err(CliError::Output)
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.out
            .write_all(text.as_bytes())
            .map_err(CliError::Output)
    }

    /// Writes the answer as JSON.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), CliError> {
        self.line(format!("{value:#}"))
    }

    /// Writes a table; nothing but its header where it has no rows.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        self.text(&table.render())
    }

    /// Says something beside the answer. What cannot be said is no failure of
    /// the command.
    pub(crate) fn note(&mut self, text: impl std::fmt::Display) {
        let _ = writeln!(self.err, "{text}");
    }

    /// `text` in a colour, where there are colours.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        match self.colour {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    /// Asks, and takes only `yes` for a yes.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<bool, CliError> {
        write!(self.out, "{question} ").map_err(CliError::Output)?;
        self.out.flush().map_err(CliError::Output)?;
        let mut answer = String::new();
        let limit = 1024;
        let read = io::Read::take(&mut self.input, limit).read_line(&mut answer);
        read.map_err(|error| CliError::refused(format!("no answer: {error}"), ""))?;
        Ok(answer.trim() == "yes")
    }

    /// A variable that is set to something.
    pub(crate) fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// Now, in seconds since 1970.
    pub(crate) fn unix(&self) -> i64 {
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

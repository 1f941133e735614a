//! `meshctl validate`: everything that can be known of files without a server.

mod set;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_model::config::{AgentConfig, ServerConfig};
use mesh_model::{Diagnostic, Diagnostics, Entry, Located, consul, instance};
use serde_json::{Value, json};

use super::files::{self, Source};
use crate::args::Output;
use crate::console::Console;
use crate::error::{CliError, FAILED, count};
use set::Set;

/// Check files, without a server
///
/// Blocks of all files together are one set, so that their order does not
/// matter. One of Consul's config entries is known by its Kind.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ValidateArgs {
    /// A file or a folder of .hcl files; `-` is standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// entries, instances, server or agent [entries]
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    r#as: As,
    #[command(flatten)]
    output: Output,
}

/// What files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum As {
    /// Services, routes, intentions; Consul's config entries.
    #[default]
    Entries,
    /// Instances, as an agent reads them.
    Instances,
    /// The configuration of a server.
    Server,
    /// The configuration of an agent.
    Agent,
}

/// What was found.
#[derive(Debug, Default)]
struct Report {
    mistakes: Diagnostics,
    /// Mistakes that only the set shows, and warnings; with their places.
    errors: Vec<Said>,
    warnings: Vec<Said>,
    entries: usize,
}

/// Something that is said of an entry.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl Said {
    fn of(entry: Option<&Located<Entry>>, message: String) -> Self {
        let place = entry.map(|one| (one.file.clone(), one.line, one.column));
        let (file, line, column) = place.unwrap_or_default();
        Self {
            file,
            line,
            column,
            message,
        }
    }

    fn line(&self) -> String {
        match self.line {
            0 => self.message.clone(),
            _ => format!(
                "{}:{}:{}: {}",
                self.file, self.line, self.column, self.message
            ),
        }
    }

    fn json(&self) -> Value {
        json!({"file": self.file, "line": self.line, "column": self.column, "message": self.message})
    }
}

pub(crate) fn run(args: &ValidateArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let sources = files::sources(&args.paths, console)?;
    let report = match args.r#as {
        As::Entries => entries(&sources),
        As::Instances => counted(
            sources
                .iter()
                .map(|(name, text)| instance::parse_instances(name, text).map(|all| all.len())),
        ),
        As::Server => counted([ServerConfig::parse(&borrowed(&sources)).map(|_| 1)]),
        As::Agent => counted([AgentConfig::parse(&borrowed(&sources)).map(|_| 1)]),
    };
    let valid = report.mistakes.is_empty() && report.errors.is_empty();
    match args.output.is_json() {
        true => console.json(&report.json(valid))?,
        false => say(&report, valid, args.r#as, sources.len(), console)?,
    }
    Ok(if valid { 0 } else { FAILED })
}

fn say(
    report: &Report,
    valid: bool,
    kind: As,
    files: usize,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if !report.mistakes.is_empty() {
        console.line(format!("{}\n", report.mistakes.excerpts()))?;
    }
    for error in &report.errors {
        console.line(error.line())?;
    }
    for warning in &report.warnings {
        console.line(format!("Warning: {}", warning.line()))?;
    }
    let files = count(files, "file", "files");
    if !valid {
        let mistakes = report.mistakes.len() + report.errors.len();
        console.note(format!(
            "Error: {} in {files}",
            count(mistakes, "mistake", "mistakes")
        ));
        return Ok(());
    }
    let what = match kind {
        As::Entries => count(report.entries, "entry", "entries"),
        As::Instances => count(report.entries, "instance", "instances"),
        As::Server | As::Agent => "the configuration".to_owned(),
    };
    console.line(format!("Valid: {what} in {files}."))
}

impl Report {
    fn json(&self, valid: bool) -> Value {
        let mut errors: Vec<Value> = self
            .mistakes
            .iter()
            .map(|one: &Diagnostic| serde_json::to_value(one).unwrap_or_default())
            .collect();
        errors.extend(self.errors.iter().map(Said::json));
        let warnings: Vec<Value> = self.warnings.iter().map(Said::json).collect();
        json!({"valid": valid, "errors": errors, "warnings": warnings})
    }
}

fn entries(sources: &[Source]) -> Report {
    let (theirs, ours): (Vec<Source>, Vec<Source>) = sources
        .iter()
        .cloned()
        .partition(|(_, text)| consul::is_config_entry(text));
    let mut report = counted(
        theirs
            .iter()
            .map(|(name, text)| consul::parse_config_entry(name, text).map(|_| 1)),
    );
    match files::entries(&ours) {
        Ok(all) => {
            report.entries += all.len();
            Set::check(&all, &mut report.errors, &mut report.warnings);
        }
        Err(wrong) => report.mistakes.extend(wrong),
    }
    report
}

fn counted(all: impl IntoIterator<Item = Result<usize, Diagnostics>>) -> Report {
    let mut report = Report::default();
    for one in all {
        match one {
            Ok(number) => report.entries += number,
            Err(wrong) => report.mistakes.extend(wrong),
        }
    }
    report
}

fn borrowed(sources: &[Source]) -> Vec<(&str, &str)> {
    sources
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect()
}

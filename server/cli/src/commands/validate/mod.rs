//! `meshctl validate`: everything that can be known of files without a server.

mod set;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_model::config::{AgentConfig, ServerConfig};
use mesh_model::{Diagnostics, consul, instance};
use serde_json::{Value, json};

use super::files::{self, Source};
use crate::args::Output;
use crate::console::Console;
use crate::error::{CliError, FAILED, count};
use set::Said;

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
    warnings: Diagnostics,
    entries: usize,
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
    let valid = report.mistakes.is_empty();
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
    for warning in &report.warnings {
        console.line(format!("Warning: {warning}"))?;
    }
    let files = count(files, "file", "files");
    if !valid {
        let mistakes = count(report.mistakes.len(), "mistake", "mistakes");
        console.note(format!("Error: {mistakes} in {files}"));
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
        json!({"valid": valid, "errors": self.mistakes, "warnings": self.warnings})
    }
}

fn entries(sources: &[Source]) -> Report {
    let (theirs, ours): (Vec<Source>, Vec<Source>) = sources
        .iter()
        .cloned()
        .partition(|(_, text)| consul::is_config_entry(text));
    let mut report = Report::default();
    let mut understood = Vec::new();
    for (name, text) in &theirs {
        match consul::parse_located(name, text) {
            Ok(entry) => understood.push(entry),
            Err(wrong) => report.mistakes.extend(wrong),
        }
    }
    let ours = files::entries(&ours).unwrap_or_else(|wrong| {
        report.mistakes.extend(wrong);
        Vec::new()
    });
    report.entries = ours.len() + understood.len();
    // What could not be read would be missing in the set.
    if report.mistakes.is_empty() {
        let found = set::check(&ours, &understood);
        let shown = |all: Vec<Said>| all.into_iter().map(|one| one.shown(sources)).collect();
        report.mistakes = shown(found.errors);
        report.warnings = shown(found.warnings);
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

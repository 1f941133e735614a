//! `meshctl doctor`: what Nomad will see on this node, and what is missing.
//!
//! A job that stays pending says only "constraint filtered"; a sidecar that does
//! not start says "exit status 1". Here each thing that Nomad needs for a
//! connect block is looked at in the place where Nomad looks, and what is
//! missing is said with its fix. It changes nothing.

mod agent;
mod cni;
mod nomad;
mod rules;
mod shim;
mod system;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::args::Output;
use crate::console::{Colour, Console};
use crate::error::{CliError, FAILED};
use crate::output::wrapped;

/// What Nomad will see on this node, and what is missing
///
/// Run it as root on a Nomad client. Exit code 0: nothing is missing for
/// connect blocks; 1: something is.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DoctorArgs {
    /// The agent's API, where Nomad looks for Consul [127.0.0.1:8500]
    #[arg(long, value_name = "ADDRESS")]
    agent_addr: Option<String>,
    /// Nomad's API [$NOMAD_ADDR, or http://127.0.0.1:4646]
    #[arg(long, value_name = "ADDRESS")]
    nomad_addr: Option<String>,
    /// Folders of CNI plugins, as in Nomad's client.cni_path
    #[arg(long, value_name = "DIRS")]
    cni_path: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Where the agent's API is.
const AGENT: &str = "127.0.0.1:8500";
/// Where Nomad's is.
const NOMAD: &str = "http://127.0.0.1:4646";
/// Where CNI plugins are: Nomad's own default, and Debian's folder.
const CNI_PATH: &str = "/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni";

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Something will not work, but connect blocks will.
    Warning,
    /// Connect blocks will not work.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty when it is as it should be.
    pub(crate) fix: String,
}

impl Finding {
    pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Ok,
            found: found.into(),
            fix: String::new(),
        }
    }

    pub(crate) fn warning(
        what: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state: State::Warning,
            found: found.into(),
            fix: fix.into(),
        }
    }

    pub(crate) fn missing(
        what: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state: State::Missing,
            found: found.into(),
            fix: fix.into(),
        }
    }
}

pub(crate) async fn run(args: &DoctorArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(5))
        .build()
        .map_err(|error| CliError::refused(format!("an HTTP client: {error}"), ""))?;
    let given = args.cni_path.as_deref();
    let folders: Vec<_> = given
        .unwrap_or(CNI_PATH)
        .split(':')
        .map(Into::into)
        .collect();
    let agent = args.agent_addr.as_deref().unwrap_or(AGENT);
    let nomad = args
        .nomad_addr
        .clone()
        .or_else(|| console.var("NOMAD_ADDR"));
    let nomad = nomad.as_deref().unwrap_or(NOMAD);
    let token = console.var("NOMAD_TOKEN");
    let mut findings = Vec::new();
    findings.extend(system::look());
    findings.extend(agent::look(&client, agent).await);
    findings.extend(shim::look());
    findings.extend(cni::look(&folders));
    findings.extend(rules::look(agent::allocations(&client, agent).await));
    findings.extend(nomad::look(&client, nomad, token.as_deref()).await);
    match args.output.is_json() {
        true => console.json(&json!({ "findings": findings }))?,
        false => show(&findings, console)?,
    }
    let missing = findings.iter().any(|one| one.state == State::Missing);
    Ok(if missing { FAILED } else { 0 })
}

fn show(findings: &[Finding], console: &mut Console<'_>) -> Result<(), CliError> {
    for one in findings {
        let (word, colour) = match one.state {
            State::Ok => ("ok     ", Colour::Green),
            State::Warning => ("warning", Colour::Yellow),
            State::Missing => ("missing", Colour::Red),
        };
        let word = console.paint(colour, word);
        let mut lines = wrapped(&format!("{}: {}", one.what, one.found), 8);
        if !one.fix.is_empty() {
            lines.push_str(&wrapped(&one.fix, 8));
        }
        // The word stands in the first line's indent.
        let rest = lines.strip_prefix("        ").unwrap_or(&lines);
        console.text(&format!("{word} {rest}"))?;
    }
    let missing = findings.iter().filter(|one| one.state == State::Missing);
    match missing.count() {
        0 => console.line("\nNomad's connect blocks can run on this node."),
        1 => console.line("\n1 thing is missing for Nomad's connect blocks."),
        more => console.line(format!(
            "\n{more} things are missing for Nomad's connect blocks."
        )),
    }
}

//! `meshctl intention check`: would it be allowed, and why.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::args::{Connection, Freshness, Namespace, Output};
use crate::client::{Checked, Client, Explained};
use crate::console::Console;
use crate::error::CliError;
use crate::output::wrapped;

/// Ask whether a call from SRC to DST is allowed
///
/// Exit code 0: allowed; 1: denied; 2: it could not be asked.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckArgs {
    /// The calling service
    #[arg(value_name = "SRC")]
    source: String,
    /// The called service
    #[arg(value_name = "DST")]
    destination: String,
    /// Path of the request, with its query
    #[arg(long)]
    path: Option<String>,
    /// Method of the request [GET]
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// A header of the request; again for more
    #[arg(long, value_name = "NAME:VALUE", requires = "path")]
    header: Vec<String>,
    /// Say what was considered, and what decided
    #[arg(long)]
    explain: bool,
    #[arg(long, hide = true, value_parser = ["consul"])]
    source_type: Option<String>,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: &CheckArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let namespace = &args.namespace;
    let source = super::side(&args.source, "SRC", namespace)?;
    let destination = super::side(&args.destination, "DST", namespace)?;
    let mut question =
        json!({"source": source.to_string(), "destination": destination.to_string()});
    if let Some(path) = &args.path {
        question["path"] = json!(path);
        if let Some(method) = &args.method {
            question["method"] = json!(method);
        }
        question["headers"] = json!(headers(&args.header)?);
    }
    let client = Client::new(&args.connection, args.freshness, console)?;
    let answer = client.check(question).await?;
    let checked = &answer.value;
    if args.output.is_json() {
        console.json(&answer.json)?;
    } else {
        console.line(verdict(checked))?;
        if args.explain {
            console.text(&explain(
                checked,
                &source.to_string(),
                &destination.to_string(),
            ))?;
        }
    }
    Ok(u8::from(!checked.allowed))
}

fn headers(given: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut headers = BTreeMap::new();
    for header in given {
        let pair = header
            .split_once(':')
            .filter(|(name, _)| !name.trim().is_empty());
        let Some((name, value)) = pair else {
            let message = format!("-header {header}: is not of the form name:value");
            return Err(CliError::refused(message, ""));
        };
        let name = name.trim().to_ascii_lowercase();
        // As HTTP joins what stands twice.
        let value = value.trim();
        headers
            .entry(name)
            .and_modify(|before: &mut String| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.to_owned());
    }
    Ok(headers)
}

fn verdict(checked: &Checked) -> String {
    if checked.allowed {
        return "Allowed".to_owned();
    }
    match checked.decided_by_request {
        true => format!(
            "Denied (depends on the request: {}; add -method and -path)",
            crate::client::says(None, checked.permissions)
        ),
        false => "Denied".to_owned(),
    }
}

fn explain(checked: &Checked, source: &str, destination: &str) -> String {
    let mut text = String::new();
    text.push_str(&wrapped(&format!("Reason: {}", checked.reason), 2));
    let facts = format!(
        "{destination} speaks {}; the mesh's default is {}.",
        checked.protocol, checked.default_intention
    );
    text.push_str(&wrapped(&facts, 2));
    match checked.explain.is_empty() {
        true => text.push_str("\n  No intention covers this pair.\n"),
        false => text.push_str("\n  The intentions that cover this pair; the first one governs:\n"),
    }
    for one in &checked.explain {
        intention(one, &mut text);
    }
    if !checked.allowed && checked.explain.is_empty() {
        text.push_str(&format!(
            "\n  To allow it: meshctl intention create -allow {source} {destination}\n"
        ));
    }
    text
}

fn intention(one: &Explained, text: &mut String) {
    let says = match one.says.as_str() {
        "permissions" => crate::client::says(None, one.permissions.len()),
        says => says.to_owned(),
    };
    let note = if one.governs { "" } else { ", not asked" };
    text.push_str(&format!(
        "    {} => {} ({says}), precedence {}{note}\n",
        one.source, one.destination, one.precedence
    ));
    if !one.governs {
        return;
    }
    let mut decided = false;
    for permission in &one.permissions {
        let sign = match permission.matches {
            Some(true) if !decided => "=>",
            _ => "  ",
        };
        decided |= permission.matches == Some(true);
        let mut line = format!("   {sign} {}. {}", permission.number, permission.action);
        if !permission.note.is_empty() {
            line.push_str(&format!(": {}", permission.note));
        }
        text.push_str(&format!("   {line}\n"));
    }
}

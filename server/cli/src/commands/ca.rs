//! `meshctl ca`: what the mesh trusts.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::args::{Connection, Freshness, Output};
use crate::client::Client;
use crate::console::Console;
use crate::error::{CliError, FAILED};
use crate::output::{self, Table, shortened};

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the roots that the mesh trusts
    Roots(RootsArgs),
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RootsArgs {
    /// Print the certificates themselves
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Show whether the CA can sign (exit 0) or not (1).
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(command: &CaCommand, console: &mut Console<'_>) -> Result<u8, CliError> {
    match command {
        CaCommand::Roots(args) => roots(args, console).await,
        CaCommand::Status(args) => status(args, console).await,
    }
}

async fn roots(args: &RootsArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    if args.pem {
        let pem = client.roots_pem().await?;
        return console.text(&pem).map(|()| 0);
    }
    let answer = client.roots().await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    console.line(format!("Trust domain: {}\n", answer.value.trust_domain))?;
    let mut table = Table::new(&["ROOT", "ACTIVE", "VALID FROM", "VALID TO"]);
    for root in answer.value.roots {
        table.row([
            shortened(&root.id, 24),
            if root.active { "yes" } else { "no" }.to_owned(),
            root.not_before,
            root.not_after,
        ]);
    }
    console.table(&table).map(|()| 0)
}

async fn status(args: &StatusArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let json = client.ca_status().await?.json;
    let ready = json["ready"].as_bool().unwrap_or(false);
    if args.output.is_json() {
        console.json(&json)?;
    } else {
        let text = |name: &str| match &json[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let field = |label: &str, value: String| (label.to_owned(), value);
        console.text(&output::fields(&[
            field("Provider", text("provider")),
            field("Ready", if ready { "yes" } else { "no" }.to_owned()),
            field("Problem", text("problem")),
            field("Leaf lifetime", text("leaf_ttl")),
            field("Root valid to", text("root_not_after")),
            field("Intermediate to", text("intermediate_not_after")),
        ]))?;
    }
    Ok(if ready { 0 } else { FAILED })
}

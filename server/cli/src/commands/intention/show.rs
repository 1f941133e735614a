//! `meshctl intention match`, `get`, `list` and `delete`.

use clap::Args;
use mesh_model::EntryKey;
use serde_json::Value;

use crate::args::{Connection, Freshness, Namespace, Output, Owner, Wait};
use crate::client::Client;
use crate::commands::live;
use crate::console::Console;
use crate::error::CliError;
use crate::output::{self, Table, shortened};

/// List the intentions that can decide about a service's calls
///
/// In the order in which they count: of those that cover a pair the first one
/// governs, and no other is asked.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct MatchArgs {
    /// The service
    #[arg(value_name = "SRC_OR_DST")]
    name: String,
    /// Calls by it
    #[arg(long, conflicts_with = "destination")]
    source: bool,
    /// Calls to it (so it is without -source too)
    #[arg(long)]
    destination: bool,
    #[command(flatten)]
    common: Common,
}

/// Show the intention from SRC to DST.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The calling and the called service, as they are written in it
    #[arg(value_names = ["SRC", "DST"], num_args = 2, required = true)]
    pair: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// List all intentions, in the order in which they count.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    common: Common,
}

/// Delete the intention from SRC to DST.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The calling and the called service, as they are written in it
    #[arg(value_names = ["SRC", "DST"], num_args = 2, required = true)]
    pair: Vec<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Common {
    fn client(&self, console: &Console<'_>) -> Result<Client, CliError> {
        Client::new(&self.connection, self.freshness, console)
    }
}

pub(super) async fn matching(args: &MatchArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let what = if args.source { "SRC" } else { "DST" };
    let name = super::side(&args.name, what, &args.common.namespace)?;
    let client = args.common.client(console)?;
    let answer = client.match_intentions(args.source, &name).await?;
    if args.common.output.is_json() {
        console.json(&answer.json)?;
        return Ok(0);
    }
    for intention in &answer.value {
        console.line(intention)?;
    }
    Ok(0)
}

pub(super) async fn get(args: &GetArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let (source, destination) = super::pair(&args.pair, &args.common.namespace)?;
    let client = args.common.client(console)?;
    let answer = client.intention(&source, &destination).await?;
    if args.common.output.is_json() {
        console.json(&answer.json)?;
        return Ok(0);
    }
    let row = answer.value;
    let mut fields = vec![
        ("Source".to_owned(), row.source.to_string()),
        ("Destination".to_owned(), row.destination.to_string()),
        (
            "Action".to_owned(),
            row.action.map(|a| a.to_string()).unwrap_or_default(),
        ),
        ("Description".to_owned(), row.description),
    ];
    for (key, value) in row.meta {
        fields.push((format!("Meta[{key}]"), value));
    }
    fields.push(("Precedence".to_owned(), row.precedence.to_string()));
    fields.push(("Owner".to_owned(), row.owner));
    fields.push(("Modify Index".to_owned(), row.modify_index.to_string()));
    console.text(&output::fields(&fields))?;
    if !row.permissions.is_empty() {
        console.line("Permissions:")?;
        let text = format!("{:#}", Value::Array(row.permissions));
        for line in text.lines() {
            console.line(format!("  {line}"))?;
        }
    }
    Ok(0)
}

pub(super) async fn list(args: &ListArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = args.common.client(console)?;
    let answer = client.intentions().await?;
    if args.common.output.is_json() {
        console.json(&answer.json)?;
        return Ok(0);
    }
    if answer.value.is_empty() {
        console.note("There are no intentions.");
        return Ok(0);
    }
    // Consul's columns; ids are of a time in which an intention had no name.
    let mut table = Table::new(&["ID", "Source", "Action", "Destination", "Precedence"]);
    for row in &answer.value {
        table.row([
            String::new(),
            shortened(&row.source.to_string(), 22),
            row.says(),
            shortened(&row.destination.to_string(), 22),
            row.precedence.to_string(),
        ]);
    }
    console.table(&table)?;
    Ok(0)
}

pub(super) async fn delete(args: &DeleteArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let (source, destination) = super::pair(&args.pair, &args.namespace)?;
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let key = EntryKey::Intention {
        source,
        destination: destination.clone(),
    };
    let answer = client.delete(&key, None, &args.owner).await?;
    if args.output.is_json() {
        console.json(&answer.json)?;
    } else if answer.value.change == "absent" {
        return Err(CliError::refused(
            format!("{key}: does not exist"),
            "`meshctl intention list` shows those that do.",
        ));
    } else {
        console.line("Intention deleted.")?;
    }
    live::wait(
        &client,
        args.wait,
        answer.value.index,
        Some(&destination),
        console,
    )
    .await
}

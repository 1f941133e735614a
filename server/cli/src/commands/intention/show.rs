//! `meshctl intention match`, `get`, `list` and `delete`.

use clap::Args;
use mesh_model::EntryKey;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use crate::args::{Connection, Freshness, Namespace, Output, Owner, Wait};
use crate::client::Client;
use crate::commands::live;
use crate::console::Console;
use crate::error::CliError;
use crate::output::{self, Table};

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
    /// Also its precedence, owner, last change and indexes
    #[arg(long)]
    verbose: bool,
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
    let mut more = |name: &str, value: String| fields.push((name.to_owned(), value));
    more("Created At", rfc850(&row.created_at));
    if args.verbose {
        more("Modified At", rfc850(&row.modified_at));
        more("Precedence", row.precedence.to_string());
        more("Owner", row.owner);
        more("Create Index", row.create_index.to_string());
        more("Modify Index", row.modify_index.to_string());
    }
    console.text(&output::fields(&fields))?;
    if !row.permissions.is_empty() {
        console.line("Permissions:")?;
        console.line(format!("{:#}", Value::Array(row.permissions)))?;
    }
    Ok(0)
}

/// A time of the API as Consul's command prints times, but in UTC, as all our
/// times are: what two people read of one row is the same then.
fn rfc850(time: &str) -> String {
    let format = format_description!(
        "[weekday], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] UTC"
    );
    let time = OffsetDateTime::parse(time, &Rfc3339).ok();
    let utc = time.map(|time| time.to_offset(UtcOffset::UTC));
    utc.and_then(|time| time.format(format).ok())
        .unwrap_or_default()
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
    // Consul's columns; ids are of a time in which an intention had no name. Programs
    // read this, so no name is shortened.
    let head = ["ID", "Source", "Action", "Destination", "Precedence"];
    let mut table = Table::new(&head).verbose(true);
    for row in &answer.value {
        table.row([
            String::new(),
            row.source.to_string(),
            row.says(),
            row.destination.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_consuls() {
        for (time, text) in [
            ("2026-03-01T09:30:00.250Z", "Sunday, 01-Mar-26 09:30:00 UTC"),
            (
                "2026-03-01T00:30:00+02:00",
                "Saturday, 28-Feb-26 22:30:00 UTC",
            ),
            ("", ""),
            ("yesterday", ""),
        ] {
            assert_eq!(rfc850(time), text, "{time}");
        }
    }
}

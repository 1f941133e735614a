//! `meshctl status`: what a server knows of itself and its cluster.

use clap::Args;

use crate::args::{Connection, Freshness, Output};
use crate::client::{Client, Status};
use crate::console::Console;
use crate::error::{CliError, FAILED};
use crate::output;

/// What a server knows of itself and its cluster
///
/// Exit code 0: it works; 1: it takes no writes, or there is no leader.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(args: &StatusArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client.status().await?;
    let status = &answer.value;
    match args.output.is_json() {
        true => console.json(&answer.json)?,
        false => console.text(&output::fields(&told(status)))?,
    }
    let works = status.leader.is_some() && status.health.status != "failed";
    Ok(if works { 0 } else { FAILED })
}

fn told(status: &Status) -> Vec<(String, String)> {
    let server = &status.server;
    let cluster = status.cluster.as_ref();
    let of_cluster = |text: fn(&crate::client::Cluster) -> String| cluster.map(text);
    let leader = status.leader.as_ref();
    let health = match &status.health.reason {
        Some(reason) => format!("{}: {reason}", status.health.status),
        None => status.health.status.clone(),
    };
    let contact = status.last_contact_ms.map(|ms| format!("{ms} ms ago"));
    let field = |label: &str, value: String| (label.to_owned(), value);
    vec![
        field("Server", format!("{} ({})", server.name, server.id)),
        field("Version", server.version.clone()),
        field("Address", server.address.clone()),
        field("State", status.state.clone()),
        field("Health", health),
        field(
            "Leader",
            leader.map_or("none".to_owned(), |peer| {
                format!("{} ({})", peer.name, peer.address)
            }),
        ),
        field("Last contact", contact.unwrap_or_default()),
        field("Term", status.term.to_string()),
        field("Index", status.index.to_string()),
        field("Epoch", status.epoch.clone()),
        field(
            "Cluster",
            of_cluster(|one| one.id.clone()).unwrap_or("none yet".to_owned()),
        ),
        field(
            "Datacenter",
            of_cluster(|one| one.datacenter.clone()).unwrap_or_default(),
        ),
        field(
            "Trust domain",
            of_cluster(|one| one.trust_domain.clone()).unwrap_or_default(),
        ),
        field(
            "Level",
            of_cluster(|one| one.level.to_string()).unwrap_or_default(),
        ),
        field("Agents", status.agents.to_string()),
    ]
}

//! `meshctl operator`: members of the cluster, sealing keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mesh_ca::SealingKey;

use crate::args::{Connection, Freshness, Output};
use crate::client::Client;
use crate::console::Console;
use crate::error::CliError;
use crate::output::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Members of the cluster
    Raft {
        #[command(subcommand)]
        command: RaftCommand,
    },
    /// The key that seals private keys in the state
    SealingKey {
        #[command(subcommand)]
        command: SealingCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RaftCommand {
    /// List the servers of the cluster
    ListPeers(ListArgs),
    /// Remove a server that does not come back
    RemovePeer(RemoveArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SealingCommand {
    Create(CreateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Its id or name, as list-peers shows them
    #[arg(long)]
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// Make a sealing key
///
/// Every server of a cluster has the same file. Without it a snapshot's private
/// keys cannot be opened: keep a copy apart from the snapshots.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CreateArgs {
    /// The new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) async fn run(
    command: &OperatorCommand,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    match command {
        OperatorCommand::Raft { command } => match command {
            RaftCommand::ListPeers(args) => list_peers(args, console).await,
            RaftCommand::RemovePeer(args) => remove_peer(args, console).await,
        },
        OperatorCommand::SealingKey {
            command: SealingCommand::Create(args),
        } => create(args, console),
    }
}

async fn list_peers(args: &ListArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client.peers().await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    let mut table = Table::new(&["Node", "ID", "Address", "State", "Voter"]);
    for peer in answer.value {
        let state = if peer.leader { "leader" } else { "follower" };
        table.row([
            peer.name,
            peer.id,
            peer.address,
            state.to_owned(),
            peer.voter.to_string(),
        ]);
    }
    console.table(&table).map(|()| 0)
}

async fn remove_peer(args: &RemoveArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    client.remove_peer(&args.id).await?;
    console.line(format!("Removed peer with id \"{}\"", args.id))?;
    Ok(0)
}

fn create(args: &CreateArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    if args.file.exists() {
        return Err(CliError::refused(
            format!(
                "{}: is there already, and is never replaced",
                args.file.display()
            ),
            "What it sealed could not be opened any more.",
        ));
    }
    let key = SealingKey::generate_file(&args.file);
    let key = key.map_err(|error| CliError::refused(error, ""))?;
    console.line(format!(
        "Created sealing key {} in {}",
        key.id(),
        args.file.display()
    ))?;
    console.text(
        "\nPut it on every server, readable by it alone, and into its configuration:\n\n  \
         sealing_key_file = \"/etc/meshctl/sealing.key\"\n\nKeep a copy apart from the snapshots: \
         without it no private key in them can be\nopened.\n",
    )?;
    Ok(0)
}

//! `meshctl snapshot`: the whole state as a file.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mesh_state::{SnapshotError, Summary};

use crate::args::{Connection, Freshness, Output};
use crate::client::Client;
use crate::console::Console;
use crate::error::CliError;
use crate::output::{self, Table, when};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    Save(SaveArgs),
    /// Show what a file has, without a server
    Inspect(InspectArgs),
    Restore(RestoreArgs),
}

/// Save the state to a file, and read it back before it gets its name
///
/// Private keys in it are sealed: it is of use only with the sealing key.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SaveArgs {
    /// The file; one of that name is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take what the server has, also without a leader
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Bring the cluster back to what a file has
///
/// All that was written after the snapshot is gone. The sealing key must be the
/// one that the cluster had.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RestoreArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(
    command: &SnapshotCommand,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    match command {
        SnapshotCommand::Save(args) => save(args, console).await,
        SnapshotCommand::Inspect(args) => inspect(args, console),
        SnapshotCommand::Restore(args) => restore(args, console).await,
    }
}

async fn save(args: &SaveArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let freshness = Freshness {
        stale: args.stale,
        consistent: false,
    };
    let client = Client::new(&args.connection, freshness, console)?;
    let mut unverified = args.file.clone().into_os_string();
    unverified.push(".unverified");
    let unverified = PathBuf::from(unverified);
    let summary = fetch(&client, &unverified).await.inspect_err(|_| {
        // A part of a state is of no use to anybody.
        let _ = std::fs::remove_file(&unverified);
    })?;
    std::fs::rename(&unverified, &args.file).map_err(CliError::file(&args.file))?;
    sync_folder(&args.file)?;
    console.line(format!(
        "Saved and verified snapshot to index {}",
        summary.index
    ))?;
    Ok(0)
}

/// Writes the snapshot, and reads it back from the disk.
async fn fetch(client: &Client, path: &Path) -> Result<Summary, CliError> {
    let mut file = private(path)?;
    client
        .save_snapshot(|bytes| file.write_all(bytes).map_err(CliError::file(path)))
        .await?;
    file.sync_all().map_err(CliError::file(path))?;
    drop(file);
    read(path)
}

/// A new file that only its owner reads; what an earlier attempt left is gone.
fn private(path: &Path) -> Result<File, CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::file(path)(error));
        }
        _ => {}
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    opened.map_err(CliError::file(path))
}

/// So that the name survives a loss of power as the bytes do.
fn sync_folder(path: &Path) -> Result<(), CliError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(CliError::file(folder))
}

fn read(path: &Path) -> Result<Summary, CliError> {
    let file = File::open(path).map_err(CliError::file(path))?;
    mesh_state::inspect_up_to(BufReader::new(file), crate::LEVEL).map_err(|error| {
        let advice = match &error {
            SnapshotError::Newer(_) | SnapshotError::Level { .. } => "Use a newer meshctl.",
            _ => "It is not used. Save another one.",
        };
        CliError::refused(format!("{}: {error}", path.display()), advice)
    })
}

fn inspect(args: &InspectArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let summary = read(&args.file)?;
    if args.output.is_json() {
        let json = serde_json::to_value(&summary).unwrap_or_default();
        return console.json(&json).map(|()| 0);
    }
    let field = |label: &str, value: String| (label.to_owned(), value);
    let taken = i64::try_from(summary.now / 1000).unwrap_or_default();
    console.text(&output::fields(&[
        field("ID", summary.sha256.clone()),
        field("Size", summary.bytes.to_string()),
        field("Index", summary.index.to_string()),
        field("Epoch", summary.epoch.clone()),
        field("State of", when(taken)),
        field("Version", summary.format.to_string()),
        field("Level", summary.level.to_string()),
        field("Cluster", summary.cluster_id.clone()),
        field("Trust domain", summary.trust_domain.clone()),
    ]))?;
    console.line("")?;
    let mut table = Table::new(&["Type", "Count", "Deleted", "Size"]);
    let mut total = (0, 0, 0);
    for (name, one) in &summary.tables {
        total = (
            total.0 + one.rows,
            total.1 + one.tombstones,
            total.2 + one.bytes,
        );
        table.row([
            name.clone(),
            one.rows.to_string(),
            one.tombstones.to_string(),
            one.bytes.to_string(),
        ]);
    }
    table.row([
        "Total".to_owned(),
        total.0.to_string(),
        total.1.to_string(),
        total.2.to_string(),
    ]);
    console.table(&table).map(|()| 0)
}

async fn restore(args: &RestoreArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    // Read whole first: a damaged file is found before it is sent.
    read(&args.file)?;
    let bytes = std::fs::read(&args.file).map_err(CliError::file(&args.file))?;
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client.restore_snapshot(bytes).await?;
    console.line("Restored snapshot")?;
    console.note(format!("The state is now at index {}.", answer.value.index));
    Ok(0)
}

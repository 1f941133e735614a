//! `meshctl config`: single entries, ours and those of Consul's kinds, with the
//! messages and exit codes of Consul's `config` commands.
//!
//! An entry of ours is named `kind/name`; an intention has two names, and is
//! `intention/web => db`.

mod name;
mod write;

use clap::{Args, Subcommand};
use mesh_model::{EntryKey, Kind, render};
use serde_json::Value;

use crate::args::{Connection, Format, Freshness, Namespace, Output, Owner};
use crate::client::{Client, unrow};
use crate::commands::apply;
use crate::console::Console;
use crate::error::{CliError, FAILED};
use name::{Name, label};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Delete(DeleteArgs),
    List(ListArgs),
    Read(ReadArgs),
    Write(write::WriteArgs),
}

/// Print an entry: ours as JSON, Consul's as it was written.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    which: Which,
    /// Print it as HCL that can be written again
    #[arg(long, conflicts_with_all = ["output", "json"])]
    hcl: bool,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// List the names of a kind's entries, one a line.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// mesh, service, route, intention; or Consul's
    #[arg(long)]
    kind: String,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Delete an entry, by its name or by the file that it was written from.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// The file that has it
    #[arg(long, conflicts_with_all = ["kind", "name"])]
    filename: Option<std::path::PathBuf>,
    #[command(flatten)]
    cas: Cas,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// One entry.
#[derive(Debug, Args)]
struct Which {
    /// mesh, service, route, intention; or Consul's
    #[arg(long)]
    kind: Option<String>,
    /// Its name; of an intention, "SRC => DST"
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
}

/// Check and set.
#[derive(Clone, Copy, Debug, Args)]
struct Cas {
    /// Only if the entry is at -modify-index
    #[arg(long, requires = "modify_index")]
    cas: bool,
    /// The index that was read; 0: there is no such entry
    #[arg(long, value_name = "INDEX", requires = "cas")]
    modify_index: Option<u64>,
}

impl Cas {
    fn index(self) -> Option<u64> {
        self.modify_index.filter(|_| self.cas)
    }
}

impl Which {
    fn name(&self) -> Result<Name, CliError> {
        let missing = |flag: &str| {
            CliError::refused(
                format!("-{flag} is missing"),
                "Write for example: meshctl config read -kind service -name web",
            )
        };
        let kind = self.kind.as_deref().ok_or_else(|| missing("kind"))?;
        match (kind, self.name.as_deref()) {
            ("mesh", name) => Name::parse(kind, name.unwrap_or("mesh"), &self.namespace),
            (_, Some(name)) => Name::parse(kind, name, &self.namespace),
            (_, None) => Err(missing("name")),
        }
    }
}

pub(crate) async fn run(
    command: &ConfigCommand,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    match command {
        ConfigCommand::Write(args) => write::run(args, console).await,
        ConfigCommand::Read(args) => read(args, console).await,
        ConfigCommand::List(args) => list(args, console).await,
        ConfigCommand::Delete(args) => delete(args, console).await,
    }
}

async fn read(args: &ReadArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let name = args.which.name()?;
    let client = Client::new(&args.connection, args.freshness, console)?;
    match name {
        Name::Ours(key) => {
            let row = client.row(&key).await?;
            if !args.hcl {
                return console.json(&row).map(|()| 0);
            }
            let Some(entry) = apply::entry(key.kind(), &unrow(&row)) else {
                return Err(CliError::refused(
                    format!("{key}: has fields that this meshctl does not know"),
                    "Without -hcl it is printed as JSON, as it is.",
                ));
            };
            console.text(&render::render(&entry))?;
        }
        Name::Consul { kind, name } => {
            let answer = client.config(&kind, &name).await?;
            let asked = args.output.json || args.output.output != Format::Table;
            match answer.json["text"].as_str() {
                Some(text) if !asked => console.line(text.trim_end())?,
                _ => console.json(&answer.json)?,
            }
        }
    }
    Ok(0)
}

async fn list(args: &ListArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    let ours = args.kind.parse::<Kind>().ok();
    let rows = match ours {
        Some(kind) => client.rows(kind).await?,
        None => client.configs(&name::consul(&args.kind)?).await?.value,
    };
    if args.output.is_json() {
        return console.json(&Value::Array(rows)).map(|()| 0);
    }
    for row in &rows {
        console.line(name::of_row(ours, row))?;
    }
    Ok(0)
}

async fn delete(args: &DeleteArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let names = match &args.filename {
        None => vec![args.which.name()?],
        Some(file) => write::names(file, console)?,
    };
    if args.cas.cas && names.len() > 1 {
        return Err(CliError::refused(
            "-modify-index is the index of one entry, and this file has several",
            "Leave -cas out, or delete them one by one.",
        ));
    }
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let cas = args.cas.index();
    let mut failed = 0;
    for name in &names {
        let deleted = match name {
            Name::Ours(key) => client.delete(key, cas, &args.owner).await.map(|a| a.json),
            Name::Consul { kind, name } => {
                let answer = client.delete_config(kind, name, cas, &args.owner).await;
                answer.map(|answer| answer.json)
            }
        };
        match deleted {
            Ok(json) if args.output.is_json() => console.json(&json)?,
            Ok(_) => console.line(format!("Config entry deleted: {}", label(name)))?,
            Err(error) if cas.is_some() && error.code() == Some("conflict") => {
                console.note(format!("Config entry not deleted: {}", label(name)));
                failed = FAILED;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(failed)
}

/// An entry of ours has its key for a name.
impl From<EntryKey> for Name {
    fn from(key: EntryKey) -> Self {
        Self::Ours(key)
    }
}

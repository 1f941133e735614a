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

use crate::args::{Connection, Format, Freshness, Namespace, Output, Owner, Wait};
use crate::client::{Client, Operation, unrow};
use crate::commands::{apply, live};
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
    /// mesh, service, route, intention, gateway; or Consul's
    #[arg(long)]
    kind: String,
    /// Only those of this namespace; of intentions, to it
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
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
    wait: Wait,
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
    /// mesh, service, route, intention, gateway; or Consul's
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
    let mut rows = match ours {
        Some(kind) => client.rows(kind).await?,
        None => client.configs(&name::consul(&args.kind)?).await?.value,
    };
    if let Some(namespace) = &args.namespace {
        rows.retain(|row| name::namespace(ours, row) == *namespace);
    }
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
    let deleted = match names.as_slice() {
        [Name::Ours(key)] => client.delete(key, cas, &args.owner).await,
        [Name::Consul { kind, name }] => client.delete_config(kind, name, cas, &args.owner).await,
        // One write, as they were written: of some of them others would be
        // left without what they need, and in whatever order.
        several => {
            let delete = |name: &Name| match name {
                Name::Ours(key) => Some(Operation::delete(key.clone(), None)),
                Name::Consul { .. } => None, // a file has one of these
            };
            let operations: Vec<Operation> = several.iter().filter_map(delete).collect();
            client.apply(&operations, &args.owner, false).await
        }
    };
    let answer = match deleted {
        Ok(answer) => answer,
        Err(error) if cas.is_some() && error.code() == Some("conflict") => {
            for name in &names {
                console.note(format!("Config entry not deleted: {}", label(name)));
            }
            return Ok(FAILED);
        }
        Err(error) => return Err(error),
    };
    if args.output.is_json() {
        console.json(&answer.json)?;
    } else {
        for name in &names {
            console.line(format!("Config entry deleted: {}", label(name)))?;
        }
    }
    live::wait(&client, args.wait, answer.value.index, None, console).await
}

/// An entry of ours has its key for a name.
impl From<EntryKey> for Name {
    fn from(key: EntryKey) -> Self {
        Self::Ours(key)
    }
}

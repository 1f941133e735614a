//! `meshctl config write`, and what a file's entries are called.

use std::path::{Path, PathBuf};

use clap::Args;
use mesh_model::consul::{self, ConfigEntry};
use mesh_model::{Entry, Located};

use super::Cas;
use super::name::{Name, label};
use crate::args::{Connection, Freshness, Output, Owner, Wait};
use crate::client::{Answer, Client, Operation};
use crate::commands::files::{self, Source};
use crate::commands::{live, placed};
use crate::console::Console;
use crate::error::{CliError, FAILED};

/// Write the entries of a file: HCL blocks, or one entry as Consul has it
///
/// The blocks of a file are one write: all of them or none.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct WriteArgs {
    /// HCL, or for Consul's kinds also JSON; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
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

pub(super) async fn run(args: &WriteArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let source = one(&args.file, console)?;
    let is_theirs = consul::is_config_entry(&source.1);
    // Mistakes are found here, with their places, before anything is sent.
    let (names, entries) = match is_theirs {
        true => {
            let entry = theirs(&source)?;
            let names = vec![named(&entry.value)];
            (names, placed::compiled(&[entry]))
        }
        false => {
            let entries = read(&source, args.cas)?;
            (names_of(&entries), entries)
        }
    };
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let cas = args.cas.index();
    let written = match is_theirs {
        true => client.write_config(source.1, cas, &args.owner).await,
        false => {
            let put = |one: &Located<Entry>| Operation::put(one.value.clone(), cas);
            let operations: Vec<Operation> = entries.iter().map(put).collect();
            client.apply(&operations, &args.owner, false).await
        }
    };
    let Answer { json, value } = match written {
        Ok(answer) => answer,
        Err(error) if cas.is_some() && error.code() == Some("conflict") => {
            for name in &names {
                console.note(format!("Config entry not updated: {}", label(name)));
            }
            return Ok(FAILED);
        }
        Err(error) => return Err(placed::explained(error, &entries)),
    };
    // As Consul says it.
    placed::warn("WARNING", &value.warnings, &entries, console);
    if args.output.is_json() {
        console.json(&json)?;
    } else {
        for name in &names {
            console.line(format!("Config entry written: {}", label(name)))?;
        }
    }
    live::wait(&client, args.wait, value.index, None, console).await
}

/// What the entries of a file are called.
pub(super) fn names(file: &Path, console: &mut Console<'_>) -> Result<Vec<Name>, CliError> {
    let source = one(file, console)?;
    if consul::is_config_entry(&source.1) {
        return Ok(vec![named(&theirs(&source)?.value)]);
    }
    let entries = files::entries(std::slice::from_ref(&source)).map_err(CliError::Invalid)?;
    match entries.is_empty() {
        true => Err(empty(&source.0)),
        false => Ok(names_of(&entries)),
    }
}

fn one(file: &Path, console: &mut Console<'_>) -> Result<Source, CliError> {
    if file.is_dir() {
        return Err(CliError::refused(
            format!("{}: is a folder", file.display()),
            "`meshctl apply -f` takes folders.",
        ));
    }
    let mut sources = files::sources(&[file.to_owned()], console)?;
    sources
        .pop()
        .ok_or_else(|| empty(&file.display().to_string()))
}

fn theirs(source: &Source) -> Result<Located<ConfigEntry>, CliError> {
    let (file, text) = source;
    consul::parse_located(file, text).map_err(CliError::Invalid)
}

fn named(entry: &ConfigEntry) -> Name {
    Name::Consul {
        kind: entry.kind.to_string(),
        name: entry.key().to_string(),
    }
}

fn names_of(entries: &[Located<Entry>]) -> Vec<Name> {
    entries.iter().map(|one| one.value.key().into()).collect()
}

fn read(source: &Source, cas: Cas) -> Result<Vec<Located<Entry>>, CliError> {
    let entries = files::entries(std::slice::from_ref(source)).map_err(CliError::Invalid)?;
    match entries.len() {
        0 => Err(empty(&source.0)),
        2.. if cas.cas => Err(CliError::refused(
            "-modify-index is the index of one entry, and this file has several",
            "`meshctl apply` looks at the index of each.",
        )),
        _ => Ok(entries),
    }
}

fn empty(file: &str) -> CliError {
    CliError::refused(format!("{file}: has no entry in it"), "")
}

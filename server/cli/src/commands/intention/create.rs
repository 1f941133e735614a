//! `meshctl intention create`.

use std::collections::BTreeMap;

use clap::Args;
use mesh_model::{Action, Entry, EntryKey, Intention, IntentionRule, Key};

use super::file;
use crate::args::{Connection, Freshness, Namespace, Output, Owner, Wait};
use crate::client::{Client, Operation};
use crate::commands::{live, placed};
use crate::console::Console;
use crate::error::CliError;

/// Allow or deny calls from SRC to DST
///
/// A name is `web`, `namespace/web`, `*` or `namespace/*`. What needs
/// permissions by path or method is written in a file.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(override_usage = "meshctl intention create [OPTIONS] SRC DST\n       \
                            meshctl intention create [OPTIONS] -file FILE...")]
pub(crate) struct CreateArgs {
    /// The calling and the called service; files with -file
    #[arg(value_name = "SRC DST", required = true)]
    what: Vec<String>,
    /// Allow it (so it is without -deny too)
    #[arg(long, conflicts_with_all = ["deny", "file"])]
    allow: bool,
    /// Deny it
    #[arg(long, conflicts_with = "file")]
    deny: bool,
    /// The arguments are files; `-`: standard input
    #[arg(long)]
    file: bool,
    /// Replace the one that is there
    #[arg(long)]
    replace: bool,
    /// A key and a value to keep with it; again for more
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "file")]
    meta: Vec<String>,
    /// A sentence for people
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    description: Option<String>,
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

pub(super) async fn run(args: &CreateArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let (intentions, files) = match args.file {
        true => file::read(&args.what, console)?,
        false => (vec![from_arguments(args)?], Vec::new()),
    };
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let cas = (!args.replace).then_some(0);
    let operations: Vec<Operation> = intentions
        .iter()
        .map(|one| Operation::put(Entry::Intention(one.clone()), cas))
        .collect();
    let answer = match client.apply(&operations, &args.owner, false).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = placed::explained(error, &files);
            return Err(explained(error, &client).await);
        }
    };
    let applied = answer.value;
    placed::warn("Warning", &applied.warnings, &files, console);
    if args.output.is_json() {
        console.json(&answer.json)?;
    } else {
        // As Consul: one that was replaced is passed over in silence.
        for intention in &intentions {
            let key = Entry::Intention(intention.clone()).key();
            let written = applied.results.iter().find(|written| written.key == key);
            if written.is_some_and(|written| written.change == "created") {
                console.line(format!("Created: {}", shown(intention)))?;
            }
        }
    }
    let destination = same_destination(&intentions);
    live::wait(&client, args.wait, applied.index, destination, console).await
}

fn from_arguments(args: &CreateArgs) -> Result<Intention, CliError> {
    if let (Some(_), [time, _, _]) = (args.wait.wait, args.what.as_slice())
        && let Some(hint) = crate::args::wait_hint(time)
    {
        let message = format!("an intention has two sides, and {time} is none");
        return Err(CliError::refused(message, hint));
    }
    let (source, destination) = super::pair(&args.what, &args.namespace)?;
    let mut meta = BTreeMap::new();
    for pair in &args.meta {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            let message = format!("-meta {pair}: is not of the form key=value");
            return Err(CliError::refused(message, ""));
        };
        if meta.insert(key.to_owned(), value.to_owned()).is_some() {
            let message = format!("-meta {key}: stands twice");
            return Err(CliError::refused(message, ""));
        }
    }
    Ok(Intention {
        source,
        destination,
        rule: IntentionRule::Action(if args.deny {
            Action::Deny
        } else {
            Action::Allow
        }),
        description: args.description.clone().unwrap_or_default(),
        meta,
    })
}

/// `web => db (allow)`.
fn shown(intention: &Intention) -> String {
    let says = match &intention.rule {
        IntentionRule::Action(action) => crate::client::says(Some(*action), 0),
        IntentionRule::Permissions(all) => crate::client::says(None, all.len()),
    };
    format!("{} => {} ({says})", intention.source, intention.destination)
}

/// The destination of all, where it is one and the same.
fn same_destination(intentions: &[Intention]) -> Option<&Key> {
    let (first, rest) = intentions.split_first()?;
    let same = rest.iter().all(|one| one.destination == first.destination);
    same.then_some(&first.destination)
}

/// An intention that is there already is the mistake that is made most.
async fn explained(error: CliError, client: &Client) -> CliError {
    let CliError::Api(api) = &error else {
        return error;
    };
    let key = api.details.get("key").cloned().unwrap_or_default();
    let conflict = api.code == "conflict";
    let Ok(EntryKey::Intention {
        source,
        destination,
    }) = serde_json::from_value(key)
    else {
        return error;
    };
    if !conflict {
        return error;
    }
    let there = match client.intention(&source, &destination).await {
        Ok(there) => format!("{} of owner {}", there.value, there.value.owner),
        Err(_) => format!("{source} => {destination}"),
    };
    CliError::refused(
        format!("there is such an intention already: {there}"),
        "-replace replaces it. Nothing was written.",
    )
}

//! `meshctl intention`: output and exit codes are those that users of Consul's
//! `intention` commands know, and that their scripts read.

mod check;
mod create;
mod file;
mod show;

use clap::Subcommand;
use mesh_model::Key;

use crate::args::Namespace;
use crate::console::Console;
use crate::error::CliError;

#[derive(Debug, Subcommand)]
pub(crate) enum IntentionCommand {
    Check(check::CheckArgs),
    Create(create::CreateArgs),
    Delete(show::DeleteArgs),
    Get(show::GetArgs),
    List(show::ListArgs),
    Match(show::MatchArgs),
}

pub(crate) async fn run(
    command: &IntentionCommand,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    match command {
        IntentionCommand::Check(args) => check::run(args, console).await,
        IntentionCommand::Create(args) => create::run(args, console).await,
        IntentionCommand::Delete(args) => show::delete(args, console).await,
        IntentionCommand::Get(args) => show::get(args, console).await,
        IntentionCommand::List(args) => show::list(args, console).await,
        IntentionCommand::Match(args) => show::matching(args, console).await,
    }
}

/// A side of an intention.
fn side(text: &str, what: &str, namespace: &Namespace) -> Result<Key, CliError> {
    let key = namespace.key(text);
    key.map_err(|error| CliError::refused(format!("{what}: {error}"), ""))
}

/// SRC and DST.
fn pair(sides: &[String], namespace: &Namespace) -> Result<(Key, Key), CliError> {
    match sides {
        [source, destination] => Ok((
            side(source, "SRC", namespace)?,
            side(destination, "DST", namespace)?,
        )),
        _ => Err(CliError::refused(
            format!(
                "an intention has a source and a destination, and {} stand here",
                sides.len()
            ),
            "Write for example: meshctl intention create -allow web db",
        )),
    }
}

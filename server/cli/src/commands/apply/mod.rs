//! `meshctl apply`: what the files say becomes what the mesh has, as one write
//! that is planned, shown, confirmed, and then made only if nothing that the
//! plan looked at has changed meanwhile.

mod conflict;
mod diff;
mod plan;

use std::path::PathBuf;

use clap::Args;
use mesh_model::{Entry, Located};

pub(crate) use plan::entry;
use plan::{Current, Plan};

use super::{files, live, placed};
use crate::args::{Connection, Freshness, Output, Wait};
use crate::client::{Answer, Applied, Client};
use crate::console::{Colour, Console};
use crate::error::{CliError, FAILED, count};

/// Bring the mesh to what HCL files say
///
/// Shows a plan, asks for a `yes`, and writes all of it or nothing. What is not
/// in the files stays, unless -prune is given, and then only what this -owner
/// wrote is deleted.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ApplyArgs {
    /// A file or folder of .hcl files; `-`: standard input
    #[arg(short, long, value_name = "PATH", required = true)]
    file: Vec<PathBuf>,
    /// In whose name this is written [apply]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "apply",
        hide_default_value = true,
        value_parser = crate::args::owner
    )]
    owner: String,
    /// Delete what this owner wrote and the files do not have
    #[arg(long)]
    prune: bool,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    /// Take over what belongs to another owner
    #[arg(long)]
    force: bool,
    /// Show the plan, have it checked, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(args: &ApplyArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let sources = files::sources(&args.file, console)?;
    let entries = files::entries(&sources).map_err(CliError::Invalid)?;
    let owner = crate::args::Owner {
        owner: args.owner.clone(),
        force: args.force,
    };
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let current = Current::read(&client).await?;
    let plan = Plan::of(&entries, &current, &args.owner, args.prune);
    if !args.output.is_json() {
        show(&plan, &args.owner, console)?;
    }
    if plan.is_empty() {
        if args.output.is_json() {
            console.json(&plan.json())?;
        }
        // It may stand and not be live yet: whoever waits asks for that.
        return match plan.stands_since() {
            Some(index) => live::wait(&client, args.wait, index, None, console).await,
            None => Ok(0),
        };
    }
    refuse_foreign(&plan, args)?;
    let operations = plan.operations();
    let checked = client.apply(&operations, &owner, true).await;
    let checked = explained(checked, &plan, &entries, &client).await?;
    placed::warn("Warning", &checked.value.warnings, &entries, console);
    if args.dry_run {
        return match args.output.is_json() {
            true => console.json(&plan.json()).map(|()| 0),
            false => console.line("\nDry run: nothing was written.").map(|()| 0),
        };
    }
    if !approved(args, console)? {
        console.note("Nothing was written.");
        return Ok(FAILED);
    }
    let done = client.apply(&operations, &owner, false).await;
    let done = explained(done, &plan, &entries, &client).await?;
    match args.output.is_json() {
        true => console.json(&done.json)?,
        false => console.line(format!(
            "\nApplied: {} at index {}.",
            count(plan.steps.len(), "change", "changes"),
            done.value.index
        ))?,
    }
    live::wait(&client, args.wait, done.value.index, None, console).await
}

fn show(plan: &Plan, owner: &str, console: &mut Console<'_>) -> Result<(), CliError> {
    for step in &plan.steps {
        let foreign = match step.foreign(owner) {
            Some(other) => format!(" (of owner {other})"),
            None => String::new(),
        };
        let colour = match step.sign() {
            '+' => Colour::Green,
            '-' => Colour::Red,
            _ => Colour::Yellow,
        };
        let head = console.paint(colour, &format!("{} {}", step.sign(), step.key));
        console.line(format!("{head}{foreign}"))?;
        for line in step.difference() {
            console.line(format!("    {line}"))?;
        }
    }
    if !plan.steps.is_empty() {
        console.line("")?;
    }
    if plan.is_empty() {
        let same = count(plan.unchanged.len(), "entry stands", "entries stand");
        console.line(format!("Nothing to do: {same} as written."))?;
    } else {
        console.line(plan.summary())?;
    }
    if plan.left > 0 {
        console.note(format!(
            "Left as it is: {} of owner {owner} that the files do not have; -prune deletes such.",
            count(plan.left, "entry", "entries")
        ));
    }
    if plan.of_config > 0 {
        console.note(format!(
            "Left as it is: {} of config entries; `meshctl config delete` deletes such with the \
             entry.",
            count(plan.of_config, "row", "rows")
        ));
    }
    Ok(())
}

/// What belongs to others is found before anybody is asked for a yes.
fn refuse_foreign(plan: &Plan, args: &ApplyArgs) -> Result<(), CliError> {
    let foreign: Vec<String> = plan
        .steps
        .iter()
        .filter_map(|step| Some(format!("{} of {}", step.key, step.foreign(&args.owner)?)))
        .collect();
    match foreign.is_empty() || args.force {
        true => Ok(()),
        false => Err(CliError::refused(
            format!(
                "the plan changes what belongs to another owner: {}",
                foreign.join(", ")
            ),
            "-force takes it over. Nothing was written.",
        )),
    }
}

fn approved(args: &ApplyArgs, console: &mut Console<'_>) -> Result<bool, CliError> {
    if args.auto_approve {
        return Ok(true);
    }
    let from_input = args.file.iter().any(|path| path.as_os_str() == "-");
    if !console.interactive || from_input || args.output.is_json() {
        return Err(CliError::refused(
            "nobody is there to confirm the plan",
            "-auto-approve applies it without a question. Nothing was written.",
        ));
    }
    console.confirm("\nApply this? Only `yes` is a yes:")
}

/// Findings of the server, at their places in the files; conflicts, with what
/// changed.
async fn explained(
    answer: Result<Answer<Applied>, CliError>,
    plan: &Plan,
    entries: &[Located<Entry>],
    client: &Client,
) -> Result<Answer<Applied>, CliError> {
    let error = match answer {
        Ok(answer) => return Ok(answer),
        Err(CliError::Api(error)) => error,
        Err(error) => return Err(error),
    };
    match error.code.as_str() {
        "conflict" => Err(conflict::explain(error, plan, client).await),
        _ => Err(placed::explained(error.into(), entries)),
    }
}

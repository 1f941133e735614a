//! meshctl: the command line, and the composition root.
//!
//! Everything else of the control plane is a library that knows nothing of
//! files, flags or terminals; here they meet. A command reads its arguments,
//! asks a server over the HTTP API or starts one, and says what came of it: as
//! a table for people, as JSON for programs, and as an exit code for scripts.
//!
//! [`run`] takes the arguments and a [`Console`], so that tests run commands
//! without a process.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod console;
mod dev;
mod error;
mod here;
mod normalise;
mod output;
mod overlay;
mod running;

#[cfg(test)]
mod tests;

use std::io::{BufReader, IsTerminal};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use args::{Cli, Command};
pub use console::Console;
use error::{CliError, FAILED};

/// The highest level of the state's commands that is spoken here: the state's, and in
/// `meshctl-tomorrow` one more.
pub(crate) const LEVEL: u32 = mesh_state::LEVEL + cfg!(feature = "tomorrow") as u32;

/// The exit code of a program whose reader went away, as shells know it.
const BROKEN_PIPE: u8 = 141;

/// The program: its arguments, its terminal, its exit code.
pub fn main() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => {
                eprintln!("Error: the argument {argument:?} is not UTF-8");
                return FAILED.into();
            }
        }
    }
    // By the name `consul` it is what Nomad runs for a sidecar's bootstrap.
    if arguments.first().is_some_and(|name| called(name, "consul")) {
        return mesh_shim::main(arguments.get(1..).unwrap_or_default()).into();
    }
    // By the name `consul-cni` it is the CNI plugin of transparent proxy.
    if arguments
        .first()
        .is_some_and(|name| called(name, "consul-cni"))
    {
        return mesh_cni::main().into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start: {error}");
            return FAILED.into();
        }
    };
    let (stdout, stdin) = (std::io::stdout(), std::io::stdin());
    let env = |name: &str| std::env::var(name).ok();
    let mut console = Console {
        colour: colours(stdout.is_terminal(), env("NO_COLOR")),
        interactive: stdin.is_terminal(),
        out: &mut stdout.lock(),
        err: &mut std::io::stderr(),
        input: &mut BufReader::new(stdin),
        env: &env,
        now: SystemTime::now(),
    };
    let code = runtime.block_on(run(arguments, &mut console));
    // What still runs (a blocking read of the terminal) must not hold us.
    runtime.shutdown_background();
    code.into()
}

/// Whether the program was called by this name, with whatever path before it.
fn called(program: &str, name: &str) -> bool {
    std::path::Path::new(program).file_name() == Some(name.as_ref())
}

/// Whether there are colours: on a terminal, unless NO_COLOR is set to anything
/// (<https://no-color.org>).
fn colours(terminal: bool, no_color: Option<String>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// Runs one command line, the program's name first; the exit code.
pub async fn run(arguments: Vec<String>, console: &mut Console<'_>) -> u8 {
    let root = args::root();
    let arguments = normalise::normalise(&root, arguments);
    let (usage, failed) = exit_codes(&arguments);
    let hint = arguments.windows(2).find_map(|pair| match pair {
        [flag, next] if flag == "--wait" => args::wait_hint(next),
        _ => None,
    });
    let cli = root
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match cli {
        Ok(cli) => dispatch(&cli, console).await,
        Err(error) => return refuse(&error, hint, usage, console),
    };
    let result = result.and_then(|code| match console.out.flush() {
        Ok(()) => Ok(code),
        Err(error) => Err(CliError::Output(error)),
    });
    match result {
        Ok(code) => code,
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            BROKEN_PIPE
        }
        Err(error) => {
            let _ = console.err.write_all(error.report().as_bytes());
            failed
        }
    }
}

async fn dispatch(cli: &Cli, console: &mut Console<'_>) -> Result<u8, CliError> {
    let Some(command) = &cli.command else {
        return match cli.version {
            true => version(console),
            false => {
                let help = args::root().render_help();
                console.text(&help.to_string()).map(|()| 0)
            }
        };
    };
    match command {
        Command::Agent(args) => commands::agent::run(args, console).await,
        Command::Apply(args) => commands::apply::run(args, console).await,
        Command::Ca { command } => commands::ca::run(command, console).await,
        Command::Catalog { command } => commands::catalog::run(command, console).await,
        Command::Completion(args) => commands::completion::run(args, console),
        Command::Config { command } => commands::config::run(command, console).await,
        Command::Dev(args) => dev::run(args.clone(), console).await,
        Command::Doctor(args) => commands::doctor::run(args, console).await,
        Command::Intention { command } => commands::intention::run(command, console).await,
        Command::Operator { command } => commands::operator::run(command, console).await,
        Command::Proxy { command } => commands::proxy::run(command, console).await,
        Command::Server(args) => commands::server::run(args, console).await,
        Command::Snapshot { command } => commands::snapshot::run(command, console).await,
        Command::Status(args) => commands::status::run(args, console).await,
        Command::Tls { command } => commands::tls::run(command, console),
        Command::Validate(args) => commands::validate::run(args, console),
        Command::Version => version(console),
    }
}

fn version(console: &mut Console<'_>) -> Result<u8, CliError> {
    console
        .line(concat!("meshctl v", env!("CARGO_PKG_VERSION")))
        .map(|()| 0)
}

/// Help that was asked for, or what is wrong with the arguments.
fn refuse(error: &clap::Error, hint: Option<String>, usage: u8, console: &mut Console<'_>) -> u8 {
    let text = error.render();
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let result = match (asked, console.colour) {
        (true, true) => write!(console.out, "{}", text.ansi()),
        (true, false) => write!(console.out, "{text}"),
        (false, _) => {
            let hint = hint.map(|hint| format!("\n  {hint}\n"));
            let text = sentence(&text.to_string());
            write!(console.err, "{text}{}", hint.unwrap_or_default())
        }
    };
    match (asked, result) {
        (true, Ok(())) => 0,
        (true, Err(_)) => BROKEN_PIPE,
        (false, _) => usage,
    }
}

/// clap's words in the form of all our errors.
fn sentence(text: &str) -> String {
    match text.strip_prefix("error: ") {
        Some(rest) => format!("Error: {rest}"),
        None => text.to_owned(),
    }
}

/// What wrong arguments and failures exit with, as in Consul: a check says 1
/// for "denied", so that all that goes wrong is 2 there.
fn exit_codes(arguments: &[String]) -> (u8, u8) {
    let mut words = arguments
        .iter()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    match (
        words.next().map(String::as_str),
        words.next().map(String::as_str),
    ) {
        (Some("intention"), Some("check")) => (2, 2),
        (Some("intention"), Some("match")) => (2, FAILED),
        _ => (FAILED, FAILED),
    }
}

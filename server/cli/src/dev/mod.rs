//! `meshctl dev`: a server and an agent in one process on loopback.
//!
//! Nothing needs to be set up: the cluster's certificates are made in memory,
//! the sealing key in the folder that holds the state (in memory unless it is
//! given), and the HTTP API is
//! plaintext, which loopback alone allows. The default intention is *allow*, so
//! that a first try meets no wall, and this is said at the start; a server's is
//! deny.

mod cluster;
mod demo;
mod memory;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use mesh_model::config::{LogFormat, LogLevel};

use crate::console::Console;
use crate::error::CliError;
use crate::running::{self, Signals, Told};
use cluster::Dev;

/// What `meshctl dev` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DevArgs {
    /// Also start three small services with sidecars, and steady traffic
    #[arg(long)]
    demo: bool,
    /// Where the demo writes the files it tells of
    #[arg(
        long,
        value_name = "DIR",
        default_value = "meshctl-demo",
        requires = "demo"
    )]
    demo_dir: PathBuf,
    /// The loopback address to bind
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Keep the state in this folder; without it, it stays in memory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// trace, debug, info, warn or error [info; warn with -demo]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: DevArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    if !args.bind.is_loopback() {
        return Err(CliError::refused(
            format!("-bind {}: is not a loopback address", args.bind),
            "meshctl dev speaks plaintext and lets everyone in, on loopback only.\n\
             docs/operations.md says how servers and agents are set up.",
        ));
    }
    let level = level(args.log_level.as_deref(), args.demo)?;
    running::log(level, LogFormat::Text, console.var("MESHCTL_LOG"))?;
    let mut signals = Signals::new()?;
    console.note("starting a server and an agent …");
    let dev = Dev::start(args.bind, args.data_dir.as_deref()).await?;
    console.text(&dev.welcome())?;
    let ended = match args.demo {
        true => demo::run(&dev, &args.demo_dir, &mut signals, console).await,
        false => wait(&mut signals, &dev).await,
    };
    running::stop(dev.shutdown(), &mut signals).await;
    ended.map(|()| 0)
}

async fn wait(signals: &mut Signals, dev: &Dev) -> Result<(), CliError> {
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => return Ok(()),
                Told::Reload => {}
            },
            reason = dev.failed() => return Err(CliError::refused(reason, "")),
        }
    }
}

fn level(given: Option<&str>, demo: bool) -> Result<LogLevel, CliError> {
    let usual = if demo { LogLevel::Warn } else { LogLevel::Info };
    let Some(given) = given else { return Ok(usual) };
    let known = [
        LogLevel::Trace,
        LogLevel::Debug,
        LogLevel::Info,
        LogLevel::Warn,
        LogLevel::Error,
    ];
    let found = known.into_iter().find(|level| level.as_str() == given);
    found.ok_or_else(|| {
        CliError::refused(
            format!("-log-level {given}: is not a level"),
            "Use trace, debug, info, warn or error.",
        )
    })
}

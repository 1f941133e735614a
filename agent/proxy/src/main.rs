//! `mesh-proxy`: the sidecar of the mesh.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mesh_proxy::StandardError;
use mesh_proxy::cli::{Arguments, Mode, USAGE};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("mesh-proxy: {error}");
            return ExitCode::from(2);
        }
    };
    match arguments.mode {
        Mode::Help => print!("{USAGE}"),
        Mode::Version => println!("mesh-proxy {}", env!("CARGO_PKG_VERSION")),
        Mode::StaticExample => println!("{}", mesh_proxy::static_example()),
        _ => return start(arguments),
    }
    ExitCode::SUCCESS
}

fn start(arguments: Arguments) -> ExitCode {
    mesh_proxy::raise_open_files();
    let log = match StandardError::start() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("mesh-proxy: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let writer = log.clone();
    // The access log has standard output to itself. A filter that reads environments would bring
    // the half of a regex engine.
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(move || writer.clone());
    let level = arguments.log_level.parse().unwrap_or(LevelFilter::INFO);
    let levels = Targets::new()
        .with_default(level)
        .with_targets(["h2", "hyper", "tonic"].map(|quiet| (quiet, LevelFilter::WARN)));
    tracing_subscriber::registry()
        .with(lines)
        .with(levels)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let ended = mesh_proxy::run(arguments).await;
            log.end(ended.last.as_deref()).await;
            ended.code
        }),
        Err(error) => {
            eprintln!("mesh-proxy: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

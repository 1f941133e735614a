//! `mesh-proxy`: the sidecar of the mesh.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mesh_proxy::StandardError;
use mesh_proxy::cli::{Arguments, Mode, USAGE};

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
    // The access log has standard output to itself.
    tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!(
            "{0},h2=warn,hyper=warn,tonic=warn",
            arguments.log_level
        )))
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

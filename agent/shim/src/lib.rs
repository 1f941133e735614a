//! The `consul` that Nomad runs.
//!
//! Before each start of a sidecar a Nomad client executes
//! `consul connect envoy … -bootstrap` and gives the sidecar what that prints.
//! Called by the name `consul`, our binary is that command: it asks this node's
//! agent for a bootstrap with a fresh ticket. It runs as Nomad's user, without
//! `PATH` and `HOME`; Nomad runs it anew, for a minute, when it fails.
//!
//! What goes wrong is one line on standard error, and an exit code for each
//! cause ([`Fault`]), since that is all that is seen of it: Nomad writes the
//! line to `alloc/logs/envoy_bootstrap.stderr.0`. The file is cut first: Nomad
//! does not, and the tail of an older, longer line would stand behind ours.
//!
//! The token that comes with `-token` may be the Nomad client's own. It is shown
//! to the agent, where the mesh asks for one, and copied nowhere.
#![forbid(unsafe_code)]

mod arguments;
mod fault;
mod find;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use mesh_attach::AttachError;
use mesh_proto::bootstrap::{Bootstrap, BootstrapRequest};

pub use arguments::{Arguments, Command};
pub use fault::Fault;

/// How long a registration is waited for in one try.
pub const WAIT: Duration = Duration::from_secs(20);

/// The program, with its arguments after the name. The exit code.
#[must_use]
pub fn main(arguments: &[String]) -> u8 {
    cut_stderr();
    let ended = Arguments::parse(arguments).and_then(|command| run(&command));
    match ended {
        Ok(text) => {
            let mut out = std::io::stdout().lock();
            match writeln!(out, "{text}").and_then(|()| out.flush()) {
                Ok(()) => 0,
                Err(error) => complain(&Fault::Other(format!("standard output: {error}"))),
            }
        }
        Err(fault) => complain(&fault),
    }
}

fn complain(fault: &Fault) -> u8 {
    let line = fault.to_string().replace('\n', " ");
    let _ = writeln!(std::io::stderr(), "meshctl: {line}");
    fault.exit_code()
}

fn run(command: &Command) -> Result<String, Fault> {
    match command {
        Command::Version => Ok(format!(
            "Consul v{} (the API that meshctl {} answers)",
            mesh_consul::agent::CONSUL_VERSION,
            env!("CARGO_PKG_VERSION"),
        )),
        Command::Bootstrap(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Fault::Other(format!("cannot start: {error}")))?;
            let made = runtime.block_on(bootstrap(arguments, WAIT))?;
            let text = serde_json::to_string_pretty(&made.to_envoy_json());
            text.map_err(|error| Fault::Other(error.to_string()))
        }
    }
}

/// Finds the agent and asks it, once.
///
/// # Errors
/// Why there is no bootstrap.
pub async fn bootstrap(arguments: &Arguments, wait: Duration) -> Result<Bootstrap, Fault> {
    let socket = find::socket(&arguments.http_addr).await?;
    let request = BootstrapRequest {
        proxy_id: Some(arguments.proxy_id.clone()),
        gateway: arguments.gateway,
        admin: arguments.admin_bind.clone(),
        ready: arguments.ready_bind.clone(),
        grpc_addr: arguments.grpc_addr.clone(),
        token: arguments.token.clone(),
        ..BootstrapRequest::default()
    };
    let asked = mesh_attach::bootstrap(&socket, &request, wait).await;
    asked.map_err(|error| fault(error, &socket))
}

fn fault(error: AttachError, socket: &Path) -> Fault {
    match error {
        AttachError::Socket { reason, .. } => Fault::Down {
            at: socket.display().to_string(),
            reason,
        },
        AttachError::Bootstrap(error) => Fault::Version(error.to_string()),
        AttachError::Refused {
            status,
            reason,
            wanted,
        } => match status {
            StatusCode::NOT_FOUND => Fault::Unregistered(wanted),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Fault::Token(reason),
            // It does not know the question, or a part of it.
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => Fault::Version(reason),
            _ => Fault::Other(reason),
        },
    }
}

/// Cuts standard error when it is a file.
fn cut_stderr() {
    use nix::sys::stat::{SFlag, fstat};
    let stderr = std::io::stderr();
    let regular = fstat(&stderr).is_ok_and(|found| {
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    });
    if regular {
        let _ = nix::unistd::ftruncate(&stderr, 0);
    }
}

//! A provider as the program that Terraform starts.
//!
//! Terraform starts it with a cookie in its environment, and with a certificate
//! made for this one run. The provider makes its own, listens on a socket in a
//! folder of its own, and says on its first line of output where that is and
//! which certificate to expect. After that each of the two takes exactly the
//! other's certificate. The provider ends when Terraform says so, or goes away.

mod calls;
mod parent;
mod tls;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::proto::health::health_server::HealthServer;
use crate::proto::plugin::grpc_broker_server::GrpcBrokerServer;
use crate::proto::plugin::grpc_controller_server::GrpcControllerServer;
use crate::proto::plugin::grpc_stdio_server::GrpcStdioServer;
use crate::proto::tfplugin6::provider_server::ProviderServer;
use crate::{Handler, Plugin};

/// By this Terraform says that it is Terraform, and a plugin that it is one.
const COOKIE: (&str, &str) = (
    "TF_PLUGIN_MAGIC_COOKIE",
    "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
);

/// The version of how a plugin is started, and that of what is spoken.
const CORE_VERSION: u32 = 1;
const PROTOCOL_VERSION: u32 = 6;

/// Largest message, in bytes, either way; Terraform's own limit is higher.
const LARGEST: usize = 64 << 20;

/// How long running calls have to end after Terraform said that it is over.
const GRACE: Duration = Duration::from_secs(2);

/// Why a provider cannot be served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// Nobody speaks this protocol.
    #[error("Terraform speaks protocol {0}, and this provider 6: use Terraform 1.0 or newer")]
    Protocol(String),
    /// The certificates of this run.
    #[error("the certificates of this run: {0}")]
    Tls(String),
    /// The socket.
    #[error("its socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The connection.
    #[error("the connection: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the provider until Terraform has had enough of it. The exit code of
/// the process.
pub async fn serve(plugin: Plugin) -> ExitCode {
    let name = plugin.name();
    if std::env::var(COOKIE.0).as_deref() != Ok(COOKIE.1) {
        eprintln!(
            "This is the Terraform provider `{name}`. Terraform starts it by itself: install it with \
             `terraform init`,\nas terraform/README.md tells; there is nothing to run by hand."
        );
        return ExitCode::FAILURE;
    }
    crate::log::begin();
    match run(plugin).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terraform-provider-{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(plugin: Plugin) -> Result<(), ServeError> {
    let asked = std::env::var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
    let speaks_it = |version: &str| version.trim() == PROTOCOL_VERSION.to_string();
    if !asked.is_empty() && !asked.split(',').any(speaks_it) {
        return Err(ServeError::Protocol(asked));
    }
    let folder = match std::env::var_os("PLUGIN_UNIX_SOCKET_DIR") {
        Some(parent) => tempfile::Builder::new()
            .prefix("plugin")
            .tempdir_in(parent)?,
        None => tempfile::Builder::new().prefix("plugin").tempdir()?,
    };
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let client = std::env::var("PLUGIN_CLIENT_CERT").ok();
    let client = client.filter(|pem| !pem.is_empty());
    let secure = client.as_deref().map(tls::of_this_run).transpose()?;
    let certificate = secure
        .as_ref()
        .map(|secure| STANDARD_NO_PAD.encode(&secure.certificate));
    {
        let mut out = std::io::stdout().lock();
        let (path, certificate) = (path.display(), certificate.unwrap_or_default());
        writeln!(
            out,
            "{CORE_VERSION}|{PROTOCOL_VERSION}|unix|{path}|grpc|{certificate}"
        )?;
        out.flush()?;
    }
    let over = CancellationToken::new();
    let handler = Arc::new(Handler::new(plugin));
    let router = router(handler.clone(), over.clone());
    let connections = tls::connections(listener, secure.map(|secure| secure.config));
    let served = router.serve_with_incoming_shutdown(connections, ended(over.clone()));
    let late = async {
        ended(over).await;
        handler.stop();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served?,
        () = late => {}
    }
    Ok(())
}

fn router(handler: Arc<Handler>, over: CancellationToken) -> Router {
    let provider = ProviderServer::new(calls::Calls(handler))
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST);
    Server::builder()
        .add_service(provider)
        .add_service(GrpcControllerServer::new(parent::Controller(over.clone())))
        .add_service(GrpcBrokerServer::new(parent::Broker(over.clone())))
        .add_service(GrpcStdioServer::new(parent::Stdio(over)))
        .add_service(HealthServer::new(parent::Health))
}

/// When it is over: said by Terraform, or by a signal. An interrupt from the
/// terminal is for Terraform, which then says what is to be done.
async fn ended(over: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupts = signal(SignalKind::interrupt());
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over.cancelled() => {}
        _ = terminated => over.cancel(),
    }
    drop(interrupts);
}

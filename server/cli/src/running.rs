//! What a server and an agent need as processes: a log, signals, certificates
//! from files.

use std::io::IsTerminal;
use std::sync::Arc;

use mesh_model::config::{LogFormat, LogLevel, TlsFiles};
use mesh_tls::{ClusterFiles, ClusterTls, Role};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// Writes the log to standard error from here on. A filter in `MESHCTL_LOG`
/// (`debug,openraft=info`) goes before the level.
pub(crate) fn log(
    level: LogLevel,
    format: LogFormat,
    filter: Option<String>,
) -> Result<(), CliError> {
    // openraft's own info is a line for each step of consensus. What Vault says is told by us, once.
    let usual = match level {
        LogLevel::Trace | LogLevel::Debug => format!("{},vaultrs=off,rustify=off", level.as_str()),
        _ => format!("{},openraft=error,vaultrs=off,rustify=off", level.as_str()),
    };
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(&usual));
    let filter = filter.map_err(|error| CliError::refused(format!("MESHCTL_LOG: {error}"), ""))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain);
    let started = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::refused(format!("the log cannot be started: {error}"), ""))
}

/// The certificate of this part, for `role`.
pub(crate) fn tls(files: Option<&TlsFiles>, role: Role) -> Result<Arc<ClusterTls>, CliError> {
    let Some(files) = files else {
        return Err(CliError::refused(
            format!("there is no certificate: the tls block of this {role} is missing"),
            format!(
                "`meshctl tls ca create` and `meshctl tls cert create -{role}` make the files.\nTo \
                 try the mesh out, `meshctl dev` needs none."
            ),
        ));
    };
    let tls = ClusterTls::from_files(ClusterFiles {
        ca_file: files.ca_file.clone(),
        cert_file: files.cert_file.clone(),
        key_file: files.key_file.clone(),
    });
    let tls = tls.map_err(|error| {
        let advice = format!("`meshctl tls cert create -{role}` makes a certificate and its key.");
        CliError::refused(error, advice)
    })?;
    match tls.id() {
        Some(id) if id.role() == role => Ok(Arc::new(tls)),
        other => Err(CliError::refused(
            format!(
                "{}: is not the certificate of a part with role {role}, but of {}",
                files.cert_file.display(),
                other.map_or("none".to_owned(), |id| id.to_string()),
            ),
            format!("`meshctl tls cert create -{role}` makes one."),
        )),
    }
}

/// What the operator tells a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes them from here on.
    pub(crate) fn new() -> Result<Self, CliError> {
        let take = |kind| {
            let taken = signal(kind);
            taken
                .map_err(|error| CliError::refused(format!("signals cannot be taken: {error}"), ""))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }
}

/// Reads the certificate's files again.
pub(crate) fn reload_tls(tls: &ClusterTls) {
    match tls.reload() {
        Ok(true) => tracing::info!("the certificate or the CAs are new"),
        Ok(false) => tracing::info!("the certificate and the CAs are the same"),
        Err(error) => {
            tracing::error!(%error, "the certificate cannot be read; the one before stays")
        }
    }
}

/// Ends it, unless a second signal comes before it is done.
pub(crate) async fn stop(ending: impl Future<Output = ()>, signals: &mut Signals) -> u8 {
    tokio::pin!(ending);
    loop {
        tokio::select! {
            () = &mut ending => return 0,
            told = signals.next() => if told == Told::Stop {
                tracing::warn!("told twice: stopped at once");
                return crate::error::FAILED;
            },
        }
    }
}

//! `meshctl server`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mesh_agent::LocalCatalog;
use mesh_ca::SealingKey;
use mesh_model::config::ServerConfig;
use mesh_server::{Server, ServerOptions};
use mesh_tls::Role;

use crate::console::Console;
use crate::error::CliError;
use crate::here::Here;
use crate::overlay::Overlay;
use crate::running::{self, Signals, Told};

/// Run a server
///
/// Flags go before what the files say. SIGTERM ends it, SIGHUP reads its
/// certificate again.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ServerRunArgs {
    /// A file or folder of .hcl files
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// This server alone makes the cluster
    #[arg(long)]
    bootstrap: bool,
    /// So many servers make the cluster together
    #[arg(long, value_name = "NUMBER")]
    bootstrap_expect: Option<u64>,
    /// Another server; again for more
    #[arg(long, value_name = "ADDRESS")]
    retry_join: Vec<String>,
    /// Where state and log are [/var/lib/meshctl]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// This server's name [the host's]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The cluster's own name [dc1]
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Where it listens [0.0.0.0]
    #[arg(long, value_name = "IP")]
    bind_addr: Option<String>,
    /// Where others reach it [port 8701]
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
    /// Where the HTTP API is [port 8700]
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// Where servers and agents connect [port 8701]
    #[arg(long, value_name = "ADDRESS")]
    grpc_addr: Option<String>,
    /// The key that seals private keys
    #[arg(long, value_name = "FILE")]
    sealing_key_file: Option<PathBuf>,
    /// Play a server that speaks commands up to this level; for tests
    #[arg(long, value_name = "LEVEL", hide = true)]
    level: Option<u32>,
    #[command(flatten)]
    process: Process,
}

/// What a server and an agent have in common.
#[derive(Debug, Args)]
pub(crate) struct Process {
    /// The cluster CA
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Its certificate
    #[arg(long, value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// trace, debug, info, warn or error [info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Process {
    pub(crate) fn over(&self, overlay: Overlay) -> Overlay {
        let tls = Overlay::default()
            .path("ca_file", self.ca_file.as_deref())
            .path("cert_file", self.cert_file.as_deref())
            .path("key_file", self.key_file.as_deref());
        overlay
            .text("log_level", self.log_level.as_deref())
            .text("log_format", self.log_format.as_deref())
            .block("tls", tls)
    }
}

impl ServerRunArgs {
    fn overlay(&self) -> Overlay {
        let overlay = Overlay::default()
            .switch("bootstrap", self.bootstrap)
            .number("bootstrap_expect", self.bootstrap_expect)
            .list("retry_join", &self.retry_join)
            .path("data_dir", self.data_dir.as_deref())
            .text("node_name", self.node_name.as_deref())
            .text("datacenter", self.datacenter.as_deref())
            .text("bind_addr", self.bind_addr.as_deref())
            .text("advertise_addr", self.advertise_addr.as_deref())
            .text("http_addr", self.http_addr.as_deref())
            .text("grpc_addr", self.grpc_addr.as_deref())
            .path("sealing_key_file", self.sealing_key_file.as_deref());
        self.process.over(overlay)
    }
}

pub(crate) async fn run(args: &ServerRunArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let config = args
        .overlay()
        .read(&args.config, ServerConfig::parse, console)?;
    let mut options = options(&config)?;
    let local = local(&config).await?;
    options.local = Some(Arc::new(Here(local.clone())));
    options.level = args.level.unwrap_or(crate::LEVEL);
    running::log(
        config.log_level,
        config.log_format,
        console.var("MESHCTL_LOG"),
    )?;
    let mut signals = Signals::new()?;
    let tls = options.tls.clone();
    let server = Server::start(options).await;
    let server = server.map_err(|error| CliError::refused(error, ""))?;
    let mut failed = false;
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => running::reload_tls(&tls),
                Told::Stop => break,
            },
            reason = server.failed(), if !failed => {
                failed = true;
                tracing::error!(%reason, "this server takes no more writes; restart it when that is mended");
            }
        }
    }
    let end = async {
        server.shutdown().await;
        local.shutdown().await;
    };
    Ok(running::stop(end, &mut signals).await)
}

/// What is registered with this server itself. Its checks ask nothing of this process: to whoever
/// comes from this machine in plaintext it would answer as to an operator.
async fn local(config: &ServerConfig) -> Result<Arc<LocalCatalog>, CliError> {
    let own = vec![config.http_address(), config.grpc_address()];
    let local = LocalCatalog::start(config.data_dir.join("local"), own).await;
    local
        .map(Arc::new)
        .map_err(|error| CliError::refused(error, ""))
}

fn options(config: &ServerConfig) -> Result<ServerOptions, CliError> {
    let tls = running::tls(config.tls.as_ref(), Role::Server)?;
    let sealing = sealing(config)?;
    folder(&config.data_dir)?;
    way_in(config)?;
    let mut options = ServerOptions::from_config(config, &host_name(), tls, sealing);
    if options.advertise.is_none() {
        options.advertise = Some(own_address(config).to_string());
    }
    Ok(options)
}

fn sealing(config: &ServerConfig) -> Result<Vec<Arc<SealingKey>>, CliError> {
    let others = &config.sealing.other_key_files;
    let files = config.sealing_key_file.iter().chain(others);
    let advice = "`meshctl operator sealing-key create FILE` makes one; every server has the same.";
    if config.sealing_key_file.is_none() && config.sealing.transit.is_none() {
        return Err(CliError::refused(
            "there is no sealing_key_file: private keys are kept only sealed",
            advice,
        ));
    }
    let read = |file: &PathBuf| {
        let key = SealingKey::from_file(file);
        key.map(Arc::new)
            .map_err(|error| CliError::refused(error, advice))
    };
    files.map(read).collect()
}

fn folder(path: &Path) -> Result<(), CliError> {
    mesh_server::make_dir(path).map_err(|error| {
        CliError::refused(
            format!("data_dir {}: {error}", path.display()),
            "-data-dir gives another folder; or make it, owned by who runs the server.",
        )
    })
}

/// A server that is in no cluster must be told how it comes to one; else it
/// would wait for ever.
fn way_in(config: &ServerConfig) -> Result<(), CliError> {
    let told = config.bootstrap || config.bootstrap_expect.is_some();
    let empty = || {
        let first = std::fs::read_dir(&config.data_dir).map(|mut items| items.next().is_none());
        first.unwrap_or(true)
    };
    let asks = !config.retry_join.is_empty() || config.nomad.service.is_some();
    match told || asks || !empty() {
        true => Ok(()),
        false => Err(CliError::refused(
            "this server is in no cluster, and nothing says how it comes to one",
            "-bootstrap makes one of this server alone; -bootstrap-expect 3 with -retry-join makes \
             one\nof three; -retry-join alone joins one that is there.",
        )),
    }
}

/// The address at which others reach this server. Where it listens on all, that
/// from which the host would speak to the others; nothing is sent to find out.
fn own_address(config: &ServerConfig) -> SocketAddr {
    let listens = config.grpc_address();
    if !listens.ip().is_unspecified() {
        return listens;
    }
    let others = config.retry_join.iter().map(String::as_str);
    // Addresses for documentation: only the way out to them is looked up.
    let found = others
        .chain(["192.0.2.1:9", "[2001:db8::1]:9"])
        .find_map(|other| {
            let target = other.to_socket_addrs().ok()?.next()?;
            let any: SocketAddr = match target {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(target).ok()?;
            Some(socket.local_addr().ok()?.ip())
        });
    SocketAddr::new(found.unwrap_or(Ipv4Addr::LOCALHOST.into()), listens.port())
}

/// The host's name as the kernel has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "server".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(text: &str) -> ServerConfig {
        ServerConfig::parse(&[("a.hcl", text)]).unwrap()
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, CliError>) -> String {
        result.unwrap_err().report()
    }

    #[test]
    fn what_is_missing_is_named_with_what_makes_it() {
        let none = config("");
        assert!(refused(options(&none)).contains("tls cert create -server"));
        assert!(refused(sealing(&config(""))).contains("sealing-key create"));
        assert!(
            refused(sealing(&config("sealing_key_file = \"/nowhere/key\"")))
                .contains("/nowhere/key")
        );
        assert!(refused(folder(Path::new("/proc/nowhere"))).contains("-data-dir"));
    }

    #[test]
    fn a_server_without_a_way_to_a_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            way_in(&config(&format!(
                "data_dir = \"{}\"\n{text}",
                dir.path().display()
            )))
        };
        for text in [
            "bootstrap = true",
            "bootstrap_expect = 1",
            "bootstrap_expect = 3\nretry_join = [\"10.0.0.1\"]",
            "retry_join = [\"10.0.0.1\"]",
            "nomad { service = \"mesh-server\" }",
        ] {
            with(text).unwrap();
        }
        assert!(refused(with("")).contains("-bootstrap-expect"));
        std::fs::write(dir.path().join("log"), "x").unwrap();
        with("").unwrap(); // it has data, and goes on
    }

    #[test]
    fn its_own_address_is_never_all_addresses() {
        let tls = "tls {\n ca_file = \"a\"\n cert_file = \"b\"\n key_file = \"c\"\n}\n";
        let all = own_address(&config(tls));
        assert!(!all.ip().is_unspecified());
        assert_eq!(all.port(), 8701);
        let one = own_address(&config(&format!("bind_addr = \"127.1.2.3\"\n{tls}")));
        assert_eq!(one.to_string(), "127.1.2.3:8701");
        let near = own_address(&config(&format!("retry_join = [\"127.0.0.1\"]\n{tls}")));
        assert_eq!(near.to_string(), "127.0.0.1:8701");
    }
}

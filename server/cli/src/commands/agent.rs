//! `meshctl agent`.

use std::path::PathBuf;

use clap::Args;
use mesh_agent::{Agent, AgentOptions};
use mesh_model::config::AgentConfig;
use mesh_tls::Role;

use super::server::Process;
use crate::console::Console;
use crate::error::CliError;
use crate::overlay::Overlay;
use crate::running::{self, Signals, Told};

/// Run an agent
///
/// Flags go before what the files say. SIGTERM ends it; what runs on the node
/// goes on. SIGHUP reads its certificate and its instance files again.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct AgentArgs {
    /// A file or folder of .hcl files
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// A server; again for more
    #[arg(long, value_name = "ADDRESS", visible_alias = "retry-join")]
    server: Vec<String>,
    /// Where local state is [/var/lib/meshctl-agent]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// This node's name [the host's]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The name that the cluster must have
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Where sidecars listen [0.0.0.0]
    #[arg(long, value_name = "IP")]
    bind_addr: Option<String>,
    /// Where other nodes reach this one
    #[arg(long, value_name = "IP")]
    advertise_addr: Option<String>,
    /// Where Nomad finds it [127.0.0.1:8500]
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// Where sidecars find it [127.0.0.1:8502]
    #[arg(long, value_name = "ADDRESS")]
    grpc_addr: Option<String>,
    /// Its own socket [/run/meshctl/agent.sock]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// A folder of instance files
    #[arg(long, value_name = "FOLDER")]
    instance_dir: Option<PathBuf>,
    /// Join another cluster than the one it joined first
    #[arg(long)]
    rejoin: bool,
    /// Play an agent that does not know this feature; for tests
    #[arg(long, value_name = "NAME", hide = true)]
    without_feature: Vec<String>,
    #[command(flatten)]
    process: Process,
}

impl AgentArgs {
    fn overlay(&self) -> Overlay {
        let overlay = Overlay::default()
            .list("servers", &self.server)
            .path("data_dir", self.data_dir.as_deref())
            .text("node_name", self.node_name.as_deref())
            .text("datacenter", self.datacenter.as_deref())
            .text("bind_addr", self.bind_addr.as_deref())
            .text("advertise_addr", self.advertise_addr.as_deref())
            .text("http_addr", self.http_addr.as_deref())
            .text("grpc_addr", self.grpc_addr.as_deref())
            .path("socket", self.socket.as_deref())
            .path("instance_dir", self.instance_dir.as_deref());
        self.process.over(overlay)
    }
}

pub(crate) async fn run(args: &AgentArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let config = args
        .overlay()
        .read(&args.config, AgentConfig::parse, console)?;
    let tls = running::tls(config.tls.as_ref(), Role::Agent)?;
    let mut options = AgentOptions::new(&config, tls).map_err(refused)?;
    options.rejoin = args.rejoin;
    for name in &args.without_feature {
        options.features = options.features.without(name);
    }
    running::log(
        config.log_level,
        config.log_format,
        console.var("MESHCTL_LOG"),
    )?;
    let mut signals = Signals::new()?;
    let agent = Agent::start(options).await.map_err(refused)?;
    loop {
        match signals.next().await {
            Told::Stop => break,
            Told::Reload => match agent.reload().await {
                Ok(instances) => tracing::info!(instances, "the files were read again"),
                Err(error) => tracing::error!(%error, "not reloaded; what was before stays"),
            },
        }
    }
    Ok(running::stop(agent.shutdown(), &mut signals).await)
}

fn refused(error: mesh_agent::AgentError) -> CliError {
    match error {
        mesh_agent::AgentError::Files(diagnostics) => CliError::Invalid(diagnostics),
        error => CliError::refused(error, ""),
    }
}

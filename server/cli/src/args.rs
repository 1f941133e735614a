//! The tree of commands, and the flags that many of them share.
//!
//! A command's own flags stand beside its code, in `commands`. Flags of the
//! connection belong to each command that makes one, and not to all: `validate`
//! and `tls` need no server, and their help should not speak of one.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::output::WIDTH;
use crate::{commands, dev};

/// The help without a command. By hand, since clap cannot group commands.
const HELP: &str = "\
meshctl: a service mesh for HashiCorp Nomad

Usage: meshctl COMMAND [FLAGS] [ARGUMENTS]

Try it
  dev          A server and an agent in one process; -demo shows a mesh at work

Who may call whom, and how calls go
  intention    Create, check and list intentions
  apply        Bring the mesh to what a folder of HCL files says
  validate     Check HCL files, without a server
  config       Write, read, list and delete single entries

See what is there
  status       What a server knows of itself and its cluster
  catalog      Nodes, services and instances
  proxy        Which sidecars run which version
  ca           The roots that the mesh trusts

Run it
  server       Run a server
  agent        Run an agent
  doctor       What Nomad will see on this node, and what is missing
  tls          Make the certificates of servers, agents and operators
  snapshot     Save, inspect and restore the state
  operator     Members of the cluster, sealing keys

  version      Print the version
  completion   Print a completion script for a shell
  help         Print the help of a command

Flags are taken with one dash or two. `meshctl COMMAND -h` says more.
";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    disable_version_flag = true,
    override_help = HELP,
    subcommand_required = false
)]
pub(crate) struct Cli {
    /// Print the version
    #[arg(long, short = 'V', short_alias = 'v')]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The tree, each help no wider than a terminal: where the texts beside the
/// flags are too long, they stand below them.
pub(crate) fn root() -> clap::Command {
    fn narrow(command: clap::Command) -> clap::Command {
        let help = command.clone().render_help().to_string();
        let wide = help.lines().any(|line| line.chars().count() > WIDTH);
        let inner: Vec<String> = command
            .get_subcommands()
            .map(|one| one.get_name().to_owned())
            .collect();
        let command = command.next_line_help(wide);
        inner.iter().fold(command, |command, name| {
            command.mut_subcommand(name, narrow)
        })
    }
    narrow(Cli::command())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Agent(commands::agent::AgentArgs),
    Apply(commands::apply::ApplyArgs),
    /// The roots that the mesh trusts
    Ca {
        #[command(subcommand)]
        command: commands::ca::CaCommand,
    },
    /// Nodes, services and instances
    Catalog {
        #[command(subcommand)]
        command: commands::catalog::CatalogCommand,
    },
    Completion(commands::completion::CompletionArgs),
    /// Write, read, list and delete single entries
    Config {
        #[command(subcommand)]
        command: commands::config::ConfigCommand,
    },
    /// Create, check and list intentions
    Intention {
        #[command(subcommand)]
        command: commands::intention::IntentionCommand,
    },
    Dev(dev::DevArgs),
    Doctor(commands::doctor::DoctorArgs),
    /// Members of the cluster, sealing keys
    Operator {
        #[command(subcommand)]
        command: commands::operator::OperatorCommand,
    },
    /// Which sidecars run which version
    Proxy {
        #[command(subcommand)]
        command: commands::proxy::ProxyCommand,
    },
    Server(commands::server::ServerRunArgs),
    /// Save, inspect and restore the state
    Snapshot {
        #[command(subcommand)]
        command: commands::snapshot::SnapshotCommand,
    },
    Status(commands::status::StatusArgs),
    /// Make the certificates of servers, agents and operators
    Tls {
        #[command(subcommand)]
        command: commands::tls::TlsCommand,
    },
    Validate(commands::validate::ValidateArgs),
    /// Print the version
    Version,
}

/// How a server is reached.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// A server (or MESHCTL_HTTP_ADDR) [127.0.0.1:8700]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http_addr: Option<String>,
    /// The cluster CA (or MESHCTL_CACERT)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Your certificate (or MESHCTL_CLIENT_CERT)
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its key (or MESHCTL_CLIENT_KEY)
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    // Taken since scripts have it; nothing hangs on it, because a server is
    // known by the identity in its certificate, at whatever name.
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) tls_server_name: Option<String>,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Freshness {
    /// Take what the server has, also without a leader
    #[arg(long, conflicts_with = "consistent")]
    pub(crate) stale: bool,
    /// Have the leader prove that it is one first
    #[arg(long)]
    pub(crate) consistent: bool,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Output {
    /// table or json [table]
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) output: Format,
    /// The same as -o json
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`Output`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    #[default]
    Table,
    /// JSON, as the API gives it.
    Json,
}

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self.json || self.output == Format::Json
    }
}

/// What names without a namespace mean.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Namespace {
    /// Of names that are written without one [default]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

impl Namespace {
    /// Reads a name, `*`, `namespace/name` or `namespace/*`.
    pub(crate) fn key(&self, text: &str) -> Result<mesh_model::Key, mesh_model::NameError> {
        match &self.namespace {
            Some(namespace) if !text.contains('/') => format!("{namespace}/{text}").parse(),
            _ => text.parse(),
        }
    }
}

/// In whose name rows are written.
#[derive(Clone, Debug, Args)]
pub(crate) struct Owner {
    /// In whose name this is written [cli]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "cli",
        hide_default_value = true,
        value_parser = owner
    )]
    pub(crate) owner: String,
    /// Take over what belongs to another owner
    #[arg(long)]
    pub(crate) force: bool,
}

/// Longest owner, in characters; as the server has it.
const LONGEST_OWNER: usize = 63;

/// An owner as the server takes it, so that a wrong one is said of the flag and
/// not of the header that it becomes.
pub(crate) fn owner(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    match (1..=LONGEST_OWNER).contains(&text.len()) && text.chars().all(known) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "an owner is 1 to {LONGEST_OWNER} of a-z, A-Z, 0-9 and _.:/-"
        )),
    }
}

/// What to do about a time that follows `-wait` without `=`.
pub(crate) fn wait_hint(next: &str) -> Option<String> {
    let is_time = next.parse::<mesh_model::Duration>().is_ok();
    is_time.then(|| format!("The time of -wait stands after a `=`: -wait={next}"))
}

/// Waiting until proxies run what was written.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Wait {
    /// Wait until every proxy runs it [30s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "30s")]
    pub(crate) wait: Option<mesh_model::Duration>,
}

//! `meshctl tls`: trust before there is a cluster. A small CA in two files, and
//! the certificates of servers, agents and operators that it signs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use mesh_ca::cluster::{self, CA_TTL, CERT_TTL, ClusterCa, Pair};
use mesh_tls::{ClusterId, Role};

use crate::console::Console;
use crate::error::CliError;
use crate::output::when;

const CA: &str = "cluster-ca";
const DAY: u64 = 24 * 3600;

#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// The cluster CA
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Certificates that it signs
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    Create(CaArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    Create(CertArgs),
}

/// Make a cluster CA: cluster-ca.pem and cluster-ca.key
///
/// Its key signs certificates and is needed on no server: keep it where only
/// you reach it. No file is ever replaced.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CaArgs {
    /// Where the files go [.]
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = ".",
        hide_default_value = true
    )]
    dir: PathBuf,
    /// Tells this CA from others in lists
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// How long it is valid [3653]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,
}

/// Make a certificate: ROLE-NAME.pem and ROLE-NAME.key
///
/// The name is the identity: a server's or an agent's own, and of an operator
/// whatever tells them apart. No file is ever replaced.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(group(clap::ArgGroup::new("role").required(true).args(["server", "agent", "cli"])))]
pub(crate) struct CertArgs {
    /// For a server
    #[arg(long)]
    server: bool,
    /// For an agent; its name is the node's id
    #[arg(long)]
    agent: bool,
    /// For an operator's meshctl
    #[arg(long)]
    cli: bool,
    /// Which one it is for
    #[arg(long, value_name = "NAME", visible_alias = "node", required = true)]
    id: String,
    /// Where the CA is, and the files go [.]
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = ".",
        hide_default_value = true
    )]
    dir: PathBuf,
    /// The CA's certificate [cluster-ca.pem in -dir]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The CA's key [cluster-ca.key in -dir]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A name for browsers and curl; again for more
    #[arg(long, value_name = "NAME")]
    additional_dnsname: Vec<String>,
    /// An address, likewise
    #[arg(long, value_name = "IP")]
    additional_ipaddress: Vec<std::net::IpAddr>,
    /// How long it is valid [365]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,
}

pub(crate) fn run(command: &TlsCommand, console: &mut Console<'_>) -> Result<u8, CliError> {
    match command {
        TlsCommand::Ca {
            command: CaCommand::Create(args),
        } => create_ca(args, console),
        TlsCommand::Cert {
            command: CertCommand::Create(args),
        } => create_cert(args, console),
    }
}

fn create_ca(args: &CaArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let ttl = args.days.map_or(CA_TTL, days);
    let made = cluster::create_ca(&args.name, ttl, console.now);
    let pair = made.map_err(|error| CliError::refused(error, ""))?;
    let files = Files::new(&args.dir, CA);
    files.write(&pair)?;
    console.text(&format!(
        "Created {} (the certificate; every part gets it)\nCreated {} (its key; keep it to \
         yourself)\n\nValid to {}. Next, for each server, agent and operator:\n\n  meshctl tls cert \
         create -server -id server-1{dir}\n  meshctl tls cert create -agent -id node-1{dir}\n  \
         meshctl tls cert create -cli -id $USER{dir}\n",
        files.certificate.display(),
        files.key.display(),
        until(&pair),
        dir = match args.dir == Path::new(".") {
            true => String::new(),
            false => format!(" -dir {}", args.dir.display()),
        }
    ))?;
    Ok(0)
}

fn create_cert(args: &CertArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let role = match (args.server, args.agent) {
        (true, _) => Role::Server,
        (_, true) => Role::Agent,
        _ => Role::Cli,
    };
    let id = ClusterId::new(role, &args.id);
    let id = id.map_err(|error| CliError::refused(format!("-id {}: {error}", args.id), ""))?;
    let (ca_file, ca) = open_ca(args)?;
    let mut names = cluster::default_names(role);
    names.extend(args.additional_dnsname.iter().cloned());
    names.extend(args.additional_ipaddress.iter().map(ToString::to_string));
    let ttl = args.days.map_or(CERT_TTL, days);
    let issued = ca.issue(&id, &names, ttl, console.now);
    let pair = issued.map_err(|error| CliError::refused(error, ""))?;
    let files = Files::new(&args.dir, &format!("{role}-{}", args.id));
    files.write(&pair)?;
    console.text(&format!(
        "Created {}\nCreated {} (its key)\n\nValid to {}.\n{}",
        files.certificate.display(),
        files.key.display(),
        until(&pair),
        placement(role, &args.id, &ca_file, &files)
    ))?;
    Ok(0)
}

fn open_ca(args: &CertArgs) -> Result<(PathBuf, ClusterCa), CliError> {
    let own = Files::new(&args.dir, CA);
    let certificate = args.ca.clone().unwrap_or(own.certificate);
    let key = args.key.clone().unwrap_or(own.key);
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CliError::refused(
                format!("{}: is not there", path.display()),
                "`meshctl tls ca create` makes a CA; -dir, or -ca and -key, say where one is.",
            ),
            _ => CliError::file(path)(error),
        })
    };
    let text = read(&certificate)?;
    let ca = ClusterCa::from_pem(&text, &read(&key)?);
    let ca = ca.map_err(|error| CliError::refused(error, ""))?;
    Ok((certificate, ca))
}

/// What to put where.
fn placement(role: Role, name: &str, ca: &Path, files: &Files) -> String {
    match role {
        Role::Server | Role::Agent => format!(
            "Put both with cluster-ca.pem on {role} {name}, and into its configuration:\n\n  tls \
             {{\n    ca_file   = \"/etc/meshctl/cluster-ca.pem\"\n    cert_file = \
             \"/etc/meshctl/{role}-{name}.pem\"\n    key_file  = \
             \"/etc/meshctl/{role}-{name}.key\"\n  }}\n"
        ),
        Role::Cli => format!(
            "For your shell:\n\n  export MESHCTL_HTTP_ADDR=https://SERVER:8700\n  export \
             MESHCTL_CACERT={}\n  export MESHCTL_CLIENT_CERT={}\n  export MESHCTL_CLIENT_KEY={}\n",
            ca.display(),
            files.certificate.display(),
            files.key.display(),
        ),
    }
}

/// The two files of a pair.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }

    /// Writes both, or neither.
    fn write(&self, pair: &Pair) -> Result<(), CliError> {
        for path in [&self.certificate, &self.key] {
            if path.exists() {
                return Err(CliError::refused(
                    format!(
                        "{}: is there already, and is never replaced",
                        path.display()
                    ),
                    "Move it away, or give another -dir.",
                ));
            }
        }
        if let Some(dir) = self.key.parent() {
            std::fs::create_dir_all(dir).map_err(CliError::file(dir))?;
        }
        create(&self.key, pair.key.as_str(), 0o600)?;
        create(&self.certificate, &pair.certificate, 0o644).inspect_err(|_| {
            // Of no use alone.
            let _ = std::fs::remove_file(&self.key);
        })
    }
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(CliError::file(path))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(CliError::file(path))
}

fn until(pair: &Pair) -> String {
    when(i64::try_from(pair.not_after).unwrap_or(i64::MAX))
}

fn days(number: u64) -> Duration {
    Duration::from_secs(number * DAY)
}

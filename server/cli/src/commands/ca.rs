//! `meshctl ca`: what the mesh trusts, and how the CA does.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mesh_model::config::{CaProvider, ServerConfig};
use mesh_server::{aws_place, vault_place};
use serde_json::{Value, json};

use super::ca_revoked::{self, LeavesArgs, RevocationsArgs, RevokeArgs, UnrevokeArgs};
use super::files;
use crate::args::{Connection, Freshness, Output};
use crate::client::Client;
use crate::console::Console;
use crate::error::{CliError, FAILED};
use crate::output::{self, Table, shortened};
use crate::overlay::Overlay;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the roots that the mesh trusts
    Roots(RootsArgs),
    Status(StatusArgs),
    VaultPolicy(VaultPolicyArgs),
    /// Read and write the CA's settings
    #[command(subcommand)]
    Config(CaConfigCommand),
    Rotate(RotateArgs),
    Import(ImportArgs),
    Reseal(ResealArgs),
    Leaves(LeavesArgs),
    Revoke(RevokeArgs),
    Unrevoke(UnrevokeArgs),
    /// List the services and leaves that are revoked
    Revocations(RevocationsArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaConfigCommand {
    /// Show the CA's settings
    Read(ConfigReadArgs),
    Write(ConfigWriteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigReadArgs {
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Change the CA's settings
///
/// The file has a `ca` block, as a server's configuration has: the whole of the
/// settings, where what is left out has its default. Another provider, or
/// another root in Vault, or another CA in AWS, is changed to step by step, while
/// traffic flows. How a server reaches Vault or AWS is its own configuration's, and
/// not written here.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ConfigWriteArgs {
    /// A file or folder of .hcl files; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only when the CA has not changed since this index
    #[arg(long, value_name = "INDEX")]
    cas: Option<u64>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Change to a new root while traffic flows
///
/// A new root is made and handed to every sidecar; when all trust it, it signs;
/// leaves are replaced; and the old one is dropped when none hangs on it.
/// `meshctl ca status` shows how far it is, and for whom it waits.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RotateArgs {
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Undo a change that still waits for sidecars to trust the new root
    #[arg(long)]
    abort: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Change to a root that you have, while traffic flows
///
/// The certificates are one chain in PEM: the one whose key is given first, each
/// followed by the one that signed it, the root last. Keys are read from files
/// or from standard input (-), sealed by the server at once, and kept nowhere
/// else. Without the root's key the servers make no further intermediates: give
/// the next one to this command in its time. Where the root is the one that the
/// mesh has, only the intermediate is replaced, and nothing waits for sidecars.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ImportArgs {
    /// The certificates, lowest first, the root last
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// The private key of the first certificate; - is standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The root's private key, where the servers are to have it
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// Only when the CA has not changed since this index
    #[arg(long, value_name = "INDEX")]
    cas: Option<u64>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Seal the CA's private keys with another key
///
/// With the first key file of the server that is asked, or with a key that
/// Vault's transit engine opens. First every server is asked whether it can open
/// what would be written; where one cannot, nothing is changed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ResealArgs {
    /// file or transit
    #[arg(long, value_name = "KIND")]
    to: String,
    /// Only when the CA has not changed since this index
    #[arg(long, value_name = "INDEX")]
    cas: Option<u64>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct RootsArgs {
    /// Print the certificates themselves
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Show whether the CA can sign (exit 0) or not (1).
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Print the policy that the servers need in Vault
///
/// For `vault policy write`. It allows what they do, and nothing more. Where
/// the CA is, a server's configuration says, or the flags. No server is asked.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct VaultPolicyArgs {
    /// A server's configuration: a file or folder of .hcl files
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// The PKI engine with the root [pki_root]
    #[arg(long, value_name = "MOUNT")]
    root_pki_path: Option<String>,
    /// The PKI engine with the intermediate [pki_mesh]
    #[arg(long, value_name = "MOUNT")]
    intermediate_pki_path: Option<String>,
    /// Who signs leaves: vault or cluster [cluster]
    #[arg(long, value_name = "WHO")]
    leaf_signing: Option<String>,
    /// The mounts and the root are there already: they need not be made
    #[arg(long)]
    existing: bool,
    /// What sealing needs, too; of the configuration, or of transit/meshctl
    #[arg(long)]
    transit: bool,
}

pub(crate) async fn run(command: &CaCommand, console: &mut Console<'_>) -> Result<u8, CliError> {
    match command {
        CaCommand::Roots(args) => roots(args, console).await,
        CaCommand::Status(args) => status(args, console).await,
        CaCommand::VaultPolicy(args) => vault_policy(args, console),
        CaCommand::Config(CaConfigCommand::Read(args)) => config_read(args, console).await,
        CaCommand::Config(CaConfigCommand::Write(args)) => config_write(args, console).await,
        CaCommand::Rotate(args) => rotate(args, console).await,
        CaCommand::Import(args) => import(args, console).await,
        CaCommand::Reseal(args) => reseal(args, console).await,
        CaCommand::Leaves(args) => ca_revoked::leaves(args, console).await,
        CaCommand::Revoke(args) => ca_revoked::revoke(args, console).await,
        CaCommand::Unrevoke(args) => ca_revoked::unrevoke(args, console).await,
        CaCommand::Revocations(args) => ca_revoked::revocations(args, console).await,
    }
}

async fn config_read(args: &ConfigReadArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    let json = client.ca_config().await?.json;
    if args.output.is_json() {
        return console.json(&json).map(|()| 0);
    }
    let text = |name: &str| shown(&json[name]);
    let place = |name: &str| shown(&json["vault"][name]);
    let field = |label: &str, value: String| (label.to_owned(), value);
    let fields = output::fields(&[
        field("Provider", text("provider")),
        field("Leaf lifetime", text("leaf_ttl")),
        field("Intermediate lifetime", text("intermediate_ttl")),
        field("Root lifetime", text("root_ttl")),
        field("Keys", text("key_type")),
        field("Root at", place("root_pki_path")),
        field("Intermediate at", place("intermediate_pki_path")),
        field("Leaves signed by", place("leaf_signing")),
        field("CA in AWS", shown(&json["aws_pca"]["existing_arn"])),
    ]);
    console.text(&fields).map(|()| 0)
}

async fn config_write(args: &ConfigWriteArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    // The address is each server's own; a block without it is not whole.
    let vault = Overlay::default().text("address", Some("https://vault"));
    let overlay = Overlay::default().block("ca", Overlay::default().block("vault", vault));
    let config = overlay.read(&args.files, ServerConfig::parse, console)?.ca;
    let vault = config
        .vault
        .as_ref()
        .filter(|_| config.provider == CaProvider::Vault);
    let aws = config.aws_pca.as_ref();
    let aws = aws.filter(|_| config.provider == CaProvider::AwsPca);
    let body = json!({
        "provider": match config.provider {
            CaProvider::BuiltIn => mesh_ca::BUILT_IN,
            CaProvider::Vault => mesh_ca::VAULT,
            CaProvider::AwsPca => mesh_ca::AWS_PCA,
        },
        "leaf_ttl": config.leaf_ttl,
        "intermediate_ttl": config.intermediate_ttl,
        "root_ttl": config.root_ttl,
        "key_type": config.key_type.as_str(),
        "vault": vault.map(vault_place),
        "aws_pca": aws.map(aws_place),
    });
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let json = client
        .write_ca_config(body, args.cas, args.dry_run)
        .await?
        .json;
    changed(&json, args.dry_run, &args.output, console)
}

async fn rotate(args: &RotateArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let json = client.rotate_ca(args.abort, args.dry_run).await?.json;
    changed(&json, args.dry_run, &args.output, console)
}

async fn reseal(args: &ResealArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let body = json!({"to": args.to});
    let json = client.change_ca("reseal", body, args.cas, args.dry_run);
    changed(&json.await?.json, args.dry_run, &args.output, console)
}

async fn import(args: &ImportArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let certificates = files::text(&args.cert, console)?;
    let key = files::text(&args.key, console)?;
    let root_key = args.root_key.as_deref();
    let root_key = root_key
        .map(|file| files::text(file, console))
        .transpose()?;
    let body = json!({
        "certificates": certificates.as_str(),
        "key": key.as_str(),
        "root_key": root_key.as_ref().map(|key| key.as_str()),
    });
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let json = client
        .change_ca("import", body, args.cas, args.dry_run)
        .await?
        .json;
    changed(&json, args.dry_run, &args.output, console)
}

/// What became, or would become, of a change.
fn changed(
    json: &Value,
    dry_run: bool,
    output: &Output,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    if output.is_json() {
        return console.json(json).map(|()| 0);
    }
    let changes = json["changes"].as_array().map_or(&[][..], Vec::as_slice);
    if changes.is_empty() {
        return console.line("Nothing changes.").map(|()| 0);
    }
    for change in changes {
        console.line(shown(change))?;
    }
    match (json["rotates"].as_bool().unwrap_or(false), dry_run) {
        (true, false) => console.line(format!(
            "\nRoot {} is handed to every sidecar, and signs when\nall trust it. `meshctl ca \
             status` shows how far it is.",
            shortened(&shown(&json["root"]), 24)
        ))?,
        (true, true) => console.line(
            "\nA new root would be made, handed to every sidecar, and sign when all trust\nit; the \
             old one would be dropped when no leaf hangs on it. Nothing was changed.",
        )?,
        (false, true) => console.line("\nNothing was changed.")?,
        (false, false) => {}
    }
    match cross_signature("It", &json["cross_signature"], dry_run) {
        Some(line) => console.line(line).map(|()| 0),
        None => Ok(0),
    }
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn vault_policy(args: &VaultPolicyArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let vault = Overlay::default()
        .text("root_pki_path", args.root_pki_path.as_deref())
        .text(
            "intermediate_pki_path",
            args.intermediate_pki_path.as_deref(),
        )
        .text("leaf_signing", args.leaf_signing.as_deref());
    // The address is no part of a policy, but of a whole block.
    let vault = match args.config.is_empty() {
        true => vault.text("address", Some("https://vault")),
        false => vault,
    };
    let overlay = Overlay::default().block("ca", Overlay::default().block("vault", vault));
    let config = overlay.read(&args.config, ServerConfig::parse, console)?;
    let vault = config.ca.vault.as_ref().map(vault_place);
    let vault = vault.ok_or_else(|| {
        CliError::refused(
            "the configuration has no `vault` block",
            "`ca { vault { … } }` says where in Vault the CA is; or give the flags alone.",
        )
    })?;
    let mut policy = mesh_ca::vault_policy(&vault, !args.existing);
    if args.transit {
        let usual = || ("transit".to_owned(), "meshctl".to_owned());
        let place = config.sealing.transit.map(|one| (one.mount, one.key));
        let (mount, key) = place.unwrap_or_else(usual);
        policy.push_str(&mesh_ca::transit_policy(&mesh_ca::TransitPlace {
            mount,
            key,
        }));
    }
    console.text(&policy).map(|()| 0)
}

async fn roots(args: &RootsArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    if args.pem {
        let pem = client.roots_pem().await?;
        return console.text(&pem).map(|()| 0);
    }
    let answer = client.roots().await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    console.line(format!("Trust domain: {}\n", answer.value.trust_domain))?;
    let mut table = Table::new(&["ROOT", "ACTIVE", "VALID FROM", "VALID TO"]);
    for root in answer.value.roots {
        table.row([
            shortened(&root.id, 24),
            if root.active { "yes" } else { "no" }.to_owned(),
            root.not_before,
            root.not_after,
        ]);
    }
    console.table(&table).map(|()| 0)
}

async fn status(args: &StatusArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let json = client.ca_status().await?.json;
    let ready = json["ready"].as_bool().unwrap_or(false);
    if args.output.is_json() {
        console.json(&json)?;
    } else {
        let text = |name: &str| shown(&json[name]);
        let field = |label: &str, value: String| (label.to_owned(), value);
        console.text(&output::fields(&[
            field("Provider", text("provider")),
            field("Ready", if ready { "yes" } else { "no" }.to_owned()),
            field("Problem", text("problem")),
            field("Leaves signed by", text("leaf_signing")),
            field("Root's key", text("root_key")),
            field("Sealed with", sealing(&json["sealing"])),
            field("Vault", vault(&json["vault"])),
            field("Vault says", shown(&json["vault"]["reason"])),
            field("AWS", aws(&json["aws_pca"])),
            field("AWS says", shown(&json["aws_pca"]["reason"])),
            field("Leaf lifetime", text("leaf_ttl")),
            field("Root valid to", text("root_not_after")),
            field("Intermediate to", text("intermediate_not_after")),
        ]))?;
        more(&json, console)?;
    }
    Ok(if ready { 0 } else { FAILED })
}

/// What there is only now and then: warnings, and a change of the root.
fn more(json: &Value, console: &mut Console<'_>) -> Result<(), CliError> {
    let rows = |name: &str| json[name].as_array().cloned().unwrap_or_default();
    for warning in rows("warnings") {
        console.line(format!("Warning: {}", shown(&warning)))?;
    }
    for other in rows("configured_otherwise") {
        console.line(format!(
            "Not as in this server's configuration: {}",
            shown(&other)
        ))?;
    }
    let roots = rows("roots");
    if roots.len() > 1 {
        let mut table = Table::new(&["ROOT", "STATE", "KEY", "LEAVES", "DROPPED FROM"]);
        for root in &roots {
            table.row([
                shortened(&shown(&root["id"]), 24),
                shown(&root["state"]),
                shown(&root["key_type"]),
                shown(&root["leaves"]),
                shown(&root["retires"]),
            ]);
        }
        console.line("")?;
        console.table(&table)?;
        for root in &roots {
            let id = format!("Root {}", shortened(&shown(&root["id"]), 24));
            if let Some(line) = cross_signature(&id, &root["cross_signature"], false) {
                console.line(line)?;
            }
        }
    }
    let rotation = &json["rotation"];
    if rotation.is_null() {
        return Ok(());
    }
    console.line(format!(
        "\nA change to root {} waits for {}; {} of {} sidecars trust it.",
        shortened(&shown(&rotation["to"]), 24),
        shown(&rotation["waits"]),
        shown(&rotation["trusting"]),
        shown(&rotation["proxies"])
    ))?;
    for one in rotation["waiting"].as_array().into_iter().flatten() {
        let (node, proxy) = (shown(&one["node"]), shown(&one["proxy"]));
        console.line(format!("  {proxy} on {node}: {}", shown(&one["reason"])))?;
    }
    Ok(())
}

/// Whether a new root is certified by an old one, for people; none where none was to be.
fn cross_signature(root: &str, json: &Value, would_be: bool) -> Option<String> {
    if json.is_null() {
        return None;
    }
    let by = shortened(&shown(&json["by"]), 24);
    let is = if would_be { "would be" } else { "is" };
    let not = if would_be { "would not be" } else { "is not" };
    Some(match json["made"].as_bool().unwrap_or(false) {
        true => format!(
            "{root} {is} certified by root\n{by} as well, for programs that trust only that one."
        ),
        false => format!(
            "{root} {not} certified by root\n{by}; give programs that trust only that one\nthe new \
             root in time:\n{}",
            shown(&json["reason"])
        ),
    })
}

/// What the keys are sealed with, on one line.
fn sealing(json: &Value) -> String {
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    if json.is_null() {
        return String::new();
    }
    let opens = match json["opens"].as_bool().unwrap_or(false) {
        true => "",
        false => ", which this server cannot open",
    };
    let place = match text("transit") {
        "" => String::new(),
        place => format!(" of {place}"),
    };
    format!("{} key {}{place}{opens}", text("by"), text("key_id"))
}

/// How the CA in AWS does, on one line; empty where there is none.
fn aws(json: &Value) -> String {
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    match json.is_null() {
        true => String::new(),
        false => format!("{}, {}", text("state"), text("existing_arn")),
    }
}

/// How Vault does, on one line; empty where there is none.
fn vault(json: &Value) -> String {
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    if json.is_null() {
        return String::new();
    }
    format!("{} at {}", text("state"), text("address"))
}

//! `meshctl ca`: what the mesh trusts, and how the CA does.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mesh_model::config::ServerConfig;
use mesh_server::vault_place;
use serde_json::Value;

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
}

pub(crate) async fn run(command: &CaCommand, console: &mut Console<'_>) -> Result<u8, CliError> {
    match command {
        CaCommand::Roots(args) => roots(args, console).await,
        CaCommand::Status(args) => status(args, console).await,
        CaCommand::VaultPolicy(args) => vault_policy(args, console),
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
    console
        .text(&mesh_ca::vault_policy(&vault, !args.existing))
        .map(|()| 0)
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
        let text = |name: &str| match &json[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let field = |label: &str, value: String| (label.to_owned(), value);
        console.text(&output::fields(&[
            field("Provider", text("provider")),
            field("Ready", if ready { "yes" } else { "no" }.to_owned()),
            field("Problem", text("problem")),
            field("Leaves signed by", text("leaf_signing")),
            field("Vault", vault(&json["vault"])),
            field("Leaf lifetime", text("leaf_ttl")),
            field("Root valid to", text("root_not_after")),
            field("Intermediate to", text("intermediate_not_after")),
        ]))?;
    }
    Ok(if ready { 0 } else { FAILED })
}

/// How Vault does, on one line; empty where there is none.
fn vault(json: &Value) -> String {
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    if json.is_null() {
        return String::new();
    }
    let mut line = format!("{} at {}", text("state"), text("address"));
    if let Some(reason) = json["reason"].as_str() {
        line.push_str(&format!(": {reason} (since {})", text("since")));
    }
    line
}

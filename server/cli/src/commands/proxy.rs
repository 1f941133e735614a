//! `meshctl proxy status`: is it live everywhere, and where is it not.

use clap::{Args, Subcommand};
use mesh_model::{Key, Version};

use crate::args::{Connection, Freshness, Namespace, Output};
use crate::client::{Client, Proxy};
use crate::console::Console;
use crate::error::{CliError, count};
use crate::output::{Table, remaining, shortened};

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    Status(StatusArgs),
}

/// Show which sidecars run which version, and why others lag
///
/// VERSION is the index that a proxy runs, and that it should run where it is
/// another; LEAF is how long its certificate is valid.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct StatusArgs {
    /// Of this service only
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Of this node only
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Shorten nothing, however wide it gets
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(command: &ProxyCommand, console: &mut Console<'_>) -> Result<u8, CliError> {
    match command {
        ProxyCommand::Status(args) => status(args, console).await,
    }
}

async fn status(args: &StatusArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let service = args.service.as_deref().map(|text| args.namespace.key(text));
    let service = service.transpose();
    let service = service.map_err(|error| CliError::refused(format!("-service: {error}"), ""))?;
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client
        .proxies(service.as_ref(), args.node.as_deref())
        .await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    let all = answer.value;
    if !all.unreachable_servers.is_empty() {
        console.note(format!(
            "Warning: {} did not answer; the proxies of their agents are missing here.",
            count(all.unreachable_servers.len(), "server", "servers")
        ));
    }
    if all.proxies.is_empty() {
        console.note("There are no proxies.");
        return Ok(0);
    }
    let now = console.unix();
    let head = [
        "PROXY",
        "NODE",
        "SERVICE",
        "CONNECTED",
        "VERSION",
        "LEAF",
        "PROBLEM",
    ];
    let mut table = Table::new(&head).verbose(args.verbose);
    for proxy in &all.proxies {
        let cut = |text: &str, width| match args.verbose {
            true => text.to_owned(),
            false => shortened(text, width),
        };
        let service = Key::new(&proxy.namespace, &proxy.service).to_string();
        let leaf = proxy.leaf_not_after.map(|until| remaining(until, now));
        table.row([
            cut(&proxy.proxy, 18),
            cut(&proxy.node, 8),
            cut(&service, 12),
            if proxy.connected { "yes" } else { "no" }.to_owned(),
            version(proxy),
            leaf.unwrap_or_else(|| "none".to_owned()),
            problem(proxy),
        ]);
    }
    console.table(&table).map(|()| 0)
}

/// `42`, or `41/42` for one that runs 41 and was sent 42.
fn version(proxy: &Proxy) -> String {
    let index = |version: &Option<Version>| match version {
        Some(version) => version.index.to_string(),
        None => "-".to_owned(),
    };
    match proxy.in_sync || proxy.sent.is_none() {
        true => index(&proxy.acked),
        false => format!("{}/{}", index(&proxy.acked), index(&proxy.sent)),
    }
}

fn problem(proxy: &Proxy) -> String {
    let mut parts = Vec::new();
    if !proxy.problem.is_empty() {
        parts.push(proxy.problem.clone());
    }
    if !proxy.not_understood.is_empty() {
        let names: Vec<String> = proxy
            .not_understood
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        parts.push(format!("does not know {}", names.join(", ")));
    }
    if parts.is_empty() {
        let sent = proxy.sent.as_ref().map(|version| version.index);
        let acked = proxy.acked.as_ref().map(|version| version.index);
        match (proxy.connected, proxy.in_sync, sent, acked) {
            (false, ..) => parts.push("not connected; keeps what it has".to_owned()),
            (_, true, ..) => {}
            (.., Some(_), None) => parts.push("has acked nothing yet".to_owned()),
            (.., Some(_), Some(acked)) => parts.push(format!("has acked only {acked}")),
            (.., None, _) => parts.push("was sent nothing yet".to_owned()),
        }
    }
    parts.join("; ")
}

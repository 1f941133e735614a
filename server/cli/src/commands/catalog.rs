//! `meshctl catalog`: what is registered.

use clap::{Args, Subcommand};

use crate::args::{Connection, Freshness, Namespace, Output};
use crate::client::{Client, Instance, Node, Tally};
use crate::console::Console;
use crate::error::{CliError, count};
use crate::output::{Table, remaining, shortened};

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List the machines that have an agent
    Nodes(ListArgs),
    /// List the services that have instances
    Services(ListArgs),
    /// List a service's instances
    Instances(InstancesArgs),
    /// Forget a node and its instances, until its agent comes again
    ForceLeave(ForceLeaveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Shorten nothing, however wide it gets
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct InstancesArgs {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForceLeaveArgs {
    /// Its name, its id, or the beginning of its id
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(
    command: &CatalogCommand,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    match command {
        CatalogCommand::Nodes(args) => nodes(args, console).await,
        CatalogCommand::Services(args) => services(args, console).await,
        CatalogCommand::Instances(args) => instances(args, console).await,
        CatalogCommand::ForceLeave(args) => force_leave(args, console).await,
    }
}

async fn nodes(args: &ListArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    let answer = client.nodes().await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    if answer.value.is_empty() {
        console.note("There are no nodes: no agent has come yet.");
        return Ok(0);
    }
    let now = console.unix();
    let head = ["NAME", "ID", "ADDRESS", "STATE", "INSTANCES", "VERSION"];
    let mut table = Table::new(&head).verbose(args.verbose);
    for node in &answer.value {
        let state = match node.silent_since {
            Some(since) => format!("silent {}", remaining(now, since)),
            None => node.state.clone(),
        };
        table.row([
            cut(&node.name, 20, args),
            short_id(&node.id, args),
            cut(&node.address, 15, args),
            state,
            node.instances.to_string(),
            node.version.clone(),
        ]);
    }
    console.table(&table).map(|()| 0)
}

async fn services(args: &ListArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    let answer = client.services().await?;
    if args.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    if answer.value.is_empty() {
        console.note("There are no services: nothing is registered yet.");
        return Ok(0);
    }
    let mut table = Table::new(&["SERVICE", "INSTANCES", "TAGS"]).verbose(args.verbose);
    for service in &answer.value {
        let key = mesh_model::Key::new(&service.namespace, &service.name);
        table.row([
            cut(&key.to_string(), 28, args),
            tally(service.instances),
            service.tags.join(", "),
        ]);
    }
    console.table(&table).map(|()| 0)
}

async fn instances(args: &InstancesArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let list = &args.list;
    let service = args.namespace.key(&args.service);
    let service = service.map_err(|error| CliError::refused(format!("SERVICE: {error}"), ""))?;
    let client = Client::new(&list.connection, list.freshness, console)?;
    let answer = client.instances(&service).await?;
    if list.output.is_json() {
        return console.json(&answer.json).map(|()| 0);
    }
    if answer.value.is_empty() {
        console.note(format!("Service {service} has no instances."));
        return Ok(0);
    }
    let head = ["INSTANCE", "NODE", "ADDRESS", "PROXY", "STATUS"];
    let mut table = Table::new(&head).verbose(list.verbose);
    for one in &answer.value {
        let node = if one.node_name.is_empty() {
            &one.node
        } else {
            &one.node_name
        };
        let address = if one.address.is_empty() {
            &one.node_address
        } else {
            &one.address
        };
        table.row([
            cut(&one.id, 22, list),
            cut(node, 14, list),
            format!("{address}:{}", one.port),
            in_the_mesh(one).to_owned(),
            status(one),
        ]);
    }
    console.table(&table).map(|()| 0)
}

/// What stands for it in the mesh: a sidecar, or itself.
fn in_the_mesh(instance: &Instance) -> &'static str {
    match &instance.proxy {
        None => "no",
        Some(proxy) if proxy.get("native").is_some_and(|it| it == true) => "native",
        Some(_) => "yes",
    }
}

/// The instance's status, with the checks that make it so.
fn status(instance: &Instance) -> String {
    if instance.node_state == "silent" {
        return format!("unknown: its node is silent (was {})", instance.status);
    }
    let failing: Vec<String> = instance
        .checks
        .iter()
        .filter(|(_, check)| check.status != "passing")
        .map(|(id, check)| match check.name.is_empty() {
            true => id.clone(),
            false => check.name.clone(),
        })
        .collect();
    match failing.is_empty() {
        true => instance.status.clone(),
        false => format!("{}: {}", instance.status, failing.join(", ")),
    }
}

async fn force_leave(args: &ForceLeaveArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let nodes = client.nodes().await?.value;
    let node = find(&nodes, &args.node)?;
    client.force_leave(&node.id).await?;
    console.line(format!(
        "Forgotten: node {} with {}.",
        node.name,
        count(node.instances as usize, "instance", "instances")
    ))?;
    Ok(0)
}

fn find<'a>(nodes: &'a [Node], text: &str) -> Result<&'a Node, CliError> {
    let exact = |node: &&Node| node.id == text || node.name == text;
    let mut found: Vec<&Node> = nodes.iter().filter(exact).collect();
    if found.is_empty() && text.len() >= 4 {
        found = nodes
            .iter()
            .filter(|node| node.id.starts_with(text))
            .collect();
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(CliError::refused(
            format!("there is no node `{text}`"),
            "`meshctl catalog nodes` lists them.",
        )),
        many => {
            let ids: Vec<&str> = many.iter().map(|node| node.id.as_str()).collect();
            Err(CliError::refused(
                format!("`{text}` is more than one node"),
                format!("Give one of the ids {}.", ids.join(", ")),
            ))
        }
    }
}

/// `2 passing, 1 critical`.
fn tally(tally: Tally) -> String {
    let parts: Vec<String> = [
        (tally.passing, "passing"),
        (tally.warning, "warning"),
        (tally.critical, "critical"),
        (tally.silent, "silent"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, name)| format!("{number} {name}"))
    .collect();
    match parts.is_empty() {
        true => tally.total.to_string(),
        false => parts.join(", "),
    }
}

fn cut(text: &str, width: usize, args: &ListArgs) -> String {
    match args.verbose {
        true => text.to_owned(),
        false => shortened(text, width),
    }
}

/// The first eight characters of a UUID, as Nomad shows ids.
fn short_id(id: &str, args: &ListArgs) -> String {
    match id.len() == 36 && id.is_ascii() && !args.verbose {
        true => id.chars().take(8).collect(),
        false => cut(id, 14, args),
    }
}

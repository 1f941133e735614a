//! `meshctl ca leaves`, `revoke`, `unrevoke` and `revocations`.

use std::collections::BTreeSet;

use clap::Args;
use mesh_model::{Key, serial_number};
use serde_json::{Value, json};

use super::ca::shown;
use super::live;
use crate::args::{Connection, Freshness, Namespace, Output, Wait};
use crate::client::{Client, Proxy};
use crate::console::Console;
use crate::error::CliError;
use crate::output::{Table, when};

/// List the leaves that were signed and have not ended
///
/// Also those that no sidecar shows any more: whoever has one with its key can
/// use it until its end, or until it is revoked. A leaf is listed within a
/// second of its signing. One that a connected sidecar shows is in use.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct LeavesArgs {
    /// Only those of this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Revoke a leaf, or a service as a whole
///
/// Every sidecar refuses it, as caller and as called, and cuts its connections
/// within a second. A leaf is revoked with all others of its key, until none
/// of them can be good; the sidecar that has it gets another one with another
/// key at once. A service stays revoked, and gets no leaf, until
/// `meshctl ca unrevoke`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RevokeArgs {
    /// The leaf with this serial number: see `meshctl ca leaves`
    #[arg(
        long,
        value_name = "SERIAL",
        conflicts_with = "service",
        required_unless_present = "service"
    )]
    serial: Option<String>,
    /// All leaves of this service, and those that it would get
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Why, for people; it is shown wherever the revocation is
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Make the leaves of a service good again
///
/// A leaf that is revoked by its serial number stays so: its sidecar has
/// another one.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct UnrevokeArgs {
    /// The service
    #[arg(long, value_name = "NAME")]
    service: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct RevocationsArgs {
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

fn service(name: &str, namespace: &Namespace) -> Result<Key, CliError> {
    let key = namespace.key(name);
    let key = key.map_err(|error| CliError::refused(format!("{name}: {error}"), ""))?;
    match key.check() {
        Ok(()) => Ok(key),
        Err(error) => Err(CliError::refused(format!("{name}: {error}"), "")),
    }
}

pub(super) async fn leaves(args: &LeavesArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let name = args.service.as_deref();
    let of = name
        .map(|name| service(name, &args.namespace))
        .transpose()?;
    let client = Client::new(&args.connection, args.freshness, console)?;
    let json = client.leaves(of.as_ref()).await?.json;
    if args.output.is_json() {
        return console.json(&json).map(|()| 0);
    }
    let proxies = client.proxies(of.as_ref(), None).await?.value.proxies;
    let rows = rows(&json);
    let in_use = in_use(rows, &proxies);
    let mut table = Table::new(&["SERIAL", "SERVICE", "NODE", "PROXY", "VALID TO", "STATE"]);
    for (place, leaf) in rows.iter().enumerate() {
        let revoked = leaf["revoked"].as_bool().unwrap_or(false);
        let words = [("in use", in_use.contains(&place)), ("revoked", revoked)];
        let words = words.into_iter().filter(|(_, is)| *is);
        table.row([
            shown(&leaf["serial"]),
            service_of(leaf),
            shown(&leaf["node"]),
            shown(&leaf["proxy"]),
            shown(&leaf["not_after"]),
            words.map(|(word, _)| word).collect::<Vec<_>>().join(", "),
        ]);
    }
    console.table(&table).map(|()| 0)
}

/// The rows that connected sidecars show, by what they say of when their leaf ends; of two of one
/// sidecar that end together, the one that was signed last.
fn in_use(leaves: &[Value], proxies: &[Proxy]) -> BTreeSet<usize> {
    let shows = |proxy: &Proxy| {
        let ends = when(proxy.leaf_not_after.filter(|_| proxy.connected)?);
        let is = |leaf: &Value| {
            let text = |name: &str| leaf[name].as_str();
            text("node") == Some(&proxy.node)
                && text("proxy") == Some(&proxy.proxy)
                && text("not_after") == Some(&ends)
        };
        let all = leaves.iter().enumerate().filter(|(_, leaf)| is(leaf));
        let signed = |leaf: &Value| leaf["signed"].as_str().unwrap_or_default().to_owned();
        all.max_by_key(|(_, leaf)| signed(leaf))
            .map(|(place, _)| place)
    };
    proxies.iter().filter_map(shows).collect()
}

pub(super) async fn revocations(
    args: &RevocationsArgs,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    let client = Client::new(&args.connection, args.freshness, console)?;
    let json = client.revocations().await?.json;
    if args.output.is_json() {
        return console.json(&json).map(|()| 0);
    }
    let mut table = Table::new(&["SERVICE", "SERIAL", "PROXY", "SINCE", "UNTIL", "REASON"]);
    for row in rows(&json) {
        table.row([
            service_of(row),
            shown(&row["serial"]),
            shown(&row["proxy"]),
            shown(&row["created_at"]),
            shown(&row["until"]),
            shown(&row["reason"]),
        ]);
    }
    console.table(&table).map(|()| 0)
}

fn rows(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn service_of(row: &Value) -> String {
    let (namespace, name) = (shown(&row["namespace"]), shown(&row["service"]));
    match name.is_empty() {
        true => name,
        false => Key::new(namespace, name).to_string(),
    }
}

pub(super) async fn revoke(args: &RevokeArgs, console: &mut Console<'_>) -> Result<u8, CliError> {
    let (named, mut body) = match (&args.serial, &args.service) {
        (Some(text), _) => {
            let serial = serial_number(text).ok_or_else(|| {
                CliError::refused(
                    format!("-serial {text}: is no serial number"),
                    "`meshctl ca leaves` lists them; they are hex digits.",
                )
            })?;
            (format!("leaf {serial}"), json!({ "serial": serial }))
        }
        (None, name) => {
            let key = service(name.as_deref().unwrap_or_default(), &args.namespace)?;
            (format!("service {key}"), json!({ "service": key }))
        }
    };
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client.revoke(body).await?.json;
    written(&answer, &format!("Revoked: {named}"), args.output, console)?;
    let index = answer["index"].as_u64().unwrap_or(0);
    live::wait(&client, args.wait, index, None, console).await
}

pub(super) async fn unrevoke(
    args: &UnrevokeArgs,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    let key = service(&args.service, &args.namespace)?;
    let client = Client::new(&args.connection, Freshness::default(), console)?;
    let answer = client.unrevoke(json!({ "service": key })).await?.json;
    let says = format!("Revoked no longer: service {key}");
    written(&answer, &says, args.output, console)?;
    let index = answer["index"].as_u64().unwrap_or(0);
    live::wait(&client, args.wait, index, None, console).await
}

fn written(
    answer: &Value,
    says: &str,
    output: Output,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    for warning in rows(&answer["warnings"]) {
        console.note(format!("Warning: {}", shown(&warning["message"])));
    }
    match output.is_json() {
        true => console.json(answer),
        false => console.line(says),
    }
}

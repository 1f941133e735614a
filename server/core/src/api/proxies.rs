//! `/v1/proxies`: what the proxies run, and whether a change is live everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use http::Method;
use mesh_model::{Key, Version};
use mesh_proto::servers::v1::{self as wire, AgentStatus};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::ApiError;
use super::route::{Access, Call, Reply, Route, Shape};
use crate::core::Core;
use crate::peers::{Gathered, gather};

const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_LIMIT: Duration = Duration::from_secs(600);
/// Between two questions to the other servers, when nothing is heard here.
const POLL: Duration = Duration::from_millis(100);
/// And at least, however much is heard: after a change every agent acks.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::GET,
            "/v1/proxies",
            "listProxies",
            "What every proxy runs, asked of all servers",
            Shape::One("Proxies"),
            |call| list(call).boxed(),
        )
        .access(Access::Read)
        .query("service", "Keeps the proxies of this service")
        .query("node", "Keeps the proxies of this node"),
        Route::act(
            Method::GET,
            "/v1/proxies/wait",
            "waitForProxies",
            "Answers when every proxy of every connected agent runs a version",
            Shape::One("Waited"),
            |call| wait(call).boxed(),
        )
        .access(Access::Read)
        .query("index", "The index that a write answered")
        .query("epoch", "Its epoch; the present one when absent")
        .query("timeout", "How long to wait: default 10s, at most 10m")
        .query("destination", "Only the proxies of this service")
        .time_limit(TIMEOUT_LIMIT + Duration::from_secs(30))
        .waits(),
    ]
}

fn version(of: Option<&wire::Version>) -> Option<Version> {
    of.cloned()
        .map(Version::from)
        .filter(|version| !version.epoch.is_empty())
}

async fn list(call: Call) -> Result<Reply, ApiError> {
    let service = call.args.query_key("service")?;
    let node = call.args.text("node");
    let gathered = gather(&call.core).await;
    let proxies = gathered.agents.iter().flat_map(|agent| {
        let server = agent.server.clone();
        agent
            .proxies
            .iter()
            .map(move |proxy| (server.clone(), proxy))
    });
    let wanted = proxies.filter(|(_, proxy)| {
        let of = service.as_ref().is_none_or(|key| is_of(proxy, key));
        of && node.is_none_or(|node| proxy.node == node)
    });
    let rows: Vec<Value> = wanted.map(|(server, proxy)| row(&server, proxy)).collect();
    Ok(Reply::json(json!({
        "version": call.core.store.state().version(),
        "unreachable_servers": gathered.unreachable,
        "proxies": rows,
    })))
}

fn is_of(proxy: &wire::ProxyStatus, service: &Key) -> bool {
    let namespace = match proxy.namespace.as_str() {
        "" => mesh_model::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    proxy.service == service.name && namespace == service.namespace
}

fn row(server: &str, proxy: &wire::ProxyStatus) -> Value {
    let (acked, sent) = (version(proxy.acked.as_ref()), version(proxy.sent.as_ref()));
    let in_sync = match (&acked, &sent) {
        (Some(acked), Some(sent)) => acked.covers(sent) && proxy.problem.is_empty(),
        _ => false,
    };
    json!({
        "proxy": proxy.proxy,
        "namespace": proxy.namespace,
        "service": proxy.service,
        "instance": proxy.instance,
        "node": proxy.node,
        "server": server,
        "connected": proxy.connected,
        "in_sync": in_sync,
        "acked": acked,
        "sent": sent,
        "leaf_not_after": (proxy.leaf_not_after > 0).then_some(proxy.leaf_not_after),
        "version": proxy.version,
        "problem": proxy.problem,
        "not_understood": proxy.not_understood,
    })
}

async fn wait(call: Call) -> Result<Reply, ApiError> {
    let index = call.args.number("index")?;
    let index = index.ok_or_else(|| ApiError::request("index: is missing"))?;
    let destination = call.args.query_key("destination")?;
    let timeout = call.args.duration("timeout", TIMEOUT, TIMEOUT_LIMIT)?;
    let core = &call.core;
    let deadline = Instant::now() + timeout;
    let wanted = Version {
        epoch: match call.args.text("epoch") {
            Some(epoch) => epoch.to_owned(),
            None => core.store.state().version().epoch,
        },
        index,
    };
    let mut changes = core.registry.watch();
    loop {
        changes.mark_unchanged();
        let asked = Instant::now();
        let answer = judge(core, &wanted, destination.as_ref(), gather(core).await);
        let live = answer["live"] == Value::Bool(true);
        if live || Instant::now() >= deadline || core.stop.is_cancelled() {
            return Ok(Reply::json(answer).at(index));
        }
        tokio::select! {
            () = news(&mut changes, asked, deadline) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

/// Waits until it is worth to ask all servers again: agents of this one tell when they have news,
/// those of others are asked for it.
async fn news(changes: &mut watch::Receiver<u64>, asked: Instant, deadline: Instant) {
    tokio::select! {
        _ = changes.changed() => {}
        () = tokio::time::sleep_until(deadline.min(Instant::now() + POLL)) => {}
    }
    tokio::time::sleep_until(deadline.min(asked + PAUSE)).await;
}

fn judge(core: &Core, wanted: &Version, service: Option<&Key>, gathered: Gathered) -> Value {
    let mut lagging = Vec::new();
    let (mut agents, mut proxies) = (0, 0);
    // Who enforces what is said of a service: its sidecars, and the gateways that stand for it.
    let services = service.map(|key| enforcing(core, key));
    let concerns = |proxy: &&wire::ProxyStatus| {
        let mut services = services.iter().flatten();
        service.is_none() || services.any(|key| is_of(proxy, key))
    };
    for agent in &gathered.agents {
        let of_agent: Vec<&wire::ProxyStatus> = agent.proxies.iter().filter(concerns).collect();
        if service.is_some() && of_agent.is_empty() {
            continue;
        }
        agents += 1;
        proxies += of_agent.len();
        lagging.extend(behind(agent, wanted, service, &of_agent));
    }
    let not_connected = not_connected(core, services.as_ref(), &gathered);
    let reached = gathered.unreachable.is_empty();
    json!({
        "live": lagging.is_empty() && reached,
        "index": wanted.index,
        "agents": agents,
        "proxies": proxies,
        "lagging": lagging,
        "not_connected": not_connected,
        "unreachable_servers": gathered.unreachable,
    })
}

/// The proxies of an agent that do not run what is wanted.
fn behind(
    agent: &AgentStatus,
    wanted: &Version,
    service: Option<&Key>,
    proxies: &[&wire::ProxyStatus],
) -> Vec<Value> {
    let acked = version(agent.acked.as_ref());
    if !acked.as_ref().is_some_and(|acked| acked.covers(wanted)) {
        let reason = match &acked {
            None => "its agent has acked nothing yet".to_owned(),
            Some(acked) if acked.epoch != wanted.epoch => {
                "its agent is in another epoch".to_owned()
            }
            Some(acked) => format!("its agent has acked {}", acked.index),
        };
        let of_agent = |proxy: Value| json!({"node": agent.node, "proxy": proxy, "reason": reason, "acked": acked});
        return match proxies {
            [] => vec![of_agent(Value::Null)],
            some => some
                .iter()
                .map(|one| of_agent(one.proxy.clone().into()))
                .collect(),
        };
    }
    let concerns =
        |name: &str| service.is_none() || proxies.iter().any(|proxy| proxy.proxy == name);
    let lagging = agent.lagging.iter().filter(|one| concerns(&one.proxy));
    lagging
        .map(|one| {
            json!({"node": agent.node, "proxy": one.proxy, "reason": one.reason, "acked": acked})
        })
        .collect()
}

/// The service, and the gateways that stand for it.
fn enforcing(core: &Core, service: &Key) -> BTreeSet<Key> {
    let state = core.store.state();
    let gateways = state.gateways().filter(|row| row.value.links(service));
    let keys = gateways.map(|row| row.value.key());
    keys.chain([service.clone()]).collect()
}

/// Nodes with proxies whose agent no server hears.
fn not_connected(
    core: &Core,
    services: Option<&BTreeSet<Key>>,
    gathered: &Gathered,
) -> BTreeSet<String> {
    let connected: BTreeSet<&str> = gathered
        .agents
        .iter()
        .map(|agent| agent.node.as_str())
        .collect();
    let state = core.store.state();
    state
        .instances()
        .filter(|row| row.value.proxy.as_ref().is_some_and(|it| !it.native))
        .filter(|row| services.is_none_or(|keys| keys.contains(&row.value.key())))
        .filter(|row| !connected.contains(row.value.node.as_str()))
        .map(|row| row.value.node.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn however_much_is_heard_the_servers_are_left_alone_for_a_while() {
        let (tell, mut changes) = watch::channel(0);
        let begin = Instant::now();
        let deadline = begin + TIMEOUT;
        for _ in 0..4 {
            tell.send_modify(|count| *count += 1);
            news(&mut changes, Instant::now(), deadline).await;
        }
        assert!(begin.elapsed() >= PAUSE * 4);
        // But not beyond the end of the request.
        tell.send_modify(|count| *count += 1);
        news(&mut changes, deadline, begin).await;
        assert!(Instant::now() < deadline);
    }
}

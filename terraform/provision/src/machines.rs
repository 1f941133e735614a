//! Which machine a new server gets: one that fits, with the fewest servers, the first by name.

use std::collections::BTreeMap;

use crate::describe::Machine;
use crate::error::ProvisionError;
use crate::nomad::Node;

/// Whether a datacenter is one of those, which may have `*` in them.
pub(crate) fn is_in(datacenter: &str, wanted: &[String]) -> bool {
    wanted.iter().any(|pattern| matches(datacenter, pattern))
}

fn matches(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.filter_map(|at| rest.get(at..))
                .any(|rest| matches(rest, after))
        }),
    }
}

/// Why a node cannot have a server, if it cannot.
fn unfit(
    node: &Node,
    datacenters: &[String],
    pool: &str,
    machine: &Machine,
) -> Option<&'static str> {
    let raw_exec = node.drivers.as_ref().and_then(|all| all.get("raw_exec"));
    let has_volume = |name: &String| {
        let volumes = node.host_volumes.as_ref();
        volumes.is_some_and(|all| all.contains_key(name))
    };
    if !node.takes_work() {
        return Some("is not ready, or takes no work");
    }
    if !is_in(&node.datacenter, datacenters) {
        return Some("is in another datacenter");
    }
    if pool != "all" && node.node_pool != pool {
        return Some("is in another node pool");
    }
    if !raw_exec.is_some_and(|it| it.detected && it.healthy) {
        return Some("has no raw_exec driver (plugin \"raw_exec\" in its configuration)");
    }
    match &machine.volume {
        Some(name) if !has_volume(name) => Some("has no such host volume"),
        _ => None,
    }
}

/// A machine for one more server; `used` says how many each node has.
pub(crate) fn choose<'a>(
    nodes: &'a [Node],
    used: &BTreeMap<String, u32>,
    datacenters: &[String],
    pool: &str,
    machine: &Machine,
    who: &str,
) -> Result<&'a Node, ProvisionError> {
    let load = |node: &Node| used.get(&node.id).copied().unwrap_or(0);
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    let mut fit: Vec<&Node> = Vec::new();
    for node in nodes {
        let reason = match unfit(node, datacenters, pool, machine) {
            None if machine.distinct && load(node) > 0 => Some("has one already"),
            other => other,
        };
        match reason {
            None => fit.push(node),
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    let best = fit
        .into_iter()
        .min_by_key(|node| (load(node), &node.name, &node.id));
    best.ok_or_else(|| {
        let said: Vec<String> = reasons
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        let said = match said.is_empty() {
            true => "it has none".to_owned(),
            false => said.join("; "),
        };
        let volume = machine
            .volume
            .as_ref()
            .map_or(String::new(), |name| format!(" (volume {name})"));
        ProvisionError::NoMachine(format!(
            "there is no machine for {who}{volume}. Of Nomad's {} nodes: {said}",
            nodes.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nomad::Driver;

    fn node(name: &str) -> Node {
        let driver = Driver {
            detected: true,
            healthy: true,
        };
        Node {
            id: format!("id-{name}"),
            name: name.to_owned(),
            datacenter: "dc1".to_owned(),
            node_pool: "default".to_owned(),
            status: "ready".to_owned(),
            scheduling_eligibility: "eligible".to_owned(),
            drivers: Some([("raw_exec".to_owned(), driver)].into()),
            ..Node::default()
        }
    }

    fn machine(distinct: bool) -> Machine {
        Machine {
            volume: None,
            data_dir: "/d".to_owned(),
            distinct,
        }
    }

    #[test]
    fn the_least_used_that_fits() {
        let all = ["*".to_owned()];
        let nodes = [node("b"), node("a"), node("c")];
        let used: BTreeMap<String, u32> = [("id-a".to_owned(), 1), ("id-b".to_owned(), 1)].into();
        let chosen = |distinct| {
            choose(
                &nodes,
                &used,
                &all,
                "default",
                &machine(distinct),
                "server 2",
            )
        };
        assert_eq!(chosen(true).unwrap().name, "c");
        assert_eq!(chosen(false).unwrap().name, "c");
        let used: BTreeMap<String, u32> = nodes.iter().map(|one| (one.id.clone(), 1)).collect();
        let error = choose(&nodes, &used, &all, "default", &machine(true), "server 3").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no machine for server 3. Of Nomad's 3 nodes: 3 has one already"
        );
        let chosen = choose(&nodes, &used, &all, "default", &machine(false), "server 3");
        assert_eq!(chosen.unwrap().name, "a");
    }

    #[test]
    fn datacenters_have_stars() {
        let is = |text: &str, pattern: &str| is_in(text, &[pattern.to_owned()]);
        assert!(
            is("dc1", "*") && is("dc1", "dc*") && is("eu-west-1", "eu-*-1") && is("dc1", "dc1")
        );
        assert!(!is("dc2", "dc1") && !is("dc1", "d*2") && !is("xdc1", "dc*"));
    }
}

//! Who is connected to this server, and what they say. In memory only: it is what is so now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_model::Version;
use mesh_proto::servers::v1::{AgentStatus, Lagging, ProxyStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Proxies that one agent may report.
const MAX_PROXIES: usize = 4096;
/// Characters of a text of a report that are kept.
const MAX_TEXT: usize = 1024;
/// Texts of a list of a report that are kept.
const MAX_LIST: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    /// This server's name.
    server: String,
    agents: Mutex<Agents>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Agents {
    next: u64,
    by_node: HashMap<String, Agent>,
}

#[derive(Debug)]
struct Agent {
    stream: u64,
    replaced: CancellationToken,
    sent: Option<Version>,
    acked: Option<Version>,
    lagging: Vec<Lagging>,
    proxies: Vec<ProxyStatus>,
}

/// One stream's place in the registry.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) node: String,
    stream: u64,
    /// A newer stream of the same node took its place.
    pub(crate) replaced: CancellationToken,
}

impl Registry {
    pub(crate) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            agents: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// A stream of this node begins; an older one of it ends. `None`: as many
    /// agents as `limit` are connected.
    pub(crate) fn open(&self, node: &str, limit: usize) -> Option<Place> {
        let mut agents = self.lock();
        if agents.by_node.len() >= limit && !agents.by_node.contains_key(node) {
            return None;
        }
        agents.next += 1;
        let place = Place {
            node: node.to_owned(),
            stream: agents.next,
            replaced: CancellationToken::new(),
        };
        let agent = Agent {
            stream: place.stream,
            replaced: place.replaced.clone(),
            sent: None,
            acked: None,
            lagging: Vec::new(),
            proxies: Vec::new(),
        };
        if let Some(older) = agents.by_node.insert(node.to_owned(), agent) {
            older.replaced.cancel();
        }
        drop(agents);
        self.changed();
        Some(place)
    }

    /// A stream ended.
    pub(crate) fn close(&self, place: &Place) {
        let mut agents = self.lock();
        let agent = agents.by_node.get(&place.node);
        if agent.is_some_and(|agent| agent.stream == place.stream) {
            agents.by_node.remove(&place.node);
        }
        drop(agents);
        self.changed();
    }

    /// It was sent a mark.
    pub(crate) fn marked(&self, place: &Place, version: Version) {
        self.change(place, |agent| agent.sent = Some(version));
    }

    /// It acked a mark.
    pub(crate) fn acked(&self, place: &Place, version: Version, mut lagging: Vec<Lagging>) {
        lagging.truncate(MAX_PROXIES);
        for one in &mut lagging {
            shorten(&mut one.proxy);
            shorten(&mut one.reason);
        }
        self.change(place, |agent| {
            agent.acked = Some(version);
            agent.lagging = lagging;
        });
    }

    /// It spoke of its proxies. What node they are on is not its to say.
    pub(crate) fn reported(&self, place: &Place, mut proxies: Vec<ProxyStatus>) {
        proxies.truncate(MAX_PROXIES);
        for proxy in &mut proxies {
            proxy.node.clone_from(&place.node);
            let texts = [
                &mut proxy.proxy,
                &mut proxy.namespace,
                &mut proxy.service,
                &mut proxy.instance,
                &mut proxy.version,
                &mut proxy.problem,
            ];
            texts.into_iter().for_each(shorten);
            shorten(&mut proxy.leaf_root);
            proxy.roots.truncate(MAX_LIST);
            proxy.roots.iter_mut().for_each(shorten);
            proxy.not_understood.truncate(MAX_LIST);
            proxy.not_understood.iter_mut().for_each(shorten);
        }
        self.change(place, |agent| agent.proxies = proxies);
    }

    /// How many agents are connected.
    pub(crate) fn connected(&self) -> usize {
        self.lock().by_node.len()
    }

    /// What the connected agents said, by node.
    pub(crate) fn statuses(&self) -> Vec<AgentStatus> {
        let agents = self.lock();
        let mut statuses: Vec<AgentStatus> = agents
            .by_node
            .iter()
            .map(|(node, agent)| AgentStatus {
                node: node.clone(),
                server: self.server.clone(),
                acked: agent.acked.clone().map(Into::into),
                sent: agent.sent.clone().map(Into::into),
                proxies: agent.proxies.clone(),
                lagging: agent.lagging.clone(),
            })
            .collect();
        statuses.sort_by(|a, b| a.node.cmp(&b.node));
        statuses
    }

    /// Tells of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change(&self, place: &Place, change: impl FnOnce(&mut Agent)) {
        let mut agents = self.lock();
        let agent = agents.by_node.get_mut(&place.node);
        if let Some(agent) = agent.filter(|agent| agent.stream == place.stream) {
            change(agent);
        }
        drop(agents);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Agents> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_newer_stream_takes_the_place_of_the_older() {
        let registry = Registry::new("s1");
        let old = registry.open("n1", 1).unwrap();
        let new = registry.open("n1", 1).unwrap();
        assert!(registry.open("n2", 1).is_none());
        assert!(old.replaced.is_cancelled());
        assert!(!new.replaced.is_cancelled());
        let version = Version {
            epoch: "e".into(),
            index: 3,
        };
        registry.acked(&old, version.clone(), Vec::new());
        assert_eq!(registry.statuses()[0].acked, None);
        registry.acked(&new, version, Vec::new());
        assert!(registry.statuses()[0].acked.is_some());
        registry.close(&old);
        assert_eq!(registry.connected(), 1);
        registry.close(&new);
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn reports_are_bounded_and_count_for_their_node() {
        let registry = Registry::new("s1");
        let place = registry.open("n1", 1).unwrap();
        let proxy = ProxyStatus {
            node: "other".into(),
            problem: "é".repeat(5000),
            ..ProxyStatus::default()
        };
        registry.reported(&place, vec![proxy; MAX_PROXIES + 1]);
        let statuses = registry.statuses();
        assert_eq!(statuses[0].proxies.len(), MAX_PROXIES);
        assert_eq!(statuses[0].proxies[0].node, "n1");
        assert_eq!(statuses[0].proxies[0].problem.chars().count(), MAX_TEXT);
    }
}

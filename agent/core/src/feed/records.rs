//! What each proxy runs, by its own word: for `proxy status`, and for "is it live everywhere?".

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_model::Version;
use mesh_proto::servers::MAX_FROM_AGENT;
use mesh_proto::servers::v1 as pb;
use prost::Message;
use tokio::sync::watch;

use super::keys::Keys;
use crate::catalog::View;
use crate::compiler::{Compiled, Compiler};

/// What is said of all proxies at most, in bytes, but for what each must have: who it is.
const MAX_REPORT: usize = MAX_FROM_AGENT / 2;
/// Configs that were sent and not acked yet, of one stream.
const MAX_SENT: usize = 64;

/// What is known of the node's proxies.
#[derive(Debug, Default)]
pub(crate) struct Records {
    all: Mutex<BTreeMap<String, Record>>,
    changed: watch::Sender<u64>,
}

/// What is known of one proxy. What it said outlives its stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Its stream, if one is open; counts up, so that a replaced one's end changes nothing.
    pub(crate) stream: Option<u64>,
    /// Its own version.
    pub(crate) version: String,
    /// The last compilation that was sent, or found to be what runs already.
    generation: u64,
    /// Configs on their way: serial, and the version that it was made of.
    sent: VecDeque<(u64, Version)>,
    /// The version of the last config that it acked.
    acked: Version,
    /// The serials of the last roots that were sent and acked.
    roots: (u64, u64),
    /// The same of what is revoked.
    revocations: (u64, u64),
    /// The ids of the roots that were sent last, and of those that it trusts.
    root_ids: (Vec<String>, Vec<String>),
    leaf_not_after: i64,
    /// The id of the root that its leaf hangs on.
    leaf_root: String,
    problems: Problems,
    not_understood: Vec<String>,
}

/// What it did not take last, of each kind; empty: it took it.
#[derive(Clone, Debug, Default)]
struct Problems {
    config: String,
    roots: String,
    leaf: String,
    revocations: String,
}

impl Problems {
    fn first(&self) -> Option<&str> {
        self.all().next()
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let all = [&self.config, &self.roots, &self.leaf, &self.revocations].into_iter();
        all.map(String::as_str).filter(|it| !it.is_empty())
    }
}

fn problem(kind: &str, error: &str) -> String {
    match error.is_empty() {
        true => String::new(),
        false => format!("{kind}{error}"),
    }
}

impl Record {
    /// A stream of the proxy begins: what was on its way in the one before is not.
    pub(crate) fn begin(&mut self, stream: u64, version: &str) {
        *self = Self {
            stream: Some(stream),
            version: version.to_owned(),
            acked: std::mem::take(&mut self.acked),
            leaf_not_after: self.leaf_not_after,
            leaf_root: std::mem::take(&mut self.leaf_root),
            ..Self::default()
        };
    }

    /// All of this compilation is on its way.
    pub(crate) fn sent_all(&mut self, generation: u64) {
        self.generation = generation;
    }

    pub(crate) fn sent_config(&mut self, serial: u64, version: Version) {
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((serial, version));
    }

    /// Roots are on their way; `ids` says which.
    pub(crate) fn sent_roots(&mut self, serial: u64, ids: Vec<String>) {
        self.roots.0 = serial;
        self.root_ids.0 = ids;
    }

    /// The proxy took a config, or (with `error`) did not.
    pub(crate) fn acked_config(&mut self, serial: u64, error: &str, not_understood: Vec<String>) {
        while let Some((sent, version)) = self.sent.front().cloned() {
            if sent > serial {
                break;
            }
            self.sent.pop_front();
            if error.is_empty() {
                self.acked = version;
            }
        }
        self.problems.config = problem("", error);
        self.not_understood = not_understood;
    }

    pub(crate) fn acked_roots(&mut self, serial: u64, error: &str) {
        if error.is_empty() {
            self.roots.1 = serial;
            if serial == self.roots.0 {
                self.root_ids.1.clone_from(&self.root_ids.0);
            }
        }
        self.problems.roots = problem("roots: ", error);
    }

    /// What is revoked is on its way.
    pub(crate) fn sent_revocations(&mut self, serial: u64) {
        self.revocations.0 = serial;
    }

    pub(crate) fn acked_revocations(&mut self, serial: u64, error: &str) {
        if error.is_empty() {
            self.revocations.1 = serial;
        }
        self.problems.revocations = problem("", error);
    }

    pub(crate) fn acked_leaf(&mut self, not_after: i64, root: String, error: &str) {
        if error.is_empty() {
            self.leaf_not_after = not_after;
            self.leaf_root = root;
        }
        self.problems.leaf = problem("leaf: ", error);
    }

    /// Why the proxy does not run what was compiled for it; `None`: it does.
    fn lags(&self, compiled: &Compiled) -> Option<String> {
        if self.stream.is_none() {
            return Some("its stream to the agent is not open".to_owned());
        }
        if let Some(problem) = self.problems.first() {
            return Some(problem.to_owned());
        }
        if let Some(reason) = &compiled.behind {
            return Some(reason.clone());
        }
        if !self.sent.is_empty() || self.generation != compiled.generation {
            return Some("it has not acked its config yet".to_owned());
        }
        if self.revocations.1 < self.revocations.0 {
            return Some("it has not acked what is revoked yet".to_owned());
        }
        (self.roots.1 < self.roots.0).then(|| "it has not acked the roots yet".to_owned())
    }
}

impl Records {
    /// Changes what is known of a proxy.
    pub(crate) fn change(&self, proxy: &str, change: impl FnOnce(&mut Record)) {
        change(self.all().entry(proxy.to_owned()).or_default());
        self.changed.send_modify(|count| *count += 1);
    }

    /// The same where the stream is still the proxy's.
    pub(crate) fn change_of(&self, proxy: &str, stream: u64, change: impl FnOnce(&mut Record)) {
        let mut all = self.all();
        let Some(record) = all.get_mut(proxy).filter(|it| it.stream == Some(stream)) else {
            return;
        };
        change(record);
        drop(all);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Word of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many streams are open.
    pub(crate) fn connected(&self) -> usize {
        let all = self.all();
        all.values().filter(|it| it.stream.is_some()).count()
    }

    /// Forgets the proxies that are no longer registered.
    pub(crate) fn retain(&self, view: &View) {
        let mut all = self.all();
        let before = all.len();
        all.retain(|proxy, record| record.stream.is_some() || view.sidecar(proxy).is_some());
        let changed = all.len() != before;
        drop(all);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// What is said to the servers of every registered proxy. `done` is the version as of which
    /// everything is compiled: who has acked all that it was sent runs that.
    pub(crate) fn report(
        &self,
        view: &View,
        compiler: &Compiler,
        node: &str,
        done: &Version,
    ) -> Vec<pb::ProxyStatus> {
        let all = self.all();
        let nothing = Record::default();
        let statuses = view.sidecars().map(|(entry, sidecar)| {
            let record = all.get(&sidecar.id).unwrap_or(&nothing);
            let compiled = compiler.current(&sidecar.id);
            let current = compiled.config.is_some() && record.lags(&compiled).is_none();
            let acked = if current { done } else { &record.acked };
            let sent = record.sent.back().map_or(acked, |(_, version)| version);
            let known = |version: &Version| {
                Some(version.clone().into()).filter(|_| !version.epoch.is_empty())
            };
            let own = record.problems.all().map(str::to_owned);
            let problems: Vec<String> = own.chain(compiled.problems).collect();
            pb::ProxyStatus {
                proxy: sidecar.id.clone(),
                namespace: entry.registration.namespace.clone(),
                service: entry.registration.service.clone(),
                instance: entry.registration.id.clone(),
                node: node.to_owned(),
                connected: record.stream.is_some(),
                acked: known(acked),
                sent: known(sent),
                leaf_not_after: record.leaf_not_after,
                version: record.version.clone(),
                problem: problems.join("; "),
                not_understood: record.not_understood.clone(),
                roots: record.root_ids.1.clone(),
                leaf_root: record.leaf_root.clone(),
            }
        });
        bounded(statuses.collect())
    }

    /// The proxies that do not run what they should. One that was never started (no key of it is
    /// remembered) runs nothing, so nothing of it is behind.
    pub(crate) fn lagging(
        &self,
        view: &View,
        compiler: &Compiler,
        keys: &Keys,
    ) -> Vec<pb::Lagging> {
        let all = self.all();
        let nothing = Record::default();
        let started = view.sidecars().filter(|(_, sidecar)| keys.has(&sidecar.id));
        let lagging = started.filter_map(|(_, sidecar)| {
            let record = all.get(&sidecar.id).unwrap_or(&nothing);
            let compiled = compiler.current(&sidecar.id);
            let reason = record.lags(&compiled)?;
            Some(pb::Lagging {
                proxy: sidecar.id.clone(),
                reason,
            })
        });
        lagging.collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves out what proxies said where all of it would be more than a server takes at once: their
/// own words are no reason to end the stream.
fn bounded(mut statuses: Vec<pb::ProxyStatus>) -> Vec<pb::ProxyStatus> {
    let mut bytes = 0;
    for status in &mut statuses {
        // With its tag and length.
        if bytes + status.encoded_len() + 16 > MAX_REPORT {
            status.not_understood.clear();
            status.problem =
                "there is too much to say of this node's proxies; see the agent's log".to_owned();
        }
        bytes += status.encoded_len() + 16;
    }
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_never_more_than_a_server_takes() {
        let wordy = |number: usize| pb::ProxyStatus {
            proxy: format!("{number}-{}", "p".repeat(400)),
            instance: "i".repeat(400),
            problem: "x".repeat(2000),
            not_understood: vec!["y".repeat(500); 64],
            ..pb::ProxyStatus::default()
        };
        let proxies = bounded((0..1024).map(wordy).collect());
        assert_eq!(proxies.len(), 1024);
        assert_eq!(proxies.first(), Some(&wordy(0)), "those that fit are whole");
        let report = pb::ProxyReport { proxies };
        assert!(
            report.encoded_len() < MAX_FROM_AGENT,
            "{}",
            report.encoded_len()
        );
    }

    #[test]
    fn each_kind_of_problem_is_for_itself() {
        let mut record = Record::default();
        record.begin(1, "0");
        record.acked_leaf(0, String::new(), "expired");
        record.acked_config(1, "", Vec::new());
        record.acked_roots(1, "");
        assert_eq!(
            record.lags(&Compiled::default()).as_deref(),
            Some("leaf: expired")
        );
        record.acked_roots(2, "none");
        record.acked_leaf(7, "r1".into(), "");
        assert_eq!(
            record.lags(&Compiled::default()).as_deref(),
            Some("roots: none")
        );
        record.acked_roots(3, "");
        assert_eq!(record.lags(&Compiled::default()), None);
    }

    fn version(index: u64) -> Version {
        Version {
            epoch: "e".into(),
            index,
        }
    }

    #[test]
    fn a_proxy_lags_until_it_acked_all() {
        let mut record = Record::default();
        let mut compiled = Compiled::default();
        record.begin(1, "0");
        assert_eq!(record.lags(&compiled), None);
        record.sent_roots(1, vec!["r1".into()]);
        record.sent_config(1, version(5));
        record.sent_config(2, version(6));
        record.acked_config(1, "", Vec::new());
        assert_eq!(record.acked, version(5));
        assert!(record.lags(&compiled).is_some());
        record.acked_config(2, "", Vec::new());
        assert_eq!(
            record.lags(&compiled).as_deref(),
            Some("it has not acked the roots yet")
        );
        record.acked_roots(1, "");
        assert_eq!(record.lags(&compiled), None);
        record.sent_revocations(1);
        assert!(
            record
                .lags(&compiled)
                .is_some_and(|it| it.contains("revoked"))
        );
        record.acked_revocations(1, "revocations: unknown");
        let why = record.lags(&compiled);
        assert_eq!(why.as_deref(), Some("revocations: unknown"));
        record.acked_revocations(1, "");
        assert_eq!(record.lags(&compiled), None);
        compiled.generation = 1;
        assert!(record.lags(&compiled).is_some(), "not sent yet");
        record.sent_config(3, version(7));
        record.sent_all(1);
        record.acked_config(3, "unknown field `x`", Vec::new());
        assert_eq!(record.acked, version(6));
        assert_eq!(record.lags(&compiled).as_deref(), Some("unknown field `x`"));
        record.stream = None;
        assert!(record.lags(&compiled).is_some());
    }
}

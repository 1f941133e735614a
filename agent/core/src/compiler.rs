//! Facts and registrations become the configs of this node's proxies, again and again.
//!
//! A proxy is wired anew only when its registration changed or the body of a topic that it hangs
//! on did. What falls out besides is what the agent must know: the topics of all its proxies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh_model::{Registration, Version};
use mesh_proto::config::ProxyConfig;
use mesh_proto::fact::{RootsFact, Topic};
use mesh_proto::servers::MAX_TOPICS;
use mesh_tls::pem;
use mesh_wiring::{FactStore, Input, Wants, wire};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::View;
use crate::facts::Facts;
use crate::wants::Asked;

/// Changes within this time are compiled together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The same where an application waits for what changed: for those that come in one go.
const SHORT_DEBOUNCE: Duration = Duration::from_millis(2);
/// So long a topic is followed after its last proxy went: an allocation that is restarted while
/// no server answers finds its facts still there.
const LINGER: Duration = Duration::from_secs(600);

/// What one proxy is to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Compiled {
    /// The config; none until every topic had an answer.
    pub(crate) config: Option<Config>,
    /// What it trusts; none until that is known.
    pub(crate) roots: Option<Arc<Roots>>,
    /// What is revoked, as the servers wrote it; none until that is known.
    pub(crate) revocations: Option<Bytes>,
    /// Why there is no config, or what it leaves out; for the proxy's status.
    pub(crate) problems: Vec<String>,
    /// What its application had asked for when it was made.
    pub(crate) wants: Arc<Wants>,
    /// Why the config is older than what the servers said last, if it is.
    pub(crate) behind: Option<String>,
    /// The facts' version when it was made: all that was marked then is in it.
    pub(crate) version: Version,
    /// Counts the compilations that changed anything; 0: none was made.
    pub(crate) generation: u64,
}

impl Compiled {
    /// Whether both say the same to a proxy, whenever they were made.
    fn is_as(&self, other: &Self) -> bool {
        self.config == other.config
            && self.roots == other.roots
            && self.revocations == other.revocations
            && self.wants == other.wants
            && self.problems == other.problems
            && self.behind == other.behind
    }
}

/// What proxies trust, as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Roots {
    pub(crate) trust_domain: String,
    /// DER.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// The one that signs now: SHA-256 of its DER; empty: not said.
    pub(crate) active: Vec<u8>,
    /// Within how many seconds leaves of others are replaced.
    pub(crate) reissue_seconds: u32,
}

impl Roots {
    /// SHA-256 of each, in hex.
    pub(crate) fn ids(&self) -> Vec<String> {
        let ids = self.certificates.iter();
        ids.map(|der| hex(&mesh_tls::fingerprint(der))).collect()
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A config as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// JSON: `mesh_proto::config::ProxyConfig`.
    pub(crate) json: Bytes,
    /// What its reader must understand.
    pub(crate) needs: Vec<String>,
}

/// Compiles, and hands out what it compiled.
#[derive(Debug)]
pub(crate) struct Compiler {
    node: String,
    facts: Arc<Facts>,
    asked: Arc<Asked>,
    outputs: Mutex<HashMap<String, watch::Sender<Compiled>>>,
    wanted: watch::Sender<Arc<BTreeSet<Topic>>>,
    /// Everything that was marked at this version is compiled, and what it was compiled of is on
    /// disk.
    done: watch::Sender<Version>,
}

/// Versions that are compiled and wait for the disk at most; beyond, the older are left out.
const MAX_AWAITED: usize = 64;

/// What is kept from one compilation to the next.
#[derive(Default)]
struct Memory {
    made: HashMap<String, Made>,
    /// What native services hang on.
    native: BTreeSet<Topic>,
    /// Topics that no proxy hangs on any more, and since when.
    lingering: HashMap<Topic, Instant>,
    /// Versions that are compiled, each with the count of changes that it takes to be on disk.
    awaited: VecDeque<(u64, Version)>,
}

/// What a proxy's last compilation was made of.
struct Made {
    registration: Registration,
    revisions: BTreeMap<Topic, u64>,
    topics: BTreeSet<Topic>,
    wants: Arc<Wants>,
    /// What it was wired to, where it is transparent.
    config: Option<ProxyConfig>,
}

impl Compiler {
    pub(crate) fn new(node: String, facts: Arc<Facts>, asked: Arc<Asked>) -> Self {
        Self {
            node,
            facts,
            asked,
            outputs: Mutex::default(),
            wanted: watch::Sender::default(),
            done: watch::Sender::default(),
        }
    }

    /// What a proxy is to run, and word of each change. It ends when the proxy is no longer
    /// registered.
    pub(crate) fn output(&self, proxy: &str) -> watch::Receiver<Compiled> {
        self.outputs()
            .entry(proxy.to_owned())
            .or_default()
            .subscribe()
    }

    /// What a proxy is to run.
    pub(crate) fn current(&self, proxy: &str) -> Compiled {
        let outputs = self.outputs();
        let output = outputs.get(proxy);
        output.map(|it| it.borrow().clone()).unwrap_or_default()
    }

    /// The topics that the node's proxies hang on.
    pub(crate) fn wanted(&self) -> watch::Receiver<Arc<BTreeSet<Topic>>> {
        self.wanted.subscribe()
    }

    /// The version as of which everything is compiled and will be again after a crash. Word comes
    /// also when only a config or its problems changed: both are said to the servers.
    pub(crate) fn done(&self) -> watch::Receiver<Version> {
        self.done.subscribe()
    }

    /// Compiles until told to stop.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut catalog: watch::Receiver<View>,
        stop: CancellationToken,
    ) {
        let mut changed = self.facts.watch();
        let mut persisted = self.facts.persisted();
        let mut asked = self.asked.watch();
        let mut memory = Memory::default();
        // What stands on disk is from before a restart: its proxies may come yet.
        let begin = Instant::now();
        memory.lingering = self.facts.topics().map(|topic| (topic, begin)).collect();
        loop {
            let view = catalog.borrow_and_update().clone();
            changed.mark_unchanged();
            asked.mark_unchanged();
            let forgotten = self.asked.forget(Instant::now());
            self.compile(&view, &mut memory);
            let first = memory.lingering.values().min().map(|since| *since + LINGER);
            let first = first.into_iter().chain(forgotten).min();
            let over = async {
                match first {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(over);
            let mut waited_for = loop {
                self.settle(*persisted.borrow_and_update(), &mut memory);
                tokio::select! {
                    // An application waits for it.
                    it = asked.changed() => if it.is_err() { return } else { break true },
                    it = catalog.changed() => if it.is_err() { return } else { break false },
                    it = changed.changed() => if it.is_err() { return } else { break false },
                    it = persisted.changed() => if it.is_err() { return },
                    () = &mut over => break false,
                    () = stop.cancelled() => return,
                }
            };
            if !waited_for {
                waited_for = tokio::select! {
                    () = tokio::time::sleep(DEBOUNCE) => false,
                    it = asked.changed() => if it.is_err() { return } else { true },
                };
            }
            if waited_for {
                tokio::time::sleep(SHORT_DEBOUNCE).await;
            }
        }
    }

    /// What a proxy is told that hangs on more than servers say to one node: it keeps what it has,
    /// and its status says why.
    fn leave_out(&self, proxy: &str) {
        let reason = format!(
            "with it the sidecars of this node hang on more than {MAX_TOPICS} topics, which is what \
             servers tell one node; it keeps the config that it has. Move some instances elsewhere"
        );
        tracing::error!(proxy, reason, "a proxy is not wired");
        let compiled = Compiled {
            problems: vec![reason.clone()],
            behind: Some(reason),
            ..Compiled::default()
        };
        self.publish(proxy, compiled);
    }

    fn compile(&self, view: &View, memory: &mut Memory) {
        let made = &mut memory.made;
        let before: BTreeSet<Topic> = made.values().flat_map(|it| it.topics.clone()).collect();
        // Read before the facts are: what it marks is in them then.
        let mark = self.facts.mark();
        let registered: HashSet<&str> = view.sidecars().map(|(_, it)| it.id.as_str()).collect();
        made.retain(|proxy, _| registered.contains(proxy.as_str()));
        let mut wanted = BTreeSet::new();
        let native = natives(view);
        let before = before
            .union(&memory.native)
            .cloned()
            .collect::<BTreeSet<_>>();
        if !add(&mut wanted, &native) {
            tracing::error!("native services hang on more topics than servers tell one node");
        }
        memory.native = native;
        for (entry, sidecar) in view.sidecars() {
            let registration = &entry.registration;
            let mut wants = self.asked.of(&sidecar.id);
            if let Some(before) = made.get(&sidecar.id)
                && before.registration == *registration
                && before.wants == wants
                && before.revisions == self.facts.revisions(&before.topics)
            {
                if !add(&mut wanted, &before.topics) {
                    made.remove(&sidecar.id);
                    self.leave_out(&sidecar.id);
                }
                continue;
            }
            let before = made.get(&sidecar.id).and_then(|it| it.config.as_ref());
            let wire = |wants: &Wants| {
                let wire = |facts: &FactStore| {
                    let wired = wire(&Input {
                        registration,
                        sidecar,
                        node: &self.node,
                        facts,
                        wants,
                        before,
                    });
                    let mut topics = wired.topics.iter();
                    let behind = topics.find_map(|it| Some(format!("{it}: {}", facts.unread(it)?)));
                    let revocations = facts.revocations().map(Bytes::copy_from_slice);
                    (wired, behind, (facts.roots().map(roots), revocations))
                };
                self.facts.read(wire, |(wired, ..)| &wired.topics)
            };
            let (mut made_of, (mut wired, mut behind, mut trusted)) = wire(&wants);
            let mut fits = add(&mut wanted, &wired.topics);
            if !fits && !wants.is_empty() {
                // Who may call it must not hang on what its application asks for.
                tracing::error!(
                    proxy = sidecar.id,
                    "what a transparent sidecar is asked for is left out: with it the sidecars of                      this node hang on more than {MAX_TOPICS} topics"
                );
                wants = Arc::default();
                (made_of, (wired, behind, trusted)) = wire(&wants);
                fits = add(&mut wanted, &wired.topics);
            }
            if !fits {
                made.remove(&sidecar.id);
                self.leave_out(&sidecar.id);
                continue;
            }
            let mut compiled = Compiled {
                problems: wired.problems,
                behind,
                wants: wants.clone(),
                version: mark.clone(),
                ..Compiled::default()
            };
            let (roots, revocations) = trusted;
            compiled.revocations = revocations;
            match roots {
                Some(Ok(roots)) => compiled.roots = Some(Arc::new(roots)),
                Some(Err(error)) => compiled.problems.push(error),
                None => {}
            }
            match wired.config.as_ref().map(serde_json::to_vec) {
                Some(Ok(json)) => {
                    compiled.config = Some(Config {
                        json: json.into(),
                        needs: made_of.needs,
                    });
                }
                Some(Err(error)) => compiled.problems.push(error.to_string()),
                None => {
                    let missing: Vec<_> = wired.missing.iter().map(Topic::to_string).collect();
                    let reason = format!("the servers have not said yet: {}", missing.join(", "));
                    compiled.behind.get_or_insert(reason.clone());
                    compiled.problems.push(reason);
                }
            }
            self.publish(&sidecar.id, compiled);
            let now = Made {
                registration: registration.clone(),
                revisions: made_of.revisions,
                topics: wired.topics,
                wants,
                config: wired.config.filter(|it| it.transparent.is_some()),
            };
            made.insert(sidecar.id.clone(), now);
        }
        // One that is waited for may have been registered since the view was taken.
        self.outputs().retain(|proxy, output| {
            let awaited = output.receiver_count() > 0 && output.borrow().generation == 0;
            awaited || registered.contains(proxy.as_str())
        });
        let now = Instant::now();
        for topic in before.difference(&wanted) {
            memory.lingering.insert(topic.clone(), now);
        }
        memory
            .lingering
            .retain(|topic, since| !wanted.contains(topic) && now < *since + LINGER);
        // What is wanted comes before what lingers.
        let too_many = (wanted.len() + memory.lingering.len()).saturating_sub(MAX_TOPICS);
        if too_many > 0 {
            let lingering = memory.lingering.iter();
            let mut oldest: Vec<(Instant, Topic)> =
                lingering.map(|(it, at)| (*at, it.clone())).collect();
            oldest.sort();
            for (_, topic) in oldest.into_iter().take(too_many) {
                memory.lingering.remove(&topic);
            }
        }
        wanted.extend(memory.lingering.keys().cloned());
        self.facts.retain(&wanted);
        self.wanted.send_if_modified(|before| {
            let changed = **before != wanted;
            if changed {
                *before = Arc::new(wanted);
            }
            changed
        });
        // Counted after the facts were read: they are among the changes.
        if memory.awaited.len() >= MAX_AWAITED {
            memory.awaited.pop_back();
        }
        memory.awaited.push_back((self.facts.changes(), mark));
    }

    /// Says what is done, now that so many changes are on disk.
    fn settle(&self, persisted: u64, memory: &mut Memory) {
        let mut done = None;
        while memory
            .awaited
            .front()
            .is_some_and(|(it, _)| *it <= persisted)
        {
            done = memory.awaited.pop_front().map(|(_, version)| version);
        }
        if let Some(version) = done {
            self.done.send_if_modified(|before| {
                let changed = *before != version;
                *before = version;
                changed
            });
        }
    }

    fn publish(&self, proxy: &str, mut compiled: Compiled) {
        let mut outputs = self.outputs();
        let output = outputs.entry(proxy.to_owned()).or_default();
        let changed = output.send_if_modified(|before| {
            compiled.generation = before.generation;
            let changed = compiled.generation == 0 || !before.is_as(&compiled);
            if changed {
                compiled.generation += 1;
                *before = compiled;
            }
            changed
        });
        drop(outputs);
        if changed {
            self.done.send_modify(|_| {});
        }
    }

    fn outputs(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Compiled>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What native services hang on: they ask this agent whom they may let in, and what is trusted and not.
fn natives(view: &View) -> BTreeSet<Topic> {
    let all = view.iter().map(|entry| &entry.registration);
    let native = all.filter(|registration| registration.native);
    let topics = |it: &Registration| {
        let intentions = Topic::Intentions(it.key());
        [Topic::Mesh, Topic::Roots, Topic::Revocations, intentions]
    };
    native.flat_map(topics).collect()
}

/// Adds topics to those of the node, all or none; whether there was room for them.
fn add(wanted: &mut BTreeSet<Topic>, topics: &BTreeSet<Topic>) -> bool {
    let more = topics.difference(wanted).count();
    let fits = wanted.len() + more <= MAX_TOPICS;
    if fits {
        wanted.extend(topics.iter().cloned());
    }
    fits
}

fn roots(fact: &RootsFact) -> Result<Roots, String> {
    let found = pem::certificates("roots", fact.roots.join("\n").as_bytes());
    let found = found.map_err(|e| e.to_string())?;
    let active = found
        .iter()
        .map(|der| mesh_tls::fingerprint(der))
        .find(|id| hex(id) == fact.active);
    Ok(Roots {
        trust_domain: fact.trust_domain.clone(),
        certificates: found.iter().map(|der| der.to_vec()).collect(),
        active: active.unwrap_or_default(),
        reissue_seconds: fact.reissue_seconds,
    })
}

//! The topics of one agent: which are dirty, which are watched.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use futures::{Future, StreamExt};
use mesh_model::Version;
use mesh_proto::fact::Topic;
use mesh_proto::servers::v1 as wire;
use mesh_state::{State, Store, WatchKey};

use super::facts::{Body, Facts, watched};

/// See the module.
#[derive(Default)]
pub(crate) struct Subscriptions {
    topics: BTreeMap<Topic, Subscription>,
    dirty: BTreeSet<Topic>,
    watches: FuturesUnordered<Abortable<Pin<Box<dyn Future<Output = Topic> + Send>>>>,
}

#[derive(Default)]
struct Subscription {
    /// What the agent said it has.
    held: Option<(Version, Bytes)>,
    /// What it was sent: epoch, the topic's index, checksum.
    sent: Option<(String, u64, Bytes)>,
    watch: Option<AbortHandle>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn has(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// The agent asks for a topic, perhaps again.
    pub(crate) fn add(&mut self, topic: Topic, held: Option<(Version, Bytes)>) {
        self.remove(&topic);
        let subscription = Subscription {
            held,
            ..Subscription::default()
        };
        self.topics.insert(topic.clone(), subscription);
        self.dirty.insert(topic);
    }

    /// The agent does not ask for it any more.
    pub(crate) fn remove(&mut self, topic: &Topic) {
        self.dirty.remove(topic);
        let gone = self.topics.remove(topic);
        if let Some(watch) = gone.and_then(|gone| gone.watch) {
            watch.abort();
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Waits until a watched topic is dirty. Pending for ever when none is watched.
    pub(crate) async fn woken(&mut self) {
        loop {
            match self.watches.next().await {
                Some(Ok(topic)) => {
                    if let Some(subscription) = self.topics.get_mut(&topic) {
                        subscription.watch = None;
                        self.dirty.insert(topic);
                        return;
                    }
                }
                Some(Err(_aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// The next fact to send. `None`: no dirty topic has news.
    pub(crate) fn next(
        &mut self,
        store: &Store,
        facts: &Facts,
    ) -> Result<Option<wire::Fact>, String> {
        while let Some(topic) = self.dirty.pop_first() {
            let state = store.state();
            let body = facts
                .of(&state, &topic)
                .map_err(|error| format!("topic {topic}: {error}"))?;
            let Some(subscription) = self.topics.get_mut(&topic) else {
                continue;
            };
            let version = state.version();
            let index = state.topic_index(&watched(&topic));
            let fact = body.map(|body| fact(&topic, &version, index, body, subscription));
            let watch = watch(store, &topic, version.epoch, index);
            let (watch, handle) = futures::future::abortable(watch);
            if let Some(before) = subscription.watch.replace(handle) {
                before.abort();
            }
            self.watches.push(watch);
            if fact.is_some() {
                return Ok(fact);
            }
        }
        Ok(None)
    }

    /// Whether the agent has everything as of this state. What it has not is
    /// dirty from now on, or not known to anyone yet.
    ///
    /// Nothing need have woken it: when the memory of deletions is pruned, the
    /// index of what is not there rises without a change.
    pub(crate) fn is_current(&mut self, state: &State) -> bool {
        let epoch = state.version().epoch;
        let mut current = true;
        for (topic, subscription) in &self.topics {
            match &subscription.sent {
                Some((of, index, _))
                    if *of == epoch && *index >= state.topic_index(&watched(topic)) => {}
                Some(_) => {
                    current = false;
                    self.dirty.insert(topic.clone());
                }
                None => current = false,
            }
        }
        current
    }

    /// What each topic should be in this state.
    pub(crate) fn checksums(
        &self,
        state: &State,
        facts: &Facts,
    ) -> Result<Vec<wire::TopicChecksum>, String> {
        let mut all = Vec::with_capacity(self.topics.len());
        for topic in self.topics.keys() {
            if let Some(body) = facts.of(state, topic)? {
                all.push(wire::TopicChecksum {
                    topic: topic.to_string(),
                    checksum: body.checksum.to_vec(),
                });
            }
        }
        Ok(all)
    }
}

fn fact(
    topic: &Topic,
    version: &Version,
    index: u64,
    body: Arc<Body>,
    subscription: &mut Subscription,
) -> wire::Fact {
    let same =
        |epoch: &str, checksum: &Bytes| *epoch == version.epoch && *checksum == body.checksum;
    // Of another epoch everything is sent again, even what looks the same.
    let unchanged = match (&subscription.sent, &subscription.held) {
        (Some((epoch, _, checksum)), _) => same(epoch, checksum),
        (None, Some((held, checksum))) => same(&held.epoch, checksum),
        (None, None) => false,
    };
    subscription.sent = Some((version.epoch.clone(), index, body.checksum.clone()));
    wire::Fact {
        topic: topic.to_string(),
        version: Some(version.clone().into()),
        body: if unchanged {
            Vec::new()
        } else {
            body.bytes.to_vec()
        },
        needs: body.needs.clone(),
        checksum: body.checksum.to_vec(),
        unchanged,
    }
}

fn watch(
    store: &Store,
    topic: &Topic,
    epoch: String,
    index: u64,
) -> Pin<Box<dyn Future<Output = Topic> + Send>> {
    let keys = [WatchKey::Topic(watched(topic))];
    let watch = store.watch(&keys, &Version { epoch, index });
    let topic = topic.clone();
    Box::pin(async move {
        watch.await;
        topic
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mesh_model::{Action, Entry, EntryKey, Key, Service};
    use mesh_state::{Command, Envelope, Op};

    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn write(op: Op) -> Command {
        Command::Transaction {
            ops: vec![op],
            owner: "cli".into(),
            force: false,
        }
    }

    fn put(name: &str) -> Command {
        write(Op::Put {
            entry: Entry::Service(Service::named(&Key::of(name))),
            cas: None,
        })
    }

    fn delete(name: &str) -> Command {
        write(Op::Delete {
            key: EntryKey::Service(Key::of(name)),
            cas: None,
        })
    }

    fn apply(store: &Store, time: u64, command: Command) {
        let outcomes = store.apply(&[Envelope::new(time, command)]);
        for outcome in outcomes {
            outcome.into_result().unwrap();
        }
    }

    /// A deletion that is forgotten moves the index of everything that is not
    /// there, and wakes nobody; the marks must go on.
    #[tokio::test]
    async fn forgotten_deletions_do_not_leave_an_agent_behind() {
        let store = Store::default();
        let bootstrap = Command::Bootstrap {
            cluster_id: "c".into(),
            trust_domain: "c.mesh".into(),
            datacenter: "dc1".into(),
            epoch: "e".into(),
            default_intention: Action::Deny,
        };
        apply(&store, 1, bootstrap);
        apply(&store, 1, put("db"));
        apply(&store, 1, delete("db"));
        let facts = Facts::default();
        let mut topics = Subscriptions::default();
        let web = || Key::of("web");
        let all = [Topic::Service(web()), Topic::Virtual(web())];
        for topic in all.clone() {
            topics.add(topic, None);
        }
        for _ in &all {
            assert!(topics.next(&store, &facts).unwrap().is_some());
        }
        assert!(topics.is_current(&store.state()) && !topics.is_dirty());

        apply(&store, 2 + DAY, put("api"));
        assert!(!topics.is_current(&store.state()));
        for _ in &all {
            assert!(topics.next(&store, &facts).unwrap().unwrap().unchanged);
        }
        assert!(topics.next(&store, &facts).unwrap().is_none());
        assert!(topics.is_current(&store.state()));
        // It goes on from there.
        apply(&store, 2 + DAY, put("web"));
        topics.woken().await;
        topics.woken().await;
        for _ in &all {
            assert!(!topics.next(&store, &facts).unwrap().unwrap().unchanged);
        }
        assert!(topics.is_current(&store.state()));
    }
}

//! What the servers said, by topic, in memory and on disk.
//!
//! The agent compiles from these and nothing else, so they outlive the servers and the agent's
//! own restarts. A fact replaces the one before only when it is whole (its checksum fits) and not
//! older; "there is none" is a body that says so, never the lack of one.
//!
//! What the servers are told of as enforced must outlive the agent too: a version is acknowledged
//! only when all that was compiled for it is on disk ([`Facts::persisted`]). And where the newest
//! body is one that this agent cannot use, the last that it could is kept beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::Version;
use mesh_policy::Features;
use mesh_proto::fact::Topic;
use mesh_proto::servers::v1 as pb;
use mesh_wiring::FactStore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{AgentError, disk};

/// Changes within this time are one write. An acknowledgement waits for it, and a deny has a
/// second to be live.
const WRITE_DELAY: Duration = Duration::from_millis(20);
/// A disk that is slow is left alone between writes as long as the last one took, but no longer
/// than this.
const LONGEST_DELAY: Duration = Duration::from_millis(300);
/// After a write that failed: twice as long after each, up to the second.
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the agent knows of the mesh.
#[derive(Debug)]
pub(crate) struct Facts {
    path: PathBuf,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    persisted: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<Topic, Held>,
    /// The same, read.
    store: FactStore,
    mark: Version,
    /// Counts bodies that came.
    revision: u64,
    /// Counts everything that is to be on disk.
    changes: u64,
    /// What this agent understands.
    features: Features,
}

/// A topic's answer.
#[derive(Debug)]
struct Held {
    version: Version,
    body: Vec<u8>,
    checksum: Vec<u8>,
    needs: Vec<String>,
    /// Whether this body is what the store has.
    usable: bool,
    /// What the store has instead, where this body is not usable: the last that was.
    last_usable: Option<Form>,
    /// The count at which this body came.
    revision: u64,
}

/// A body and what it needs its reader to understand.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    body: Vec<u8>,
    needs: Vec<String>,
}

impl Held {
    /// The form that is in use, if any is.
    fn used(self) -> Option<Form> {
        match self.usable {
            true => Some(Form {
                body: self.body,
                needs: self.needs,
            }),
            false => self.last_usable,
        }
    }
}

/// What became of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is what holds now.
    Taken,
    /// What is held is newer, in the same epoch.
    Older,
    /// It is not whole, or says "unchanged" of what is not held: ask again.
    AskAgain(Topic),
    /// Its topic is not known here.
    Unknown,
}

/// What something was made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MadeOf {
    /// As [`Facts::revisions`].
    pub(crate) revisions: BTreeMap<Topic, u64>,
    /// What the bodies need their reader to understand.
    pub(crate) needs: Vec<String>,
}

/// The form on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    mark: Version,
    facts: Vec<KeptFact>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptFact {
    topic: String,
    version: Version,
    body: String,
    #[serde(default)]
    needs: Vec<String>,
    /// The last form that could be used, where this one cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_usable: Option<KeptForm>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptForm {
    body: String,
    #[serde(default)]
    needs: Vec<String>,
}

impl Facts {
    /// Reads what stands on disk.
    pub(crate) fn open(data_dir: &Path, features: Features) -> Result<Self, AgentError> {
        let path = data_dir.join("facts.json");
        let kept: Kept = disk::read(&path)?.unwrap_or_default();
        let mut inner = Inner {
            mark: kept.mark,
            features,
            ..Inner::default()
        };
        for fact in kept.facts {
            let Ok(topic) = fact.topic.parse::<Topic>() else {
                continue;
            };
            if let Some(last) = fact.last_usable {
                let version = fact.version.clone();
                inner.put(topic.clone(), version, last.body.into_bytes(), last.needs);
            }
            inner.put(topic, fact.version, fact.body.into_bytes(), fact.needs);
        }
        Ok(Self {
            path,
            persisted: watch::Sender::new(inner.changes),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
        })
    }

    /// Nothing, and nowhere to keep it.
    pub(crate) fn in_memory() -> Self {
        Self {
            path: PathBuf::new(),
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            persisted: watch::Sender::new(0),
        }
    }

    /// What this agent understands, as it says it to servers and proxies.
    pub(crate) fn features(&self) -> Vec<String> {
        self.inner().features.names()
    }

    /// Word of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a fact from a server.
    pub(crate) fn put(&self, fact: pb::Fact) -> Put {
        let Ok(topic) = fact.topic.parse::<Topic>() else {
            tracing::warn!(topic = %fact.topic, "a server sent a fact of a topic that is not known here");
            return Put::Unknown;
        };
        let version = Version::from(fact.version.unwrap_or_default());
        let mut inner = self.inner();
        let held = inner.held.get(&topic);
        // A follower that lags may know less than we do already.
        if let Some(held) = held
            && held.version.epoch == version.epoch
            && held.version.index > version.index
        {
            tracing::info!(%topic, %version, held = %held.version, "an older fact is left alone");
            return Put::Older;
        }
        if fact.unchanged {
            return match inner.held.get_mut(&topic) {
                Some(held) if fact.checksum.is_empty() || fact.checksum == held.checksum => {
                    held.version = version;
                    inner.changes += 1;
                    drop(inner);
                    self.touch();
                    Put::Taken
                }
                _ => Put::AskAgain(topic),
            };
        }
        if !fact.checksum.is_empty() && fact.checksum != checksum(&fact.body) {
            tracing::warn!(%topic, "a fact's checksum does not fit its body; asking again");
            return Put::AskAgain(topic);
        }
        inner.put(topic, version, fact.body, fact.needs);
        drop(inner);
        self.touch();
        Put::Taken
    }

    /// Everything held is as of this version.
    pub(crate) fn set_mark(&self, version: Version) {
        let mut inner = self.inner();
        if inner.mark == version || inner.mark.covers(&version) {
            return;
        }
        inner.mark = version;
        inner.changes += 1;
        drop(inner);
        self.touch();
    }

    /// The version of the last mark; an empty epoch when there was none.
    pub(crate) fn mark(&self) -> Version {
        self.inner().mark.clone()
    }

    /// What is held of a topic, for a subscription. Of another epoch than `epoch` nothing is:
    /// indexes do not compare, so everything is sent again.
    pub(crate) fn held(&self, topic: &Topic, epoch: &str) -> pb::Held {
        let inner = self.inner();
        let held = inner.held.get(topic);
        let held = held.filter(|held| held.version.epoch == epoch);
        pb::Held {
            topic: topic.to_string(),
            version: held.map(|held| held.version.clone().into()),
            checksum: held.map(|held| held.checksum.clone()).unwrap_or_default(),
        }
    }

    /// The newest body of a topic, as it came, whether it can be used here or not.
    pub(crate) fn body(&self, topic: &Topic) -> Option<Vec<u8>> {
        self.inner().held.get(topic).map(|held| held.body.clone())
    }

    /// Topics of which something else is held than a server has at that version.
    pub(crate) fn differing(&self, sums: &pb::Checksums) -> Vec<Topic> {
        let version = Version::from(sums.version.clone().unwrap_or_default());
        let inner = self.inner();
        let topics = sums.topics.iter().filter_map(|sum| {
            let topic: Topic = sum.topic.parse().ok()?;
            let held = inner.held.get(&topic)?;
            // What came after the sums were made is another matter.
            let newer = held.version.epoch == version.epoch && held.version.index > version.index;
            (!newer && held.checksum != sum.checksum).then_some(topic)
        });
        topics.collect()
    }

    /// Every topic of which something is held.
    pub(crate) fn topics(&self) -> impl Iterator<Item = Topic> {
        let topics: Vec<Topic> = self.inner().held.keys().cloned().collect();
        topics.into_iter()
    }

    /// Forgets what nobody hangs on any more.
    pub(crate) fn retain(&self, wanted: &BTreeSet<Topic>) {
        let mut inner = self.inner();
        let gone: Vec<Topic> = inner
            .held
            .keys()
            .filter(|topic| !wanted.contains(topic))
            .cloned()
            .collect();
        for topic in &gone {
            inner.held.remove(topic);
            inner.store.forget(topic);
            inner.changes += 1;
        }
        drop(inner);
        if !gone.is_empty() {
            self.touch();
        }
    }

    /// The count at which each topic's body came; a change of one is a change of its body.
    pub(crate) fn revisions(&self, topics: &BTreeSet<Topic>) -> BTreeMap<Topic, u64> {
        self.inner().revisions(topics)
    }

    /// How many changes there have been. What was read before is among them.
    pub(crate) fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// How many of them are on disk.
    pub(crate) fn persisted(&self) -> watch::Receiver<u64> {
        self.persisted.subscribe()
    }

    /// Reads from the facts, and says what of: of those topics that turn out to matter, as they are
    /// in the same moment.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&FactStore) -> T,
        topics: impl FnOnce(&T) -> &BTreeSet<Topic>,
    ) -> (MadeOf, T) {
        let inner = self.inner();
        let made = read(&inner.store);
        let topics = topics(&made);
        let made_of = MadeOf {
            revisions: inner.revisions(topics),
            needs: inner.needs(topics),
        };
        (made_of, made)
    }

    /// Reads from the facts.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&FactStore) -> T) -> T {
        read(&self.inner().store)
    }

    /// Writes the facts to disk as they change, and once more at the end. What cannot be written
    /// is tried again until it can.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut changed = self.watch();
        if *self.persisted.borrow() != self.changes() {
            changed.mark_changed(); // what came before we listened
        }
        let mut delay = WRITE_DELAY;
        let mut retry = None;
        loop {
            let news = async {
                match retry {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => drop(changed.changed().await),
                }
            };
            let stopped = tokio::select! {
                () = news => false,
                () = stop.cancelled() => true,
            };
            if !stopped {
                let delay = tokio::time::sleep(delay);
                tokio::select! { () = delay => {}, () = stop.cancelled() => {} }
                changed.mark_unchanged();
            }
            let begin = Instant::now();
            let facts = self.clone();
            let written = tokio::task::spawn_blocking(move || facts.write()).await;
            delay = begin.elapsed().clamp(WRITE_DELAY, LONGEST_DELAY);
            retry = match written {
                Ok(Ok(changes)) => {
                    self.persisted.send_replace(changes);
                    None
                }
                Ok(Err(error)) => {
                    tracing::error!(
                        file = %self.path.display(), %error,
                        "facts cannot be kept, so nothing new is acknowledged; trying again"
                    );
                    Some(retry.map_or(RETRY, |last| (last * 2).min(LONGEST_RETRY)))
                }
                Err(_) => Some(LONGEST_RETRY),
            };
            if stopped {
                return;
            }
        }
    }

    /// Says how many changes are on disk by that.
    fn write(&self) -> std::io::Result<u64> {
        let inner = self.inner();
        let changes = inner.changes;
        let kept = Kept {
            mark: inner.mark.clone(),
            facts: inner.held.iter().filter_map(KeptFact::of).collect(),
        };
        drop(inner);
        disk::write(&self.path, &serde_json::to_vec(&kept)?)?;
        Ok(changes)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change under the lock is whole, so a poisoned one is as good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptFact {
    /// JSON is UTF-8. Of what is not, the last form that could be used is kept, under no version:
    /// so it is asked for again.
    fn of((topic, held): (&Topic, &Held)) -> Option<Self> {
        let form = |body: &[u8], needs: &[String]| {
            Some(KeptForm {
                body: String::from_utf8(body.to_vec()).ok()?,
                needs: needs.to_vec(),
            })
        };
        let last = held.last_usable.as_ref();
        let last = last.and_then(|last| form(&last.body, &last.needs));
        let (newest, version, last) = match form(&held.body, &held.needs) {
            Some(newest) => (newest, held.version.clone(), last),
            None => (last?, Version::default(), None),
        };
        Some(Self {
            topic: topic.to_string(),
            version,
            body: newest.body,
            needs: newest.needs,
            last_usable: last,
        })
    }
}

impl Inner {
    fn revisions(&self, topics: &BTreeSet<Topic>) -> BTreeMap<Topic, u64> {
        let known = topics
            .iter()
            .filter_map(|topic| Some((topic.clone(), self.held.get(topic)?.revision)));
        known.collect()
    }

    /// What the bodies that are used need; not one that was left aside. Intentions are passed on
    /// unread, so theirs always count.
    fn needs(&self, topics: &BTreeSet<Topic>) -> Vec<String> {
        let mut needs: BTreeSet<&String> = BTreeSet::new();
        for (topic, held) in topics.iter().filter_map(|it| self.held.get_key_value(it)) {
            let last = held.last_usable.as_ref();
            match held.usable || matches!(topic, Topic::Intentions(_) | Topic::Revocations) {
                true => needs.extend(&held.needs),
                false => needs.extend(last.iter().flat_map(|last| &last.needs)),
            }
        }
        needs.into_iter().cloned().collect()
    }

    fn put(&mut self, topic: Topic, version: Version, body: Vec<u8>, needs: Vec<String>) {
        let checksum = checksum(&body);
        self.changes += 1;
        if let Some(held) = self.held.get_mut(&topic)
            && held.checksum == checksum
            && held.needs == needs
        {
            held.version = version;
            return;
        }
        // Intentions pass through unread: what a proxy does not understand of them, it denies.
        let missing = match topic {
            Topic::Intentions(_) | Topic::Revocations => Vec::new(),
            _ => self.features.missing(needs.iter().map(String::as_str)),
        };
        let usable = if missing.is_empty() {
            let taken = self.store.put(&topic, &body);
            taken
                .inspect_err(|error| tracing::error!(%error, "a fact cannot be read"))
                .is_ok()
        } else {
            let reason = format!(
                "needs {}, which this agent does not have",
                missing.join(", ")
            );
            tracing::error!(%topic, reason, "a fact is not taken; what was known stays");
            self.store.refuse(&topic, reason);
            false
        };
        self.revision += 1;
        let before = self.held.remove(&topic).filter(|_| !usable);
        let held = Held {
            version,
            body,
            checksum,
            needs,
            usable,
            last_usable: before.and_then(Held::used),
            revision: self.revision,
        };
        self.held.insert(topic, held);
    }
}

fn checksum(body: &[u8]) -> Vec<u8> {
    Sha256::digest(body).to_vec()
}

#[cfg(test)]
mod tests;

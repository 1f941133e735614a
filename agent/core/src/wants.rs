//! What the transparent proxies of this node were asked for by their applications.
//!
//! It is in memory only: a proxy says the whole of it again on each stream. It outlives the stream
//! a little, so that a proxy which comes again finds what it calls still wired.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::{Key, VirtualAddress};
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::want::What;
use mesh_wiring::Wants;
use tokio::sync::watch;
use tokio::time::Instant;

/// What one proxy may want at once.
pub(crate) const MAX_WANTS: usize = 512;
/// What all proxies of the node may want at once. Each stands for up to four topics, of the 8192
/// that servers tell one node, and declared upstreams need some too.
const MAX_NODE_WANTS: usize = 1024;
/// So long they are kept after the stream ended.
const LINGER: Duration = Duration::from_secs(60);

/// Why a proxy's wants are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WantsError {
    #[error("{0} wants came, and one sidecar may have {MAX_WANTS} at once")]
    TooMany(usize),
    #[error("a want is neither NAMESPACE/NAME nor a virtual address: `{0}`")]
    NotOne(String),
    #[error(
        "the transparent sidecars of this node want more than {MAX_NODE_WANTS} services together; \
         move some of their instances elsewhere"
    )]
    Node,
}

/// Reads a proxy's wants: all or none.
pub(crate) fn read(wants: &pb::Wants) -> Result<Wants, WantsError> {
    if wants.wants.len() > MAX_WANTS {
        return Err(WantsError::TooMany(wants.wants.len()));
    }
    let mut read = Wants::default();
    for want in &wants.wants {
        let short = |text: &str| WantsError::NotOne(text.chars().take(160).collect());
        match &want.what {
            Some(What::Service(text)) => {
                let key = text.split_once('/').map(|(ns, name)| Key::new(ns, name));
                let key = key.filter(|key| key.check().is_ok());
                read.services.insert(key.ok_or_else(|| short(text))?);
            }
            Some(What::Address(text)) => {
                let address: Result<VirtualAddress, _> = text.parse();
                read.addresses.insert(address.map_err(|_| short(text))?);
            }
            // A newer proxy's; what it cannot have it does not get.
            None => {}
        }
    }
    Ok(read)
}

/// The wants of each proxy.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    all: Mutex<HashMap<String, Held>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    /// The stream that said it; counts up.
    stream: u64,
    wants: Arc<Wants>,
    /// When that stream ended.
    ended: Option<Instant>,
}

impl Asked {
    /// Takes what a proxy wants now, in place of what it wanted.
    pub(crate) fn set(&self, proxy: &str, stream: u64, wants: Wants) -> Result<(), WantsError> {
        let mut all = self.all();
        if all.get(proxy).is_some_and(|it| it.stream > stream) {
            return Ok(());
        }
        let others = all.iter().filter(|(id, _)| *id != proxy);
        let others: usize = others.map(|(_, it)| it.wants.len()).sum();
        if others + wants.len() > MAX_NODE_WANTS {
            return Err(WantsError::Node);
        }
        let held = Held {
            stream,
            wants: Arc::new(wants),
            ended: None,
        };
        let before = all.insert(proxy.to_owned(), held);
        let same = match (&before, all.get(proxy)) {
            (Some(before), Some(now)) => before.wants == now.wants,
            _ => false,
        };
        drop(all);
        if !same {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// A proxy's stream ended; what it wanted is forgotten in a while.
    pub(crate) fn ended(&self, proxy: &str, stream: u64) {
        let mut all = self.all();
        let held = all.get_mut(proxy).filter(|it| it.stream == stream);
        let Some(held) = held else { return };
        held.ended = Some(Instant::now());
        drop(all);
        // Whoever forgets it must know when.
        self.changed.send_modify(|count| *count += 1);
    }

    /// What a proxy wants.
    pub(crate) fn of(&self, proxy: &str) -> Arc<Wants> {
        let all = self.all();
        all.get(proxy)
            .map(|it| it.wants.clone())
            .unwrap_or_default()
    }

    /// Whether a proxy has said what it wants, and it is not forgotten.
    pub(crate) fn has(&self, proxy: &str) -> bool {
        self.all().contains_key(proxy)
    }

    /// Word of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Forgets what is over; when the next will be.
    pub(crate) fn forget(&self, now: Instant) -> Option<Instant> {
        let mut all = self.all();
        all.retain(|_, held| held.ended.is_none_or(|at| now < at + LINGER));
        all.values()
            .filter_map(|it| it.ended)
            .min()
            .map(|at| at + LINGER)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(wants: impl IntoIterator<Item = What>) -> pb::Wants {
        let wants = wants.into_iter().map(|what| pb::Want { what: Some(what) });
        pb::Wants {
            wants: wants.collect(),
        }
    }

    fn services(count: usize) -> Wants {
        let names = (0..count).map(|n| What::Service(format!("default/s{n}")));
        read(&said(names)).unwrap()
    }

    #[test]
    fn wants_are_read_all_or_none() {
        let read_all = read(&said([
            What::Service("default/api".into()),
            What::Address("240.0.0.7".into()),
            What::Address("fd6d:6573:6876::f000:7".into()),
        ]));
        let wants = read_all.unwrap();
        assert_eq!((wants.services.len(), wants.addresses.len()), (1, 1));
        assert_eq!(
            read(&pb::Wants {
                wants: vec![pb::Want { what: None }]
            }),
            Ok(Wants::default())
        );
        for wrong in [
            What::Service("api".into()),
            What::Service("default/*".into()),
            What::Service("a/b/c".into()),
            What::Service(format!("default/{}", "x".repeat(64))),
            What::Service("default/..".into()),
            What::Address("10.0.0.1".into()),
            What::Address(String::new()),
        ] {
            let both = said([What::Service("default/api".into()), wrong.clone()]);
            assert!(
                matches!(read(&both), Err(WantsError::NotOne(_))),
                "{wrong:?}"
            );
        }
        assert_eq!(services(MAX_WANTS).len(), MAX_WANTS);
        let many = (0..=MAX_WANTS).map(|n| What::Service(format!("default/s{n}")));
        assert_eq!(read(&said(many)), Err(WantsError::TooMany(MAX_WANTS + 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn wants_outlive_their_stream_a_little() {
        let asked = Asked::default();
        asked.set("web", 1, services(1)).unwrap();
        assert_eq!(asked.forget(Instant::now()), None);
        asked.ended("web", 1);
        let at = asked.forget(Instant::now()).unwrap();
        assert_eq!(asked.of("web").len(), 1);
        // It comes again; an end that is told late changes nothing.
        asked.set("web", 2, services(2)).unwrap();
        asked.ended("web", 1);
        assert_eq!(asked.forget(at), None);
        // Nor does the older stream's last word.
        asked.set("web", 1, services(1)).unwrap();
        assert_eq!(asked.of("web").len(), 2);
        asked.ended("web", 2);
        let at = asked.forget(Instant::now()).unwrap();
        asked.forget(at);
        assert!(!asked.has("web"));
    }

    #[test]
    fn one_nodes_proxies_share_what_there_is() {
        let asked = Asked::default();
        asked.set("a", 1, services(512)).unwrap();
        asked.set("b", 2, services(512)).unwrap();
        assert_eq!(asked.set("c", 3, services(1)), Err(WantsError::Node));
        // In place of its own it may.
        asked.set("a", 1, services(511)).unwrap();
        asked.set("c", 3, services(1)).unwrap();
    }
}

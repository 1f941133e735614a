//! The keys of this node's proxies, remembered on disk.
//!
//! A proxy that once proved itself proves itself again with its key, also to an agent that was
//! restarted. Two are remembered: a proxy that changes its key goes on with the old one until its
//! first leaf for the new one has come.
//!
//! What is remembered is of a proxy *and* of who registered its instance: an id that another owner
//! registers anew is another proxy. Changes go one after the other, memory and file together, so
//! that what one stream writes cannot bring back what another has replaced meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::tickets::same;
use crate::catalog::{Owner, View};
use crate::{AgentError, disk};

/// Keys of one proxy.
const MAX_KEYS: usize = 2;

/// The remembered keys.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    /// Held over a whole change, the disk's part too; readers do not wait for it.
    changing: Mutex<()>,
    known: Mutex<HashMap<String, Known>>,
}

/// One proxy's.
#[derive(Clone, Debug)]
struct Known {
    owner: Owner,
    /// The newest last.
    keys: Vec<Vec<u8>>,
    /// Those of them whose leaf was revoked: no proof, and gone with the next key.
    barred: Vec<Vec<u8>>,
}

impl Known {
    fn has(&self, key: &[u8]) -> bool {
        self.keys.iter().any(|known| same(known, key))
    }
}

/// The form on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    proxy: String,
    owner: Owner,
    /// DER SubjectPublicKeyInfo, base64; the newest last.
    keys: Vec<String>,
    /// Those of them that are no proof any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    barred: Vec<String>,
}

impl Keys {
    /// Reads what stands on disk.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, AgentError> {
        let folder = data_dir.join("proxies");
        disk::make_folder(&folder)?;
        let kept = disk::read_all::<Kept>(&folder)?;
        let known = kept.into_iter().map(|kept| {
            let read = |keys: &[String]| {
                let keys = keys.iter().filter_map(|key| STANDARD.decode(key).ok());
                keys.collect()
            };
            let known = Known {
                owner: kept.owner,
                keys: read(&kept.keys),
                barred: read(&kept.barred),
            };
            (kept.proxy, known)
        });
        Ok(Self {
            changing: Mutex::default(),
            known: Mutex::new(known.collect()),
            folder,
        })
    }

    /// None, and nowhere to keep them.
    pub(super) fn in_memory() -> Self {
        Self {
            folder: PathBuf::new(),
            changing: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Whether any key of a proxy is remembered.
    pub(crate) fn has(&self, proxy: &str) -> bool {
        self.known().contains_key(proxy)
    }

    /// Whether this is a remembered key of this proxy that is no proof any more.
    pub(crate) fn is_barred(&self, proxy: &str, key: &[u8]) -> bool {
        let known = self.known();
        let barred = known.get(proxy).map(|known| known.barred.as_slice());
        barred.is_some_and(|barred| barred.iter().any(|one| same(one, key)))
    }

    /// Remembers of each key for which `is_revoked` holds that it is no proof any more. Blocks on
    /// the disk.
    pub(crate) fn bar(&self, is_revoked: impl Fn(&[u8]) -> bool) -> std::io::Result<()> {
        let _changing = self.changing();
        let known = self.known().clone();
        for (proxy, mut known) in known {
            let barred = known.keys.iter().filter(|key| is_revoked(key));
            let mut barred: Vec<Vec<u8>> = barred.cloned().collect();
            barred.retain(|key| !known.barred.contains(key));
            if !barred.is_empty() {
                known.barred.append(&mut barred);
                self.store(&proxy, known)?;
            }
        }
        Ok(())
    }

    /// Whether this is a key of this proxy of this owner's.
    pub(crate) fn is_known(&self, proxy: &str, owner: &Owner, key: &[u8]) -> bool {
        let known = self.known();
        known.get(proxy).is_some_and(|known| {
            known.owner.may_be_replaced_by(owner)
                && known.has(key)
                && !known.barred.iter().any(|one| same(one, key))
        })
    }

    /// The proxy has this key and no other. Blocks on the disk.
    pub(crate) fn replace(&self, proxy: &str, owner: &Owner, key: &[u8]) -> std::io::Result<()> {
        let known = Known {
            owner: owner.clone(),
            keys: vec![key.to_vec()],
            barred: Vec::new(),
        };
        let _changing = self.changing();
        self.store(proxy, known)
    }

    /// The proxy that proved itself by one key has this one too; whether it is so. It is not where
    /// the key that it proved is no longer known: another stream has taken the proxy over, or it
    /// is gone. Blocks on the disk.
    pub(crate) fn add(&self, proxy: &str, proved: &[u8], key: &[u8]) -> std::io::Result<bool> {
        let _changing = self.changing();
        let known = self.known().get(proxy).cloned();
        let Some(mut known) = known.filter(|it| it.has(proved)) else {
            return Ok(false);
        };
        if known.keys.last().is_some_and(|last| last == key) {
            return Ok(true);
        }
        // With another key those that are barred have had their day.
        let barred = std::mem::take(&mut known.barred);
        known
            .keys
            .retain(|known| known != key && !barred.contains(known));
        known.keys.push(key.to_vec());
        if known.keys.len() > MAX_KEYS {
            known.keys.remove(0);
        }
        self.store(proxy, known)?;
        Ok(true)
    }

    /// Forgets the proxies that are no longer registered, by what `view` says then: one that came
    /// since is kept. Blocks on the disk.
    pub(crate) fn retain(&self, view: impl FnOnce() -> View) {
        let _changing = self.changing();
        let view = view();
        let known: Vec<String> = self.known().keys().cloned().collect();
        for proxy in known.iter().filter(|proxy| view.sidecar(proxy).is_none()) {
            let path = self.folder.join(disk::file_name(proxy));
            match disk::remove(&path) {
                Ok(()) => drop(self.known().remove(proxy)),
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "a proxy's key cannot be removed");
                }
            }
        }
    }

    /// The caller holds `changing`.
    fn store(&self, proxy: &str, known: Known) -> std::io::Result<()> {
        let kept = Kept {
            proxy: proxy.to_owned(),
            owner: known.owner.clone(),
            keys: known.keys.iter().map(|key| STANDARD.encode(key)).collect(),
            barred: known
                .barred
                .iter()
                .map(|key| STANDARD.encode(key))
                .collect(),
        };
        let path = self.folder.join(disk::file_name(proxy));
        disk::write(&path, &serde_json::to_vec(&kept)?)?;
        self.known().insert(proxy.to_owned(), known);
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ROOT: Owner = Owner::Uid(0);

    #[test]
    fn keys_are_there_after_a_restart_and_at_most_two() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        keys.replace("a", &ROOT, b"1").unwrap();
        for _ in 0..2 {
            assert!(keys.add("a", b"1", b"2").unwrap());
        }
        let knows = |keys: &Keys, key: &[u8]| keys.is_known("a", &ROOT, key);
        assert!(knows(&keys, b"1") && knows(&keys, b"2"));
        assert!(keys.add("a", b"2", b"3").unwrap());
        let keys = Keys::open(folder.path()).unwrap();
        assert!(!knows(&keys, b"1") && knows(&keys, b"2") && knows(&keys, b"3"));
        assert!(!keys.is_known("b", &ROOT, b"3") && !keys.has("b"));
        keys.replace("a", &ROOT, b"4").unwrap();
        assert!(!knows(&keys, b"3"));
        keys.retain(View::default);
        assert!(!Keys::open(folder.path()).unwrap().has("a"));
    }

    #[test]
    fn a_stream_that_was_replaced_adds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        keys.replace("a", &ROOT, b"old").unwrap();
        // A new ticket came; then the old stream's leaf for its next key.
        keys.replace("a", &ROOT, b"new").unwrap();
        assert!(!keys.add("a", b"old", b"next").unwrap());
        for keys in [&keys, &Keys::open(folder.path()).unwrap()] {
            assert!(keys.is_known("a", &ROOT, b"new"));
            assert!(!keys.is_known("a", &ROOT, b"old") && !keys.is_known("a", &ROOT, b"next"));
        }
        keys.retain(View::default);
        assert!(!keys.add("a", b"new", b"next").unwrap(), "it is gone");
        assert!(!Keys::open(folder.path()).unwrap().has("a"));
    }

    #[test]
    fn another_owners_proxy_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        keys.replace("a", &ROOT, b"1").unwrap();
        assert!(!keys.is_known("a", &Owner::Uid(7), b"1"));
        let (one, other) = (Owner::File("a.hcl".into()), Owner::File("b.hcl".into()));
        keys.replace("a", &one, b"1").unwrap();
        assert!(keys.is_known("a", &other, b"1"), "moved to another file");
    }
}

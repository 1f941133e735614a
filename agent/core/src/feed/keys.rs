//! The keys of this node's proxies, remembered on disk.
//!
//! A proxy that once proved itself proves itself again with its key, also to an agent that was
//! restarted. Two are remembered: a proxy that changes its key goes on with the old one until its
//! first leaf for the new one has come.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::tickets::same;
use crate::catalog::View;
use crate::{AgentError, disk};

/// Keys of one proxy.
const MAX_KEYS: usize = 2;

/// The remembered keys.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    known: Mutex<HashMap<String, Vec<Vec<u8>>>>,
}

/// The form on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    proxy: String,
    /// DER SubjectPublicKeyInfo, base64; the newest last.
    keys: Vec<String>,
}

impl Keys {
    /// Reads what stands on disk.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, AgentError> {
        let folder = data_dir.join("proxies");
        disk::make_folder(&folder)?;
        let kept = disk::read_all::<Kept>(&folder)?;
        let known = kept.into_iter().map(|kept| {
            let keys = kept.keys.iter().filter_map(|key| STANDARD.decode(key).ok());
            (kept.proxy, keys.collect())
        });
        Ok(Self {
            known: Mutex::new(known.collect()),
            folder,
        })
    }

    /// None, and nowhere to keep them.
    pub(super) fn in_memory() -> Self {
        Self {
            folder: PathBuf::new(),
            known: Mutex::default(),
        }
    }

    /// Whether any key of a proxy is remembered.
    pub(crate) fn has(&self, proxy: &str) -> bool {
        self.known().contains_key(proxy)
    }

    /// Whether this is a key of this proxy.
    pub(crate) fn is_known(&self, proxy: &str, key: &[u8]) -> bool {
        let known = self.known();
        let keys = known.get(proxy);
        keys.is_some_and(|keys| keys.iter().any(|known| same(known, key)))
    }

    /// The proxy has this key and no other. Blocks on the disk.
    pub(crate) fn replace(&self, proxy: &str, key: &[u8]) -> std::io::Result<()> {
        self.store(proxy, vec![key.to_vec()])
    }

    /// The proxy has this key too. Blocks on the disk.
    pub(crate) fn add(&self, proxy: &str, key: &[u8]) -> std::io::Result<()> {
        let mut keys = self.known().get(proxy).cloned().unwrap_or_default();
        if keys.last().is_some_and(|last| last == key) {
            return Ok(());
        }
        keys.retain(|known| known != key);
        keys.push(key.to_vec());
        if keys.len() > MAX_KEYS {
            keys.remove(0);
        }
        self.store(proxy, keys)
    }

    /// Forgets the proxies that are no longer registered. Blocks on the disk.
    pub(crate) fn retain(&self, view: &View) {
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

    fn store(&self, proxy: &str, keys: Vec<Vec<u8>>) -> std::io::Result<()> {
        let kept = Kept {
            proxy: proxy.to_owned(),
            keys: keys.iter().map(|key| STANDARD.encode(key)).collect(),
        };
        let path = self.folder.join(disk::file_name(proxy));
        disk::write(&path, &serde_json::to_vec(&kept)?)?;
        self.known().insert(proxy.to_owned(), keys);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<Vec<u8>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_there_after_a_restart_and_at_most_two() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        keys.replace("a", b"1").unwrap();
        keys.add("a", b"2").unwrap();
        keys.add("a", b"2").unwrap();
        assert!(keys.is_known("a", b"1") && keys.is_known("a", b"2"));
        keys.add("a", b"3").unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        assert!(!keys.is_known("a", b"1") && keys.is_known("a", b"2") && keys.is_known("a", b"3"));
        assert!(!keys.is_known("b", b"3") && !keys.has("b"));
        keys.replace("a", b"4").unwrap();
        assert!(!keys.is_known("a", b"3"));
        keys.retain(&View::default());
        assert!(!Keys::open(folder.path()).unwrap().has("a"));
    }
}

//! The agent's files: whole or not there at all.
//!
//! A file is written beside its place, synced, renamed, and the folder synced, so that a crash
//! leaves the old one or the new one. One that cannot be read (a disk's fault, a hand's edit) is
//! set aside under `.damaged` and said in the log: the rest of the state still serves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::AgentError;

/// The largest file of ours that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Makes a folder that only we may enter.
pub(crate) fn make_folder(path: &Path) -> Result<(), AgentError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AgentError::disk(path))
}

/// Held as long as the agent lives: two on the same data would undo each other's work.
pub(crate) fn lock(folder: &Path) -> Result<Flock<File>, AgentError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(AgentError::disk(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| AgentError::Locked(folder.to_owned()))
}

/// Writes a file, whole or not at all. Blocks.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Removes a file for good; one that is not there is as good.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a file of ours; `None` when it is not there, or is damaged and now set aside.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AgentError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AgentError::disk(path)(error)),
        Ok(found) if found.len() > MAX_FILE => {
            set_aside(path, "it is too large");
            return Ok(None);
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(AgentError::disk(path))?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            set_aside(path, &error.to_string());
            Ok(None)
        }
    }
}

/// Reads every `.json` of a folder.
pub(crate) fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, AgentError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(AgentError::disk(folder))? {
        let path = entry.map_err(AgentError::disk(folder))?.path();
        if path.extension().is_some_and(|ext| ext == "json") {
            all.extend(read(&path)?);
        }
    }
    Ok(all)
}

/// The name of the file of an id: legible, and never the same for two ids.
pub(crate) fn file_name(id: &str) -> String {
    let shown: String = id
        .chars()
        .map(
            |c| match c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                true => c,
                false => '_',
            },
        )
        .take(80)
        .collect();
    let digest = Sha256::digest(id.as_bytes());
    let digits: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{shown}-{digits}.json")
}

fn set_aside(path: &Path, reason: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let moved = fs::rename(path, &aside);
    tracing::error!(
        file = %path.display(), reason, moved = moved.is_ok(),
        "a file of the agent's own data cannot be read; it is set aside as .damaged"
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn writes_whole_files_and_sets_damaged_ones_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"[1,2]").unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2]));
        write(&path, b"[1,").unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        assert!(folder.path().join("a.json.damaged").exists());
        assert_eq!(read_all::<Vec<u8>>(folder.path()).unwrap().len(), 0);
        remove(&path).unwrap();
    }

    #[test]
    fn names_differ() {
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert!(file_name(&"x".repeat(400)).len() < 110);
        assert!(!file_name("../../etc/passwd").contains('/'));
    }

    #[test]
    fn one_agent_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(AgentError::Locked(_))));
        drop(held);
        lock(folder.path()).unwrap();
    }
}

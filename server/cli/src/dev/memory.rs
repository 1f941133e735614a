//! A folder that lives in memory and goes with the process.
//!
//! Server and agent keep their state in files. Without `-data-dir` these stand
//! on a tmpfs, so that nothing reaches a disk, the sealing key neither; where
//! there is no tmpfs with room, in the folder for temporary files. What a
//! process left that was killed is removed by the next one: each holds a lock
//! on a file in its folder, which the kernel lets go of with the process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

/// How the folders' names begin.
const PREFIX: &str = "meshctl-dev-";

/// The file that its process holds locked.
const LOCK: &str = "lock";

/// Less free than this, in bytes, and a tmpfs is not used: a container may have
/// a small one.
const ROOM: u64 = 128 << 20;

/// A folder for the state of one process.
#[derive(Debug)]
pub(crate) struct Memory {
    folder: TempDir,
    /// Whether it is in memory: otherwise it is in the folder for temporary files.
    pub(crate) resident: bool,
    _lock: File,
}

impl Memory {
    /// Makes one, and removes those whose processes are gone.
    pub(crate) fn make() -> io::Result<Self> {
        let shared = tmpfs();
        let parent = shared.clone().unwrap_or_else(std::env::temp_dir);
        Self::make_in(&parent, shared.is_some())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", parent.display())))
    }

    fn make_in(parent: &Path, resident: bool) -> io::Result<Self> {
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has its name: one that has it and is not locked is left over.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create_new(&unnamed)?;
        lock.try_lock()?;
        std::fs::rename(&unnamed, folder.path().join(LOCK))?;
        Ok(Self {
            folder,
            resident,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A tmpfs with room that this user may write to.
fn tmpfs() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    [Some(PathBuf::from("/dev/shm")), own]
        .into_iter()
        .flatten()
        .find(|path| roomy(path) && tempfile::tempfile_in(path).is_ok())
}

fn roomy(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| {
        let block = u64::try_from(found.block_size()).unwrap_or(0);
        found.filesystem_type() == TMPFS_MAGIC
            && found.blocks_available().saturating_mul(block) >= ROOM
    })
}

/// Removes what killed processes left. What cannot be removed (another user's)
/// stays.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let left = ours && File::open(entry.path().join(LOCK)).is_ok_and(|f| f.try_lock().is_ok());
        if left {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_goes_with_its_owner_and_leaves_others_alone() {
        let parent = tempfile::tempdir().unwrap();
        let first = Memory::make_in(parent.path(), false).unwrap();
        let second = Memory::make_in(parent.path(), false).unwrap();
        assert!(first.path().is_dir() && second.path().is_dir());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
        assert!(second.path().is_dir());
    }

    #[test]
    fn what_a_killed_one_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("meshctl-dev-left");
        let beginning = parent.path().join("meshctl-dev-beginning");
        let foreign = parent.path().join("other");
        for folder in [&left, &beginning, &foreign] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(left.join(LOCK), "").unwrap();
        std::fs::write(foreign.join(LOCK), "").unwrap();
        let _new = Memory::make_in(parent.path(), false).unwrap();
        assert!(!left.exists());
        assert!(beginning.exists() && foreign.exists());
    }
}

//! The folder of snapshots: which one is the newest, and how another takes its place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{self, Body, Header, verify};
use super::{SnapshotHandle, SnapshotInfo};
use crate::error::SnapshotError;
use crate::folder::{make_dir, sync_dir};
use crate::machine::SnapshotSource;

const SUFFIX: &str = "snap";

/// A snapshot that was verified, and its body.
pub(crate) type Newest = (PathBuf, Header, Body);

/// The steps by which a snapshot takes another's place, in the order in which a power
/// loss between any two leaves one of them. A test loses power.
pub(crate) trait Steps: std::fmt::Debug + Send + Sync {
    /// What is in a file is durable.
    fn sync_file(&self, file: &Path) -> io::Result<()>;
    /// A file has another name, and what had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The names in a folder are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A file is gone.
    fn remove(&self, file: &Path) -> io::Result<()>;
}

#[derive(Debug)]
struct Disk;

impl Steps for Disk {
    fn sync_file(&self, file: &Path) -> io::Result<()> {
        File::open(file)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }
}

/// The snapshots of one node.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    steps: Box<dyn Steps>,
    current: Mutex<Option<Current>>,
    temps: AtomicU64,
}

#[derive(Debug, Clone)]
struct Current {
    path: PathBuf,
    header: Header,
    bytes: u64,
    body_bytes: u64,
}

impl SnapshotStore {
    /// Opens the folder, clears away what was never finished, and reads the newest
    /// snapshot, if there is one.
    pub(crate) fn open(dir: PathBuf) -> Result<(Self, Option<Newest>), SnapshotError> {
        Self::open_with(dir, Box::new(Disk))
    }

    pub(crate) fn open_with(
        dir: PathBuf,
        steps: Box<dyn Steps>,
    ) -> Result<(Self, Option<Newest>), SnapshotError> {
        let err = |path: &Path, e: io::Error| SnapshotError::Io {
            file: path.to_owned(),
            reason: e.to_string(),
        };
        make_dir(&dir).map_err(|e| err(&dir, e))?;
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        for row in fs::read_dir(&dir).map_err(|e| err(&dir, e))? {
            let path = row.map_err(|e| err(&dir, e))?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("tmp") => fs::remove_file(&path).map_err(|e| err(&path, e))?,
                Some(SUFFIX) => found.extend(index_of(&path).map(|index| (index, path))),
                _ => {}
            }
        }
        found.sort();
        let newest = match found.pop() {
            None => None,
            Some((_, path)) => {
                let file = File::open(&path).map_err(|e| err(&path, e))?;
                let (header, body) = verify(&path, file)?;
                Some((path, header, body))
            }
        };
        let store = Self {
            dir,
            steps,
            current: Mutex::new(None),
            temps: AtomicU64::new(0),
        };
        if let Some((path, header, body)) = &newest {
            *store.current() = Some(Current {
                path: path.clone(),
                header: header.clone(),
                bytes: fs::metadata(path).map_or(0, |m| m.len()),
                body_bytes: body.bytes,
            });
        }
        // A crash came between the newest and the removal of those before it.
        for (_, old) in found {
            let _ = fs::remove_file(old);
        }
        Ok((store, newest))
    }

    pub(crate) fn info(&self) -> Option<SnapshotInfo> {
        let current = self.current();
        let c = current.as_ref()?;
        Some(file::info(&c.path, &c.header, c.bytes, c.body_bytes))
    }

    /// The newest snapshot, opened.
    pub(crate) fn open_current(&self) -> Result<Option<(Header, SnapshotHandle)>, SnapshotError> {
        let current = self.current();
        let Some(c) = current.as_ref() else {
            return Ok(None);
        };
        let file = File::open(&c.path).map_err(|e| io_error(&c.path, &e))?;
        Ok(Some((c.header.clone(), SnapshotHandle::new(&c.path, file))))
    }

    /// Writes a state out. It becomes the newest snapshot unless a newer one came
    /// meanwhile.
    pub(crate) fn build(
        &self,
        header: &Header,
        body: &dyn SnapshotSource,
    ) -> Result<(), SnapshotError> {
        let incoming = self.incoming()?;
        let file = incoming.open()?;
        file::write(&file, header, body).map_err(|e| io_error(&incoming.path, &e))?;
        // The log is cut on the strength of this file: so it is read back once.
        let (header, body) = verify(&incoming.path, file)?;
        self.publish(incoming, header, body.bytes)
    }

    /// A file that is not a snapshot yet.
    pub(crate) fn incoming(&self) -> Result<Incoming, SnapshotError> {
        let n = self.temps.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("incoming-{n}.tmp"));
        File::create(&path).map_err(|e| io_error(&path, &e))?;
        Ok(Incoming { path })
    }

    /// A copy of a file that lies elsewhere.
    pub(crate) fn copy_in(&self, from: &Path) -> Result<Incoming, SnapshotError> {
        let incoming = self.incoming()?;
        fs::copy(from, &incoming.path).map_err(|e| io_error(from, &e))?;
        Ok(incoming)
    }

    /// Makes a verified file the newest snapshot, and removes those before it.
    pub(crate) fn publish(
        &self,
        incoming: Incoming,
        header: Header,
        body_bytes: u64,
    ) -> Result<(), SnapshotError> {
        let synced = self.steps.sync_file(&incoming.path);
        synced.map_err(|e| io_error(&incoming.path, &e))?;
        let bytes = fs::metadata(&incoming.path).map_or(0, |m| m.len());
        let mut current = self.current();
        if current
            .as_ref()
            .is_some_and(|c| c.header.last > header.last)
        {
            return Ok(());
        }
        let path = self.dir.join(format!(
            "{:020}-{}.{SUFFIX}",
            header.last.map_or(0, |id| id.index),
            header.last.map_or(0, |id| id.leader_id.term),
        ));
        let renamed = self.steps.rename(&incoming.path, &path);
        renamed.map_err(|e| io_error(&path, &e))?;
        let synced = self.steps.sync_dir(&self.dir);
        synced.map_err(|e| io_error(&self.dir, &e))?;
        let old = current.replace(Current {
            path: path.clone(),
            header,
            bytes,
            body_bytes,
        });
        if let Some(old) = old.filter(|old| old.path != path) {
            // One that stays is removed at the next start.
            let _ = self.steps.remove(&old.path);
        }
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being written; it goes unless it is published.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
}

impl Incoming {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For reading and writing.
    pub(crate) fn open(&self) -> Result<File, SnapshotError> {
        let mut options = File::options();
        options.read(true).write(true);
        options
            .open(&self.path)
            .map_err(|e| io_error(&self.path, &e))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Once it is published there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

fn io_error(path: &Path, e: &io::Error) -> SnapshotError {
    SnapshotError::Io {
        file: path.to_owned(),
        reason: e.to_string(),
    }
}

fn index_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    stem.split('-').next()?.parse().ok()
}

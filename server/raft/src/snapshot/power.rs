#![allow(clippy::unwrap_used)]
//! A power loss at each step of a snapshot's publication.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::store::{SnapshotStore, Steps};
use super::tests::{header, picture};

/// A disk that stops after some steps, and knows what is on it then.
#[derive(Debug, Clone, Default)]
struct Failing(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Steps that are still taken; `None`: all.
    left: Option<usize>,
    /// What is durable of the files, by the names that they have now.
    contents: BTreeMap<PathBuf, Vec<u8>>,
    /// The names that are durable, each with what it is durable with.
    names: BTreeMap<PathBuf, Vec<u8>>,
    taken: Vec<&'static str>,
}

impl Failing {
    fn step(&self, what: &'static str) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let mut inner = self.0.lock().unwrap();
        match &mut inner.left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        inner.taken.push(what);
        Ok(inner)
    }

    /// The folders that there may be after the loss: names that were not synced may be there or
    /// not, and what was not synced is not in them.
    fn after(&self, live: &Path) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
        let inner = self.0.lock().unwrap();
        [inner.names.clone(), with(live, &inner.contents)]
    }
}

/// The names in a folder, each with what is durable of it.
fn with(dir: &Path, contents: &BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|row| row.unwrap().path());
    let found = paths.map(|path| {
        let bytes = contents.get(&path).cloned().unwrap_or_default();
        (path, bytes)
    });
    found.collect()
}

impl Steps for Failing {
    fn sync_file(&self, file: &Path) -> io::Result<()> {
        let mut inner = self.step("sync file")?;
        inner.contents.insert(file.to_owned(), fs::read(file)?);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.step("rename")?;
        fs::rename(from, to)?;
        inner.contents.remove(to);
        if let Some(bytes) = inner.contents.remove(from) {
            inner.contents.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.step("sync dir")?;
        inner.names = with(dir, &inner.contents);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut inner = self.step("remove")?;
        inner.contents.remove(file);
        fs::remove_file(file)
    }
}

#[test]
fn a_power_loss_at_any_step_leaves_the_old_or_the_new() {
    const STEPS: [&str; 4] = ["sync file", "rename", "sync dir", "remove"];
    for steps in 0..=STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Failing::default();
        let open = SnapshotStore::open_with(dir.path().to_owned(), Box::new(disk.clone()));
        let (store, _) = open.unwrap();
        store.build(&header(7), &picture()).unwrap();
        {
            let mut inner = disk.0.lock().unwrap();
            inner.taken.clear();
            inner.left = Some(steps);
        }
        let built = store.build(&header(9), &picture());
        assert_eq!(disk.0.lock().unwrap().taken, STEPS[..steps]);
        // What could not be removed is removed later.
        assert_eq!(built.is_ok(), steps >= 3, "{steps}");
        let known = store.open_current().unwrap().unwrap().0;
        assert_eq!(known, header(if built.is_ok() { 9 } else { 7 }));

        for (worst, files) in disk.after(dir.path()).into_iter().enumerate() {
            let after = tempfile::tempdir().unwrap();
            for (path, bytes) in files {
                let name = path.file_name().unwrap();
                fs::write(after.path().join(name), bytes).unwrap();
            }
            let (_, newest) = SnapshotStore::open(after.path().to_owned())
                .unwrap_or_else(|e| panic!("after {steps} steps, {worst}: {e}"));
            let (_, found, _) = newest.unwrap_or_else(|| panic!("after {steps} steps: none"));
            let new = found == header(9);
            assert!(new || found == header(7));
            assert!(new || steps < 3, "what was said to be there is not");
        }
    }
}

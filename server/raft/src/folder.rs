//! Folders that are there after a power loss too.
//!
//! A file's own sync does not keep the name of the folder that it lies in: the
//! folder above must be synced, for each level that was made.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes a folder and those above it, and their names durable. One that is there
/// is fine; an earlier run may have ended before its name was durable, so that is
/// seen to again where the folder above may be opened.
///
/// # Errors
/// Those of making a folder, or of syncing the one above it.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    make(dir, &mut sync_dir)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn make(dir: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if dir.is_dir() {
        let _ = sync(above(dir));
        return Ok(());
    }
    make_missing(dir, sync)
}

fn make_missing(dir: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let above = above(dir);
    if !above.is_dir() {
        make_missing(above, sync)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    sync(above)
}

/// The folder that holds a folder's name.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => dir,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn synced(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut synced = Vec::new();
        make(dir, &mut |dir| {
            synced.push(dir.to_owned());
            sync_dir(dir)
        })
        .unwrap();
        assert!(dir.is_dir());
        synced
    }

    #[test]
    fn each_level_that_is_made_is_synced_from_above() {
        let root = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "a/b", "a/b/c"].map(|name| root.path().join(name));
        assert_eq!(synced(&c), [root.path(), a.as_path(), b.as_path()]);
        // Made by a run that may have ended before its sync.
        assert_eq!(synced(&c), [b.as_path()]);
        fs::create_dir(root.path().join("d")).unwrap();
        assert_eq!(synced(&root.path().join("d")), [root.path()]);
        assert_eq!(synced(&b.join("e")), [b.as_path()]);
    }

    #[test]
    fn a_sync_that_fails_is_said_of_a_new_folder() {
        let root = tempfile::tempdir().unwrap();
        let fail = |_: &Path| Err(io::Error::other("the disk is gone"));
        assert!(make(&root.path().join("new"), &mut { fail }).is_err());
        make(root.path(), &mut { fail }).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_dir(&file).is_err());
        assert!(make_dir(&file.join("in")).is_err());
    }
}

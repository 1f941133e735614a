//! The allocation's network namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::fault::Fault;

/// A namespace that is open: it is the one that was looked at, whatever becomes
/// of its path.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    path: String,
}

impl Namespace {
    /// Opens the one at a path.
    ///
    /// # Errors
    /// The path is not absolute, is no namespace, or leads to the very namespace
    /// that this process is in: the host's, whose traffic is not ours to take.
    pub(crate) fn open(path: &str) -> Result<Self, Fault> {
        let refuse = |reason: String| Fault::Namespace {
            path: path.to_owned(),
            reason,
        };
        if !Path::new(path).is_absolute() {
            return Err(refuse(
                "not an absolute path; the runtime must name the allocation's network namespace"
                    .to_owned(),
            ));
        }
        let file = File::options()
            .read(true)
            // What turns out to be a pipe must not be waited for.
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|error| refuse(format!("{error}; is the allocation still there?")))?;
        let kind = fstatfs(&file).map_err(|error| refuse(error.to_string()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(refuse(
                "not a namespace; the runtime must name the allocation's network namespace"
                    .to_owned(),
            ));
        }
        let id = |of: std::io::Result<std::fs::Metadata>| of.map(|of| (of.dev(), of.ino()));
        let its = id(file.metadata()).map_err(|error| refuse(error.to_string()))?;
        let ours = id(std::fs::metadata("/proc/thread-self/ns/net"))
            .map_err(|error| refuse(format!("cannot tell it from the host's own: {error}")))?;
        if its == ours {
            return Err(refuse(
                "the host's own namespace, where nothing is redirected; the allocation needs \
                 the network mode bridge"
                    .to_owned(),
            ));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Runs something inside, on a thread that goes in and ends there; programs
    /// that it starts are inside as well.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(crate) fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T, Fault> {
        let refuse = |reason: String| Fault::Namespace {
            path: self.path.clone(),
            reason,
        };
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok::<T, nix::Error>(run())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(refuse(format!(
                "cannot enter it: {error}; it must be a network namespace, and Nomad's client \
                 must run as root"
            ))),
            Err(_) => Err(refuse("the work in it failed unexpectedly".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_other_namespace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, says) in [
            ("run/netns/a", "not an absolute path"),
            ("", "not an absolute path"),
            ("/nowhere/netns", "is the allocation still there?"),
            (file.to_str().unwrap(), "not a namespace"),
            (folder.path().to_str().unwrap(), "not a namespace"),
            ("/proc/thread-self/ns/net", "the host's own namespace"),
        ] {
            let fault = Namespace::open(path).unwrap_err();
            assert_eq!(fault.code(), 4);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }

    #[test]
    fn a_namespace_of_another_kind_is_not_entered() {
        let namespace = Namespace::open("/proc/thread-self/ns/uts").unwrap();
        let fault = namespace.within(|| ()).unwrap_err();
        assert!(fault.to_string().contains("cannot enter it"), "{fault}");
    }
}

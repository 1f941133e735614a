//! The program `consul` that the Nomad client will find.
//!
//! Nomad looks for it on the `PATH` of its own process, so that is where it is
//! looked for here, when a client runs and may be looked at.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Finding;
use super::system::{on_path, system_path};

const FIX: &str = "Make a folder with a link named `consul` to meshctl in it, and put it first on \
                   the PATH of Nomad's unit: Environment=PATH=/usr/lib/meshctl/nomad:/usr/sbin:…";

/// Looks for it.
pub(crate) fn look() -> Vec<Finding> {
    match nomad_path(Path::new("/proc")) {
        Some((pid, folders)) => vec![judge(&folders, &format!("the Nomad client, pid {pid}"))],
        None => vec![
            Finding::warning(
                "Nomad client",
                "no process named nomad can be looked at",
                "Start it, or run this as root; until then this shell's PATH stands for its.",
            ),
            judge(&system_path(), "this shell"),
        ],
    }
}

fn judge(folders: &[PathBuf], whose: &str) -> Finding {
    let what = "shim";
    let Some(path) = on_path("consul", folders) else {
        let found = format!("no `consul` on the PATH of {whose}");
        return Finding::missing(what, found, FIX);
    };
    match version(&path) {
        Some(text) if text.contains("meshctl") => {
            Finding::ok(what, format!("{} ({})", path.display(), text.trim()))
        }
        Some(text) => Finding::missing(
            what,
            format!(
                "the first `consul` on the PATH of {whose} is {}, which is {}",
                path.display(),
                text.lines().next().unwrap_or("silent")
            ),
            FIX,
        ),
        None => Finding::missing(what, format!("{} cannot be run", path.display()), FIX),
    }
}

fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("version").stdin(Stdio::null()).env_clear();
    let output = command.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The pid of a Nomad agent, and the folders of its `PATH`. Its plugins and
/// executors have the same name and environment.
fn nomad_path(proc: &Path) -> Option<(u32, Vec<PathBuf>)> {
    let mut pids: Vec<u32> = std::fs::read_dir(proc)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let folder = proc.join(pid.to_string());
        let command = std::fs::read(folder.join("cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0);
        let program = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
        let agent = words.next() == Some(b"agent".as_slice());
        if !agent || program.file_name()? != "nomad" {
            return None;
        }
        let environment = std::fs::read(folder.join("environ")).ok()?;
        let path = environment
            .split(|byte| *byte == 0)
            .find_map(|pair| pair.strip_prefix(b"PATH="))?;
        let path = OsString::from_vec(path.to_vec());
        Some((pid, std::env::split_paths(&path).collect()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::State;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(folder: &Path, says: &str) {
        let path = folder.join("consul");
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_on_the_path_counts() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program(
            ours.path(),
            "Consul v1.20.0 (the API that meshctl 0.1.0 answers)",
        );
        program(theirs.path(), "Consul v1.20.0");
        let (ours, theirs) = (ours.path().to_owned(), theirs.path().to_owned());
        let state = |folders: &[PathBuf]| judge(folders, "a test").state;
        assert_eq!(state(&[ours.clone(), theirs.clone()]), State::Ok);
        assert_eq!(state(&[theirs, ours]), State::Missing);
        assert_eq!(state(&[]), State::Missing);
    }

    #[test]
    fn the_clients_own_path_is_read() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, command, environment) in [
            ("7", "nomad\0executor\0", "PATH=/wrong\0"),
            (
                "12",
                "/usr/bin/nomad\0agent\0-config\0",
                "A=b\0PATH=/a:/b\0",
            ),
            ("self", "", ""),
        ] {
            let folder = proc.path().join(pid);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cmdline"), command).unwrap();
            std::fs::write(folder.join("environ"), environment).unwrap();
        }
        let found = nomad_path(proc.path()).unwrap();
        assert_eq!(found, (12, vec!["/a".into(), "/b".into()]));
    }
}

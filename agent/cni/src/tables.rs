//! The host's `iptables` and `ip6tables`: finding them, reading, loading.
//!
//! Programs and not the kernel's own interface: whether a host's rules live in
//! nftables or in the older tables is the choice of its administrator, and the
//! program that is installed is that choice. No shell is involved, and nothing
//! from outside is an argument; rules go in by standard input.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::fault::Fault;
use crate::rules::Family;

/// How long the lock that these programs share is waited for.
const LOCK_SECONDS: &str = "10";

/// Where they are looked for when `PATH` does not have them.
const FALLBACK: [&str; 2] = ["/usr/sbin", "/sbin"];

/// How much of what a program says is passed on.
const MAX_SAID_CHARS: usize = 600;

/// The programs of one family.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    list: PathBuf,
    restore: PathBuf,
}

impl Tables {
    /// Finds the programs of a family by `PATH`.
    ///
    /// # Errors
    /// One is not there, by name.
    pub(crate) fn find(family: Family, path: Option<&str>) -> Result<Self, Fault> {
        let (list, restore) = match family {
            Family::V4 => ("iptables", "iptables-restore"),
            Family::V6 => ("ip6tables", "ip6tables-restore"),
        };
        let find = |name: &str| {
            which(name, path).ok_or_else(|| {
                Fault::Tables(format!(
                    "{name} is not in PATH, /usr/sbin or /sbin; install the package iptables on \
                     this Nomad client"
                ))
            })
        };
        Ok(Self {
            list: find(list)?,
            restore: find(restore)?,
        })
    }

    /// The rules of the table `nat` as they are.
    ///
    /// # Errors
    /// There is no such table, or the lock is held.
    pub(crate) fn list(&self) -> Result<String, Fault> {
        let arguments = ["-w", LOCK_SECONDS, "-t", "nat", "-S"];
        let output = run(&self.list, &arguments, None)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Loads rules, beside those that are there.
    ///
    /// # Errors
    /// They were refused, or the lock is held: nothing has changed.
    pub(crate) fn load(&self, text: &str) -> Result<(), Fault> {
        let arguments = ["-w", LOCK_SECONDS, "--noflush"];
        run(&self.restore, &arguments, Some(text)).map(drop)
    }
}

fn which(name: &str, path: Option<&str>) -> Option<PathBuf> {
    std::env::split_paths(path.unwrap_or_default())
        .chain(FALLBACK.map(PathBuf::from))
        // A relative folder is one of wherever Nomad was started.
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

fn run(program: &Path, arguments: &[&str], input: Option<&str>) -> Result<Output, Fault> {
    let failed = |what: String| Fault::Tables(format!("{}: {what}", program.display()));
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(input.map_or_else(Stdio::null, |_| Stdio::piped()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot run: {error}")))?;
    // One that ends without reading says why on its standard error.
    let written = match (input, child.stdin.take()) {
        (Some(text), Some(mut stdin)) => stdin.write_all(text.as_bytes()),
        _ => Ok(()),
    };
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return match written {
            Ok(()) => Ok(output),
            Err(error) => Err(failed(format!("did not read the rules: {error}"))),
        };
    }
    let said = said(&output.stderr);
    let what = match said.is_empty() {
        true => output.status.to_string(),
        false => said,
    };
    match what.contains("xtables lock") {
        true => Err(Fault::Busy(format!("{}: {what}", program.display()))),
        false => Err(failed(what)),
    }
}

/// What a program said, as one line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MAX_SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_then_at_the_usual_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let file = folder.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let path = format!("relative:{}", folder.path().display());
        let program = file("mt-program", 0o755);
        file("mt-plain", 0o644);
        assert_eq!(which("mt-program", Some(&path)), Some(program));
        assert_eq!(which("mt-plain", Some(&path)), None);
        assert_eq!(which("mt-program", Some("")), None);
        assert_eq!(which("mt-program", None), None);
    }

    fn shell(script: &str, input: Option<&str>) -> Result<String, Fault> {
        let output = run(Path::new("/bin/sh"), &["-c", script], input)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn what_a_program_says_is_passed_on() {
        assert_eq!(shell("cat", Some("rules")).as_deref(), Ok("rules"));
        // It may end before it has read all.
        let much = "x".repeat(1 << 20);
        let refuses = "echo 'iptables-restore: line 3 failed' >&2; exit 1";
        let fault = shell(refuses, Some(&much)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "/bin/sh: iptables-restore: line 3 failed"
        );
        assert_eq!(fault.code(), 100);
        let fault = shell("exit 0", Some(&much)).unwrap_err();
        assert!(fault.to_string().contains("did not read the rules"));
        let busy = "echo 'Another app is currently holding the xtables lock.' >&2; exit 4";
        assert_eq!(shell(busy, None).unwrap_err().code(), 11);
        let fault = shell("exit 3", None).unwrap_err();
        assert_eq!(fault.to_string(), "/bin/sh: exit status: 3");
    }
}

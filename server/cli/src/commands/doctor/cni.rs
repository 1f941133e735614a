//! The CNI plugins, as Nomad finds them.
//!
//! Nomad runs each plugin without arguments and takes the first word of its
//! answer that is a version; without one the job stays pending.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Finding;
use super::system::on_path;

/// What the network mode bridge needs.
const BRIDGE: [&str; 5] = ["bridge", "firewall", "host-local", "loopback", "portmap"];

/// Looks at them.
pub(crate) fn look(folders: &[PathBuf]) -> Vec<Finding> {
    let shown: Vec<String> = folders
        .iter()
        .map(|one| one.display().to_string())
        .collect();
    let shown = shown.join(":");
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in BRIDGE {
        match on_path(name, folders).and_then(|path| version(&path)) {
            Some(version) => found.push(format!("{name} {version}")),
            None => missing.push(name),
        }
    }
    let what = "CNI plugins";
    let plugins = match missing.is_empty() {
        true => Finding::ok(what, found.join(", ")),
        false => Finding::missing(
            what,
            format!(
                "not in {shown}, or without a version: {}",
                missing.join(", ")
            ),
            "Install the package containernetworking-plugins, and name its folder in Nomad's \
             client.cni_path (Debian: /usr/lib/cni).",
        ),
    };
    let what = "consul-cni";
    let transparent = match on_path("consul-cni", folders) {
        Some(path) => match version(&path) {
            Some(version) => Finding::ok(what, format!("{} {version}", path.display())),
            None => Finding::warning(
                what,
                format!("{} tells no version", path.display()),
                "Make it a link to meshctl.",
            ),
        },
        None => Finding::warning(
            what,
            format!("not in {shown}; jobs with transparent_proxy stay pending"),
            "Put a link named `consul-cni` to meshctl into one of these folders.",
        ),
    };
    vec![plugins, transparent]
}

fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    let output = command.stdin(Stdio::null()).env_clear().output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    first_version(&String::from_utf8_lossy(&said))
}

/// The first word that is a version of three numbers, perhaps after a `v`.
fn first_version(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.strip_prefix('v').unwrap_or(word))
        .find(|word| {
            let core = word.split(['-', '+']).next().unwrap_or_default();
            let mut numbers = core.split('.');
            numbers
                .by_ref()
                .take(3)
                .filter(|one| one.parse::<u64>().is_ok())
                .count()
                == 3
                && numbers.next().is_none()
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_counts() {
        for (text, version) in [
            (
                "CNI bridge plugin v1.4.0\nCNI protocol versions supported: 0.1.0, 1.0.0",
                Some("1.4.0"),
            ),
            // Debian's own: words with a comma are none, the last one counts.
            (
                "CNI bridge plugin version unknown\nsupported: 0.1.0, 0.4.0, 1.0.0",
                Some("1.0.0"),
            ),
            ("v1.9.0-dev", Some("1.9.0-dev")),
            ("version 1.2", None),
            ("1.2.3.4", None),
            ("", None),
        ] {
            assert_eq!(first_version(text).as_deref(), version, "{text}");
        }
    }
}

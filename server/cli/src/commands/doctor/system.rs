//! The machine: root, the kernel, the programs that Nomad runs.

use std::path::{Path, PathBuf};

use super::Finding;

/// Looks at it.
pub(crate) fn look() -> Vec<Finding> {
    vec![root(), bridge(), iptables()]
}

fn root() -> Finding {
    let what = "user";
    match nix::unistd::geteuid().is_root() {
        true => Finding::ok(what, "root, as the Nomad client"),
        false => Finding::warning(
            what,
            "not root: another user's processes and namespaces cannot be seen",
            "Run it with sudo for the whole answer.",
        ),
    }
}

fn bridge() -> Finding {
    let what = "kernel bridge";
    match Path::new("/sys/module/bridge").exists() {
        true => Finding::ok(what, "there"),
        false => Finding::missing(
            what,
            "the module is not loaded; Nomad then has no network mode bridge",
            "modprobe bridge, and write `bridge` to /etc/modules-load.d/nomad.conf.",
        ),
    }
}

fn iptables() -> Finding {
    let what = "iptables";
    match on_path("iptables", &system_path()) {
        Some(path) => Finding::ok(what, path.display().to_string()),
        None => Finding::missing(
            what,
            "not found; Nomad's bridge network and its CNI plugins run it",
            "Install the package iptables.",
        ),
    }
}

/// Where programs of the system are.
pub(crate) fn system_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    folders
}

/// The first executable file of that name.
pub(crate) fn on_path(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let found = folders.iter().map(|folder| folder.join(name));
    found.into_iter().find(|path| is_executable(path))
}

/// Whether a file is there that may be executed.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

//! The rules of transparent proxies: where they stand for nobody any more, and whom they let pass
//! by mistake.
//!
//! Rules live in the network namespace of their allocation and go with it. What is found besides is
//! a namespace that was left behind, or rules where none should be. And whoever runs as the
//! sidecar's user in such a namespace passes the rules as the sidecar does: nothing of the mesh is
//! asked about its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;

/// Where namespaces have names: Nomad gives each its allocation's id.
const NAMED: &str = "/run/netns";
/// Namespaces that are looked into at most.
const MOST: usize = 1024;
/// The sidecar's program.
const PROXY: &str = "mesh-proxy";

/// A network namespace.
#[derive(Debug, Default)]
struct Space {
    /// By which it can be entered.
    path: String,
    /// Its name, if it has one.
    name: Option<String>,
    /// Those that are in it, as far as this user can see.
    processes: Vec<Process>,
    /// What `iptables -t nat -S` prints there.
    rules: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    uid: u32,
    /// Its program's name.
    name: String,
}

/// Looks at them. `registered`: the allocations that the agent knows, where it said so.
pub(crate) fn look(registered: Option<BTreeSet<String>>) -> Vec<Finding> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new(); // which was said already
    }
    let search = std::env::var("PATH").ok();
    let read = |path: Option<&str>| mesh_cni::rules_at(path, search.as_deref());
    let mut findings = Vec::new();
    match read(None) {
        Ok(rules) if mesh_cni::is_redirected(&rules) => findings.push(in_the_host()),
        Ok(_) => {}
        // Without iptables no job is redirected, and that was said.
        Err(_) => return findings,
    }
    // Where neither is, nobody of ours is, and looking would make a table.
    let is_ours = |it: &Process| it.name == PROXY;
    let concerns = |it: &Space| it.name.is_some() || it.processes.iter().any(is_ours);
    let spaces = spaces().into_values().filter(concerns);
    let mut spaces: Vec<Space> = spaces.take(MOST).collect();
    for space in &mut spaces {
        // One that ends just now has no rules any more.
        space.rules = read(Some(&space.path)).unwrap_or_default();
    }
    spaces.retain(|space| mesh_cni::is_redirected(&space.rules));
    findings.extend(judge(&spaces, registered.as_ref()));
    findings
}

fn in_the_host() -> Finding {
    Finding::warning(
        "rules",
        "chains of consul-cni stand in the host's own namespace: what this machine sends is \
         redirected to a sidecar that is not there",
        "Take them out: iptables -t nat -D OUTPUT -j MESH_OUTPUT; iptables -t nat -D PREROUTING -p \
         tcp -j MESH_INBOUND; for each of the two chains iptables -t nat -F CHAIN and -X CHAIN; the \
         same with ip6tables.",
    )
}

/// What the namespaces with rules of ours mean.
fn judge(spaces: &[Space], registered: Option<&BTreeSet<String>>) -> Vec<Finding> {
    let what = "rules";
    let mut findings = Vec::new();
    for space in spaces {
        let Some(name) = &space.name else {
            continue;
        };
        let is_known = registered.is_some_and(|all| all.contains(name));
        if space.processes.is_empty() && !is_known {
            findings.push(Finding::warning(
                what,
                format!(
                    "the namespace {name} has rules of consul-cni, but no process, and nothing of \
                     it is registered: its allocation is gone"
                ),
                format!("If Nomad does not know the allocation any more: ip netns delete {name}."),
            ));
        }
    }
    for space in spaces {
        let is_proxy = |process: &&Process| process.name == PROXY;
        let proxies = space.processes.iter().filter(is_proxy);
        let own: BTreeSet<u32> = proxies.map(|process| process.uid).collect();
        // Others that pass were excluded on purpose.
        let passing = mesh_cni::exempt_uids(&space.rules).into_iter();
        for uid in passing.filter(|uid| own.contains(uid)) {
            let others = space.processes.iter().filter(|it| it.uid == uid);
            let others = others.filter(|process| !is_proxy(process));
            let others: Vec<String> = others
                .map(|it| format!("{} ({})", it.name, it.pid))
                .collect();
            if !others.is_empty() {
                let name = space.name.as_deref().unwrap_or(&space.path);
                findings.push(Finding::warning(
                    "sidecar's user",
                    format!(
                        "in the namespace {name} other programs run as the sidecar's uid {uid}, whose \
                         calls are not redirected: {}",
                        others.join(", ")
                    ),
                    "Give their task another `user`, or the sidecar a uid of its own: \
                     transparent_proxy { uid = \"…\" }, and the same as its task's user.",
                ));
            }
        }
    }
    if findings.is_empty() && !spaces.is_empty() {
        let namespaces = match spaces.len() {
            1 => "1 namespace".to_owned(),
            more => format!("{more} namespaces"),
        };
        findings.push(Finding::ok(
            what,
            format!("of transparent proxies in {namespaces}, each in use"),
        ));
    }
    findings
}

/// Every network namespace but this one, by what the kernel knows it by.
fn spaces() -> BTreeMap<(u64, u64), Space> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let own = id(Path::new("/proc/self/ns/net"));
    let mut spaces = BTreeMap::<(u64, u64), Space>::new();
    for path in entries(Path::new(NAMED)) {
        if let Some(id) = id(&path).filter(|it| Some(*it) != own) {
            let space = spaces.entry(id).or_default();
            space.path = path.display().to_string();
            space.name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
        }
    }
    for folder in entries(Path::new("/proc")) {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        // One that ends meanwhile is not there.
        let path = folder.join("ns/net");
        let Some(id) = id(&path).filter(|it| Some(*it) != own) else {
            continue;
        };
        let Some(process) = process(&folder, pid) else {
            continue;
        };
        let space = spaces.entry(id).or_default();
        if space.path.is_empty() {
            space.path = path.display().to_string();
        }
        space.processes.push(process);
    }
    spaces
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let read = std::fs::read_dir(folder);
    read.into_iter()
        .flatten()
        .flatten()
        .map(|it| it.path())
        .collect()
}

fn process(folder: &Path, pid: u32) -> Option<Process> {
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    // Real, effective, saved, of the file system: packets have the last one.
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uids.split_whitespace().nth(3)?.parse().ok()?;
    let program = std::fs::read_link(folder.join("exe")).ok()?;
    let name = program.file_name()?.to_string_lossy().into_owned();
    Some(Process { pid, uid, name })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::State;
    use super::*;

    const RULES: &str = "-N MESH_OUTPUT\n-A MESH_OUTPUT -m mark --mark 0x6d65 -j RETURN\n\
        -A MESH_OUTPUT -m owner --uid-owner 101 -j RETURN\n\
        -A MESH_OUTPUT -m owner --uid-owner 7 -j RETURN\n";

    fn space(name: &str, processes: &[(u32, &str)]) -> Space {
        let processes = processes.iter().zip(1..).map(|((uid, name), pid)| Process {
            pid,
            uid: *uid,
            name: (*name).to_owned(),
        });
        Space {
            path: format!("/run/netns/{name}"),
            name: Some(name.to_owned()),
            processes: processes.collect(),
            rules: RULES.to_owned(),
        }
    }

    fn of(spaces: &[Space], registered: &[&str]) -> Vec<(State, String)> {
        let registered = registered.iter().map(|it| (*it).to_owned()).collect();
        let found = judge(spaces, Some(&registered)).into_iter();
        found.map(|one| (one.state, one.found)).collect()
    }

    #[test]
    fn a_namespace_that_was_left_behind() {
        let used = || {
            space(
                "used",
                &[(101, "mesh-proxy"), (1000, "python3"), (7, "backup")],
            )
        };
        let all = [used(), space("gone", &[]), space("starting", &[])];
        let found = of(&all, &["used", "starting"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].1.contains("the namespace gone has rules"),
            "{found:?}"
        );
        let found = of(&[used()], &[]);
        assert_eq!(found[0].0, State::Ok, "{found:?}");
        assert_eq!(of(&[], &[]), []);
    }

    #[test]
    fn who_runs_as_the_sidecar_passes_its_rules() {
        let same = space("same", &[(101, "mesh-proxy"), (101, "python3")]);
        let found = of(&[same], &["same"]);
        assert_eq!((found.len(), found[0].0), (1, State::Warning), "{found:?}");
        assert!(
            found[0]
                .1
                .ends_with("uid 101, whose calls are not redirected: python3 (2)"),
            "{found:?}"
        );
        // By the mark alone root's sidecar passes; who passes by a uid was excluded.
        let root = space(
            "root",
            &[(0, "mesh-proxy"), (0, "python3"), (101, "backup")],
        );
        assert_eq!(of(&[root], &["root"])[0].0, State::Ok);
    }
}

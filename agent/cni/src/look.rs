//! Rules as they stand, for who looks for mistakes. It changes none.

use crate::fault::Fault;
use crate::netns::Namespace;
use crate::rules::{Family, INBOUND_CHAIN, OUTPUT_CHAIN};
use crate::tables::Tables;

/// The rules of the table `nat` for IPv4, as `iptables -S` prints them: of the
/// network namespace at a path, or of that which this process is in.
///
/// # Errors
/// The namespace cannot be entered, or `iptables` is not there or fails.
pub fn rules_at(netns: Option<&str>, search: Option<&str>) -> Result<String, Fault> {
    let list = || Tables::find(Family::V4, search)?.list();
    match netns {
        Some(path) => Namespace::open(path)?.within(list)?,
        None => list(),
    }
}

/// Whether any of the plugin's chains are among rules.
#[must_use]
pub fn is_redirected(rules: &str) -> bool {
    let ours = |line: &str| {
        [OUTPUT_CHAIN, INBOUND_CHAIN]
            .iter()
            .any(|chain| line.trim_end() == format!("-N {chain}"))
    };
    rules.lines().any(ours)
}

/// The users whose packets the rules let pass, in their order: the sidecar's own
/// first, unless that is 0, which passes by its mark alone.
#[must_use]
pub fn exempt_uids(rules: &str) -> Vec<u32> {
    let begin = format!("-A {OUTPUT_CHAIN} -m owner --uid-owner ");
    let uids = rules.lines().filter_map(|line| {
        let uid = line.strip_prefix(&begin)?.strip_suffix(" -j RETURN")?;
        uid.parse().ok()
    });
    uids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_read() {
        let rules = "-P OUTPUT ACCEPT\n-N MESH_INBOUND\n-N MESH_OUTPUT\n-A OUTPUT -j MESH_OUTPUT\n\
            -A MESH_OUTPUT -m mark --mark 0x6d65 -j RETURN\n\
            -A MESH_OUTPUT -m owner --uid-owner 101 -j RETURN\n\
            -A MESH_OUTPUT -m owner --uid-owner 7 -j RETURN\n\
            -A OTHER -m owner --uid-owner 9 -j RETURN\n";
        assert!(is_redirected(rules));
        assert_eq!(exempt_uids(rules), [101, 7]);
        assert!(!is_redirected("-P OUTPUT ACCEPT\n-N MESH_OUTPUT2\n"));
    }
}

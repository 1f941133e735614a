//! The rules, as text for `iptables-restore --noflush`. Pure.
//!
//! Two chains of our own in the table `nat`, and a jump to each. NAT looks at the
//! first packet of a connection only; replies, and all that follows, go by what
//! was decided then.
//!
//! **`MESH_OUTPUT`**, from `OUTPUT`: what processes in the namespace send. The
//! first rule that fits decides.
//!
//! 1. The sidecar's own packets pass, by their mark.
//! 2. They pass by the sidecar's uid too, since it may lack the capability to
//!    mark. Not when that uid is 0: there root's application stands beside root's
//!    sidecar and would escape, so that the mark alone decides.
//! 3. Users that the job excludes pass, DNS included.
//! 4. Port 53, UDP and TCP, to any server, goes to the sidecar. This is before
//!    loopback, for the stub resolver of the host's `resolv.conf` (127.0.0.53),
//!    which is not in this namespace; and before the excluded ports and prefixes,
//!    or excluding a database's network would take its name server with it.
//! 5. Loopback passes: tasks of one allocation talk to each other, and the
//!    sidecar's own ports are there.
//! 6. Ports and prefixes that the job excludes pass.
//! 7. The rest of TCP goes to the sidecar, which asks the kernel where it was to
//!    go (`SO_ORIGINAL_DST`). Other protocols pass.
//!
//! **`MESH_INBOUND`**, from `PREROUTING`: TCP from outside. Packets that were sent
//! within the namespace do not come by here, since their connection was decided in
//! `OUTPUT`.
//!
//! 1. The sidecar's inbound port passes as it is, so do the ports that the job
//!    excludes.
//! 2. The rest goes to the sidecar's inbound port: so also what is aimed at the
//!    application itself, or at the sidecar's other ports.
//!
//! One load replaces both chains and both jumps, in one commit of the kernel's
//! table: no packet meets half of them, and a second load leaves what one did.

use std::fmt::Write;

use crate::config::Config;
use crate::{DNS_PORT, MESH_MARK};

/// The chain for what the namespace sends.
pub const OUTPUT_CHAIN: &str = "MESH_OUTPUT";
/// The chain for what comes into the namespace.
pub const INBOUND_CHAIN: &str = "MESH_INBOUND";

/// The chain that jumps, the rule that does, and where it leads, as
/// `iptables -S` prints them.
const JUMPS: [(&str, &str, &str); 2] = [
    ("OUTPUT", "-j MESH_OUTPUT", OUTPUT_CHAIN),
    ("PREROUTING", "-p tcp -j MESH_INBOUND", INBOUND_CHAIN),
];

/// IPv4 or IPv6: a table of its own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The text that puts the rules of one family in place, given what
/// `iptables -t nat -S` prints now: jumps of ours that are there are taken out,
/// so that each is there once, and first.
#[must_use]
pub fn restore(config: &Config, family: Family, now: &str) -> String {
    let mut text = String::from("*nat\n");
    for (_, _, chain) in JUMPS {
        // With --noflush this makes the chain, or empties it.
        line(&mut text, format_args!(":{chain} - [0:0]"));
    }
    output(&mut text, config, family);
    inbound(&mut text, config);
    for (from, jump, _) in JUMPS {
        for _ in 0..jumps(now, from, jump) {
            line(&mut text, format_args!("-D {from} {jump}"));
        }
        line(&mut text, format_args!("-I {from} 1 {jump}"));
    }
    text.push_str("COMMIT\n");
    text
}

/// What of ours is not in what `iptables -t nat -S` prints; nothing when all is.
#[must_use]
pub fn missing(now: &str) -> Option<String> {
    JUMPS.iter().find_map(|(from, jump, chain)| {
        let rule = format!("-A {chain} ");
        if !now.lines().any(|line| line.starts_with(&rule)) {
            return Some(format!("the chain {chain} is gone or empty"));
        }
        (jumps(now, from, jump) == 0).then(|| format!("{from} does not jump to {chain}"))
    })
}

fn jumps(now: &str, from: &str, jump: &str) -> usize {
    let rule = format!("-A {from} {jump}");
    now.lines().filter(|line| line.trim_end() == rule).count()
}

fn output(text: &mut String, config: &Config, family: Family) {
    let mut add = |rule: std::fmt::Arguments<'_>| {
        line(text, format_args!("-A {OUTPUT_CHAIN} {rule}"));
    };
    add(format_args!("-m mark --mark {MESH_MARK:#x} -j RETURN"));
    if config.proxy_uid != 0 {
        let uid = config.proxy_uid;
        add(format_args!("-m owner --uid-owner {uid} -j RETURN"));
    }
    for uid in &config.exclude_uids {
        add(format_args!("-m owner --uid-owner {uid} -j RETURN"));
    }
    if config.dns {
        for protocol in ["udp", "tcp"] {
            add(format_args!(
                "-p {protocol} -m {protocol} --dport 53 -j REDIRECT --to-ports {DNS_PORT}"
            ));
        }
    }
    let loopback = match family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::1/128",
    };
    add(format_args!("-d {loopback} -j RETURN"));
    for port in &config.exclude_outbound {
        add(format_args!("-p tcp -m tcp --dport {port} -j RETURN"));
    }
    for prefix in &config.exclude_cidrs {
        if prefix.is_ipv4() == (family == Family::V4) {
            add(format_args!("-d {prefix} -j RETURN"));
        }
    }
    let outbound = config.outbound;
    add(format_args!("-p tcp -j REDIRECT --to-ports {outbound}"));
}

fn inbound(text: &mut String, config: &Config) {
    let mut add = |rule: std::fmt::Arguments<'_>| {
        line(text, format_args!("-A {INBOUND_CHAIN} {rule}"));
    };
    let inbound = config.inbound;
    add(format_args!("-p tcp -m tcp --dport {inbound} -j RETURN"));
    for port in &config.exclude_inbound {
        add(format_args!("-p tcp -m tcp --dport {port} -j RETURN"));
    }
    add(format_args!("-p tcp -j REDIRECT --to-ports {inbound}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests;

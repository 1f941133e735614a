//! The `consul-cni` plugin: what makes a proxy transparent.
//!
//! Nomad runs it, by that name, as the last CNI plugin for an allocation whose
//! job says `transparent_proxy`. It writes NAT rules into the allocation's
//! network namespace, so that what applications send goes to their sidecar
//! without their knowing, and what comes in does too. It is a program of its own
//! for a moment: it asks nobody, keeps no state, and its rules end with the
//! namespace.
//!
//! What the job's author can write reaches it through `CNI_ARGS`. Nothing of
//! that is trusted: it becomes numbers, addresses and prefixes first
//! ([`Config`]), and the text of the rules ([`rules`]) is made of those alone.
//!
//! The plugin and the sidecar meet in the constants of this file.
#![forbid(unsafe_code)]

mod args;
mod config;
mod fault;
mod look;
mod netns;
mod plugin;
mod prefix;
pub mod rules;
mod tables;

use std::io::Write;

pub use config::{Config, MAX_CONFIG_BYTES, MAX_ENTRIES};
pub use fault::Fault;
pub use look::{exempt_uids, is_redirected, rules_at};
pub use plugin::{Answer, MAX_STDIN_BYTES, run};
pub use prefix::Prefix;

/// The mark on the sidecar's own sockets (`SO_MARK`): packets with it pass the
/// rules untouched. It is what tells root's sidecar from root's application,
/// where a uid cannot; whoever may set it is trusted as the sidecar is.
pub const MESH_MARK: u32 = 0x6d65;

/// Where the sidecar answers DNS inside the namespace, UDP and TCP, on
/// 127.0.0.1 and ::1 exactly: a reply from another address of the namespace
/// would not be recognised as one.
pub const DNS_PORT: u16 = 15053;

/// Where the sidecar takes redirected connections, on 127.0.0.1 and ::1. Nomad
/// may name another port to the plugin, but to nobody who could tell the
/// sidecar, so no other is taken.
pub const OUTBOUND_PORT: u16 = 15001;

/// The version that the probe of Nomad reads: at least 1.4.2 is wanted.
pub const PLUGIN_VERSION: &str = "1.9.0";

/// The program. What it has to know is in the environment and on standard
/// input; arguments mean nothing to a CNI plugin. The exit code.
#[must_use]
pub fn main() -> u8 {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let answer = run(&env, &mut std::io::stdin().lock());
    if let Some(line) = &answer.log {
        let _ = writeln!(std::io::stderr(), "consul-cni: {line}");
    }
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(answer.stdout.as_bytes())
        .and_then(|()| out.flush());
    match written {
        Ok(()) => answer.code,
        Err(_) => 1,
    }
}

/// Reads bytes as each of the two inputs, for fuzzing. Whatever config comes of
/// them, its rules are as many lines as they should be.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = args::iptables_config(text);
    let _ = plugin::NetworkConfig::parse(data);
    let netns = "/var/run/netns/a";
    if let Ok(config) = Config::parse(text, netns) {
        for family in [rules::Family::V4, rules::Family::V6] {
            let text = rules::restore(&config, family, "");
            let odd = |c: char| !(c.is_ascii_alphanumeric() || " *:-[]/_.\n".contains(c));
            assert_eq!(text.find(odd), None, "{text}");
        }
    }
}

//! `CONSUL_IPTABLES_CONFIG`: what Nomad asks for, as JSON.
//!
//! The keys and their forms are those of the Consul SDK that Nomad is built
//! with. Nomad checks what a job says before it writes them, but a job's
//! `cni { args }` can carry the same key past those checks where the network is
//! a `cni/…` one; so everything is parsed to what it should be here. Keys that
//! we do not know are let be, and named in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::fault::{Fault, quoted};
use crate::prefix::Prefix;
use crate::{DNS_PORT, OUTBOUND_PORT};

/// How long the JSON may be.
pub const MAX_CONFIG_BYTES: usize = 32 * 1024;

/// How many entries one list may have: each is a rule that a packet walks by.
pub const MAX_ENTRIES: usize = 256;

/// The largest uid; the one above means "none" to the kernel.
const MAX_UID: u32 = u32::MAX - 1;

/// Which traffic goes through the sidecar of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The sidecar's port for connections from other sidecars.
    pub inbound: NonZeroU16,
    /// The sidecar's port for what applications of the allocation open: always
    /// [`OUTBOUND_PORT`].
    pub outbound: NonZeroU16,
    /// Who the sidecar runs as.
    pub proxy_uid: u32,
    /// Whether port 53 goes to the sidecar, on [`DNS_PORT`].
    pub dns: bool,
    /// Ports that are reached from outside without the sidecar.
    pub exclude_inbound: BTreeSet<NonZeroU16>,
    /// Ports of others that are reached without the sidecar.
    pub exclude_outbound: BTreeSet<NonZeroU16>,
    /// Addresses that are reached without the sidecar.
    pub exclude_cidrs: BTreeSet<Prefix>,
    /// Users whose traffic does not go through the sidecar.
    pub exclude_uids: BTreeSet<u32>,
    /// What was passed over, for the log.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
struct Sent {
    #[serde(default, rename = "ConsulDNSIP")]
    dns_ip: Option<String>,
    #[serde(default, rename = "ConsulDNSPort")]
    dns_port: Option<i64>,
    #[serde(default, rename = "ProxyUserID")]
    proxy_uid: Option<String>,
    #[serde(default, rename = "ProxyInboundPort")]
    inbound: Option<i64>,
    #[serde(default, rename = "ProxyOutboundPort")]
    outbound: Option<i64>,
    #[serde(default, rename = "ExcludeInboundPorts")]
    exclude_inbound: Option<Vec<String>>,
    #[serde(default, rename = "ExcludeOutboundPorts")]
    exclude_outbound: Option<Vec<String>>,
    #[serde(default, rename = "ExcludeOutboundCIDRs")]
    exclude_cidrs: Option<Vec<String>>,
    #[serde(default, rename = "ExcludeUIDs")]
    exclude_uids: Option<Vec<String>>,
    #[serde(default, rename = "NetNS")]
    netns: Option<String>,
    // An interface of Go's, for tests: null.
    #[serde(default, rename = "IptablesProvider")]
    _provider: IgnoredAny,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl Config {
    /// Reads the JSON for the namespace that the runtime named.
    ///
    /// # Errors
    /// [`Fault::Config`], with the key that is wrong.
    pub fn parse(text: &str, netns: &str) -> Result<Self, Fault> {
        parse(text, netns).map_err(Fault::Config)
    }
}

fn parse(text: &str, netns: &str) -> Result<Config, String> {
    if text.len() > MAX_CONFIG_BYTES {
        return Err(format!(
            "{} bytes, at most {MAX_CONFIG_BYTES} are taken; exclude fewer ports, prefixes and \
             users in `transparent_proxy`",
            text.len()
        ));
    }
    let sent: Sent = serde_json::from_str(text).map_err(|error| {
        // It may quote what was sent, at any length.
        let error: String = error.to_string().chars().take(200).collect();
        format!("{error}; Nomad writes it for a job with `transparent_proxy`, a job must not")
    })?;
    same_namespace(sent.netns.as_deref().unwrap_or_default(), netns)?;
    let mut notes = Vec::new();
    let config = Config {
        inbound: inbound(sent.inbound)?,
        outbound: outbound(sent.outbound)?,
        proxy_uid: proxy_uid(sent.proxy_uid.as_deref().unwrap_or_default())?,
        dns: dns(sent.dns_ip.as_deref().unwrap_or_default(), sent.dns_port)?,
        exclude_inbound: inbound_ports(sent.exclude_inbound, &mut notes)?,
        exclude_outbound: list(sent.exclude_outbound, "ExcludeOutboundPorts", digits, PORT)?,
        exclude_cidrs: list(
            sent.exclude_cidrs,
            "ExcludeOutboundCIDRs",
            Prefix::parse,
            "an address prefix such as 10.0.0.0/8",
        )?,
        exclude_uids: list(sent.exclude_uids, "ExcludeUIDs", uid, UID)?,
        notes: Vec::new(),
    };
    ports_differ(&config)?;
    notes.extend(sent.unknown.keys().take(8).map(|key| {
        let key = quoted(key);
        format!(
            "{key} is not known to meshctl {}",
            env!("CARGO_PKG_VERSION")
        )
    }));
    Ok(Config { notes, ..config })
}

const PORT: &str = "a port from 1 to 65535";
const UID: &str = "a user's number from 0 to 4294967294";

/// The rules go into the namespace that the runtime named, and no other.
fn same_namespace(sent: &str, netns: &str) -> Result<(), String> {
    match sent == netns {
        true => Ok(()),
        false => Err(format!(
            "NetNS is {}, but CNI_NETNS is {}; only Nomad may write it, take \
             CONSUL_IPTABLES_CONFIG out of `args` of the job's `cni` block",
            quoted(sent),
            quoted(netns),
        )),
    }
}

fn inbound(sent: Option<i64>) -> Result<NonZeroU16, String> {
    match sent.unwrap_or(0) {
        // Nomad looks for the port by the label that it gives itself.
        0 => Err(
            "ProxyInboundPort is 0: the group has no port with the label \
             connect-proxy-<service>, which Nomad makes for a sidecar; take `port` out of the \
             job's `sidecar_service`"
                .to_owned(),
        ),
        port => to_port(port).ok_or_else(|| format!("ProxyInboundPort is {port}, not {PORT}")),
    }
}

fn outbound(sent: Option<i64>) -> Result<NonZeroU16, String> {
    let only = NonZeroU16::new(OUTBOUND_PORT);
    match sent.unwrap_or(0) {
        0 => only,
        port => only.filter(|only| i64::from(only.get()) == port),
    }
    .ok_or_else(|| {
        let port = sent.unwrap_or(0);
        format!(
            "ProxyOutboundPort is {port}, and the sidecar listens on {OUTBOUND_PORT} only: Nomad \
             tells the port to this plugin, and to nobody who could tell the sidecar; take \
             `outbound_port` out of the job's `transparent_proxy`, and \
             connect.transparent_proxy.default_outbound_port out of the meta of the Nomad client"
        )
    })
}

fn proxy_uid(sent: &str) -> Result<u32, String> {
    uid(sent).ok_or_else(|| {
        format!(
            "ProxyUserID is {}, not {UID}; see `uid` of the job's `transparent_proxy`, and \
             connect.transparent_proxy.default_uid in the meta of the Nomad client",
            quoted(sent)
        )
    })
}

/// Whether DNS is wanted. Where it leads is not what these say: in our mesh the
/// sidecar answers. Nomad leaves both out with `no_dns`, and when the agent says
/// that it has no DNS.
fn dns(ip: &str, port: Option<i64>) -> Result<bool, String> {
    let port = port.unwrap_or(0);
    match (ip, port) {
        ("", 0) => return Ok(false),
        ("", _) | (_, 0) => {
            return Err(
                "of ConsulDNSIP and ConsulDNSPort one is missing; Nomad writes both or none"
                    .to_owned(),
            );
        }
        _ => {}
    }
    let Ok(_) = IpAddr::from_str(ip) else {
        return Err(format!("ConsulDNSIP is {}, not an address", quoted(ip)));
    };
    match to_port(port) {
        Some(_) => Ok(true),
        None => Err(format!("ConsulDNSPort is {port}, not {PORT}")),
    }
}

/// Nomad puts each static port's `to` here, and that is 0 or -1 when the job
/// leaves it out. Which port that is inside is not said, so it cannot be kept
/// out; the job need not fail for it.
fn inbound_ports(
    sent: Option<Vec<String>>,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<NonZeroU16>, String> {
    let mut sent = sent.unwrap_or_default();
    let before = sent.len();
    sent.retain(|port| port != "0" && port != "-1");
    if sent.len() < before {
        notes.push(
            "a static port without `to` is not excluded from the sidecar: give it `to`".to_owned(),
        );
    }
    list(Some(sent), "ExcludeInboundPorts", digits, PORT)
}

fn list<T: Ord>(
    sent: Option<Vec<String>>,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
    what: &str,
) -> Result<BTreeSet<T>, String> {
    let sent = sent.unwrap_or_default();
    if sent.len() > MAX_ENTRIES {
        let count = sent.len();
        return Err(format!(
            "{key} has {count} entries, at most {MAX_ENTRIES} are taken"
        ));
    }
    sent.iter()
        .map(|text| parse(text).ok_or_else(|| format!("{key}: {} is not {what}", quoted(text))))
        .collect()
}

/// Two listeners cannot have one port.
fn ports_differ(config: &Config) -> Result<(), String> {
    let inbound = config.inbound;
    let taken = match inbound.get() {
        OUTBOUND_PORT => "takes its application's calls",
        DNS_PORT if config.dns => "answers DNS",
        _ => return Ok(()),
    };
    Err(format!(
        "ProxyInboundPort is {inbound}, where the sidecar {taken}; choose another for the port \
         `connect-proxy-<service>`"
    ))
}

fn to_port(number: i64) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

fn uid(text: &str) -> Option<u32> {
    digits(text).filter(|uid| *uid <= MAX_UID)
}

/// A number of decimal digits and nothing else.
pub(crate) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    only.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;

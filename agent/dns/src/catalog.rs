//! What a name means at the agent, whose callers know of no virtual addresses:
//! a service's instances, as users of Consul's DNS ask for them.
//!
//! - `[TAG.]SERVICE.service.consul`: those that pass their checks
//! - `_SERVICE._TAG.service.consul`, `_SERVICE._TAG.consul` (RFC 2782); `_tcp`
//!   stands for every tag
//! - `SERVICE.connect.consul`: where they are called through the mesh
//! - `SERVICE.virtual.consul`: the service's virtual address
//! - `HEX.addr.consul`: the address that is written there in hexadecimal digits;
//!   what a service's record leads to
//! - each with `NAMESPACE.ns`, `DATACENTER.dc`, or `DATACENTER` alone before
//!   `consul`, as at a sidecar
//!
//! Names of one label are no service here: the host's name servers know those.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_model::Key;

use crate::Name;
use crate::meaning::{is_ours, labels, place, service};

/// What a name means at the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A service's instances.
    Instances {
        /// The service.
        service: Key,
        /// Those with this tag, in whatever case.
        tag: Option<String>,
    },
    /// Where a service's instances are called through the mesh.
    InMesh(Key),
    /// A service's virtual address.
    Virtual(Key),
    /// An address, which is the name itself.
    Address(IpAddr),
    /// `consul` itself.
    Zone,
    /// A name that only others are below: it is there, and has no records.
    Between,
    /// Ours, and not there.
    Absent,
    /// None of ours.
    Other,
}

/// What a name means at the agent, where this is the datacenter `dc`.
#[must_use]
pub fn listed(name: &Name, dc: &str) -> Listed {
    if !is_ours(name) {
        return Listed::Other;
    }
    let Some(labels) = labels(name) else {
        return Listed::Absent;
    };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        ["consul"] => Listed::Zone,
        [rest @ .., "consul"] => below(rest, dc).unwrap_or(Listed::Absent),
        _ => Listed::Absent,
    }
}

/// What stands before `consul`.
fn below(labels: &[&str], dc: &str) -> Option<Listed> {
    let (labels, namespace) = place(labels, dc)?;
    let instances = |name: &str, tag: Option<&str>| {
        let service = service(namespace, name)?;
        let tag = tag.map(str::to_owned);
        Some(Listed::Instances { service, tag })
    };
    match labels {
        [] | ["service" | "connect" | "virtual" | "addr"] => Some(Listed::Between),
        [hex, "addr"] => address(hex).map(Listed::Address),
        [name, "virtual"] => service(namespace, name).map(Listed::Virtual),
        [name, "connect"] => service(namespace, name).map(Listed::InMesh),
        [name, protocol, "service"] | [name, protocol]
            if name.starts_with('_') && protocol.starts_with('_') =>
        {
            let tag = protocol.get(1..).filter(|tag| *tag != "tcp");
            instances(name.get(1..)?, tag)
        }
        [name, "service"] => instances(name, None),
        [tag @ .., name, "service"] => instances(name, Some(&tag.join("."))),
        _ => None,
    }
}

/// The name whose address is this: `0a000005.addr.DC.consul`.
#[must_use]
pub fn name_of(address: IpAddr, dc: &str) -> Option<Name> {
    let hex = match address {
        IpAddr::V4(ip) => format!("{:08x}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{:032x}", ip.to_bits()),
    };
    Name::from_labels([hex.as_str(), "addr", dc, "consul"])
}

fn address(hex: &str) -> Option<IpAddr> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        8 => u32::from_str_radix(hex, 16)
            .ok()
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        32 => u128::from_str_radix(hex, 16)
            .ok()
            .map(|bits| Ipv6Addr::from_bits(bits).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(name: &str) -> Listed {
        listed(&Name::from_labels(name.split('.')).unwrap(), "dc1")
    }

    #[test]
    fn names_of_services() {
        let web = || Key::of("web");
        let all = |tag: Option<&str>| Listed::Instances {
            service: web(),
            tag: tag.map(str::to_owned),
        };
        for (name, meaning) in [
            ("web.service.consul", all(None)),
            ("WEB.Service.CONSUL", all(None)),
            ("web.service.dc1.consul", all(None)),
            ("web.service.dc1.dc.consul", all(None)),
            ("blue.web.service.consul", all(Some("blue"))),
            ("v1.2.web.service.dc1.consul", all(Some("v1.2"))),
            ("_web._tcp.service.consul", all(None)),
            ("_web._blue.service.dc1.consul", all(Some("blue"))),
            ("_web._blue.consul", all(Some("blue"))),
            ("web.connect.consul", Listed::InMesh(web())),
            ("web.virtual.consul", Listed::Virtual(web())),
            (
                "db.service.team.ns.consul",
                Listed::Instances {
                    service: Key::new("team", "db"),
                    tag: None,
                },
            ),
            (
                "0a000005.addr.dc1.consul",
                Listed::Address([10, 0, 0, 5].into()),
            ),
            ("consul", Listed::Zone),
            ("service.consul", Listed::Between),
            ("dc1.consul", Listed::Between),
            // Ours, and not there.
            ("web.consul", Listed::Absent),
            ("web.service.dc2.consul", Listed::Absent),
            ("web.node.consul", Listed::Absent),
            ("0a00000g.addr.consul", Listed::Absent),
            ("0a0005.addr.consul", Listed::Absent),
            ("_web.service.consul", Listed::Absent),
            ("w!b.service.consul", Listed::Absent),
            // None of ours.
            ("web", Listed::Other),
            ("localhost", Listed::Other),
            ("service.consul.example.org", Listed::Other),
        ] {
            assert_eq!(of(name), meaning, "{name}");
        }
    }

    #[test]
    fn an_address_is_its_name() {
        for address in ["10.0.0.5", "255.255.255.255", "::1", "fd00::a:b"] {
            let address: IpAddr = address.parse().unwrap();
            let name = name_of(address, "dc1").unwrap();
            assert_eq!(listed(&name, "dc1"), Listed::Address(address));
        }
    }
}

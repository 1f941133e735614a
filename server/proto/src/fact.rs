//! What a server tells an agent: a fact for each topic that it asked for.
//!
//! | topic | body |
//! |---|---|
//! | `mesh` | [`MeshFact`] |
//! | `roots` | [`RootsFact`] |
//! | `revocations` | [`RevocationsFact`], passed on unread |
//! | `service/NS/NAME` | [`mesh_model::Service`], or `null` for the defaults |
//! | `route/NS/NAME` | [`mesh_model::Route`], or `null` |
//! | `endpoints/NS/NAME` | list of [`Endpoint`]; an empty one says that there is none |
//! | `virtual/NS/NAME` | [`VirtualFact`], or `null`: there is no such service |
//! | `address/IP` | the [`Key`] of the service that has this virtual address, or `null` |
//! | `gateway/NS/NAME` | [`mesh_model::Gateway`], or `null` |
//! | `outside/NS/NAME` | list of [`Outside`]: the instances without a sidecar, for a terminating gateway |
//! | `services` | list of [`Key`]: every service that there is |
//! | `intentions/NS/NAME` | list of [`mesh_model::Intention`] for that destination, passed on unread |
//!
//! A topic of a new kind is asked for only by agents that know it; a server that does not
//! refuses it by name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use mesh_model::{Action, Check, Key, Outbound, Status, TlsPolicy, VirtualAddress, Weights};
use serde::{Deserialize, Serialize};

/// What an agent may ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The mesh's defaults and names.
    Mesh,
    /// What the mesh trusts.
    Roots,
    /// How to call a service.
    Service(Key),
    /// A service's route.
    Route(Key),
    /// A service's instances.
    Endpoints(Key),
    /// Who may call a service.
    Intentions(Key),
    /// A service's virtual addresses.
    Virtual(Key),
    /// Whose virtual address this is. The IPv4 and the IPv6 form are one
    /// topic, which is written with the IPv4 form.
    Address(VirtualAddress),
    /// A gateway.
    Gateway(Key),
    /// A service's instances that have no sidecar.
    Outside(Key),
    /// Which services there are.
    Services,
    /// What nobody is to believe any more.
    Revocations,
}

/// A topic that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic `{0}` is not known")]
pub struct UnknownTopic(String);

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) = match self {
            Self::Mesh => return f.write_str("mesh"),
            Self::Roots => return f.write_str("roots"),
            Self::Services => return f.write_str("services"),
            Self::Revocations => return f.write_str("revocations"),
            Self::Service(key) => ("service", key),
            Self::Route(key) => ("route", key),
            Self::Endpoints(key) => ("endpoints", key),
            Self::Intentions(key) => ("intentions", key),
            Self::Virtual(key) => ("virtual", key),
            Self::Gateway(key) => ("gateway", key),
            Self::Outside(key) => ("outside", key),
            Self::Address(address) => return write!(f, "address/{address}"),
        };
        write!(f, "{kind}/{}/{}", key.namespace, key.name)
    }
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        let unknown = || UnknownTopic(text.chars().take(160).collect());
        match text {
            "mesh" => return Ok(Self::Mesh),
            "roots" => return Ok(Self::Roots),
            "services" => return Ok(Self::Services),
            "revocations" => return Ok(Self::Revocations),
            _ => {}
        }
        if let Some(address) = text.strip_prefix("address/") {
            return address.parse().map(Self::Address).map_err(|_| unknown());
        }
        let mut parts = text.split('/');
        let (Some(kind), Some(namespace), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let key = Key::new(namespace, name);
        key.check().map_err(|_| unknown())?;
        match kind {
            "service" => Ok(Self::Service(key)),
            "route" => Ok(Self::Route(key)),
            "endpoints" => Ok(Self::Endpoints(key)),
            "intentions" => Ok(Self::Intentions(key)),
            "virtual" => Ok(Self::Virtual(key)),
            "gateway" => Ok(Self::Gateway(key)),
            "outside" => Ok(Self::Outside(key)),
            _ => Err(unknown()),
        }
    }
}

/// The mesh's defaults and names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshFact {
    /// `<id>.mesh`.
    pub trust_domain: String,
    /// The server cluster's own name.
    pub datacenter: String,
    /// What holds where no intention does.
    pub default_intention: Action,
    /// What an intercepted application may call beside the mesh.
    #[serde(default, skip_serializing_if = "Outbound::is_any")]
    pub outbound: Outbound,
    /// With what sidecars make connections to each other.
    #[serde(default, skip_serializing_if = "TlsPolicy::is_default")]
    pub tls: TlsPolicy,
}

impl MeshFact {
    /// The SPIFFE ID of a service's instances (design: the identity noun).
    pub fn identity(&self, service: &Key) -> String {
        format!(
            "spiffe://{}/ns/{}/dc/{}/svc/{}",
            self.trust_domain, service.namespace, self.datacenter, service.name
        )
    }

    /// The name in the TLS hello between sidecars, of a service or a subset of
    /// it: `[<subset>.]<service>.<namespace>.<dc>.internal.<trust domain>`.
    pub fn sni(&self, service: &Key, subset: Option<&str>) -> String {
        let subset = subset.map(|name| format!("{name}.")).unwrap_or_default();
        format!(
            "{subset}{}.{}.{}.internal.{}",
            service.name, service.namespace, self.datacenter, self.trust_domain
        )
    }
}

/// What the mesh trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootsFact {
    /// The domain that they may speak for.
    pub trust_domain: String,
    /// Certificates, PEM.
    pub roots: Vec<String>,
    /// Which of them signs now: SHA-256 of its DER, in hex. Empty: not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub active: String,
    /// Within how many seconds leaves of other roots are to be replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reissue_seconds: u32,
}

/// What nobody is to believe any more.
///
/// Who reads it must understand all of it: what it does not know may be about
/// anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationsFact {
    /// Identities: SPIFFE IDs of which no leaf is good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<RevokedLeaf>,
}

impl RevocationsFact {
    /// The keys of the leaves, as far as they are known: SHA-256.
    ///
    /// # Errors
    /// When one is no hex; it says which.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, String> {
        let known = self.leaves.iter().filter(|leaf| !leaf.key.is_empty());
        let keys = known.map(|leaf| {
            let pairs = leaf.key.as_bytes().chunks(2);
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let key: Option<Vec<u8>> = pairs.map(byte).collect();
            key.ok_or_else(|| format!("{} is no key", leaf.key))
        });
        keys.collect()
    }
}

/// A leaf that is not good, nor any other of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedLeaf {
    /// Its serial number, as [`mesh_model::serial_number`] writes it.
    pub serial: String,
    /// SHA-256 of its public key (a DER SubjectPublicKeyInfo), in hex. Empty: it
    /// is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A service's virtual addresses, which are two forms of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualFact {
    /// Of 240.0.0.0/4.
    pub ip4: Ipv4Addr,
    /// Of `fd6d:6573:6876::/96`.
    pub ip6: Ipv6Addr,
}

impl From<VirtualAddress> for VirtualFact {
    fn from(address: VirtualAddress) -> Self {
        Self {
            ip4: address.ip4(),
            ip6: address.ip6(),
        }
    }
}

/// An instance of a service, as others call it: only those with a sidecar, and
/// native ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The instance's id, unique on its node.
    pub instance: String,
    /// Its node's id.
    pub node: String,
    /// The sidecar's address, or that of a native application.
    pub address: String,
    /// The inbound port of the same.
    pub port: u16,
    /// The SPIFFE ID that it must prove.
    pub identity: String,
    /// It is the application itself, which knows TLS and not `mesh/1`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
    /// The worst of its checks.
    pub status: Status,
    /// Its node is not heard: "unknown".
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Its part of the requests.
    pub weights: Weights,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its meta.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// An instance of a service that has no sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// The instance's id, unique on its node.
    pub instance: String,
    /// Its node's id.
    pub node: String,
    /// Where it listens.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The worst of its checks.
    pub status: Status,
    /// Its node is not heard: "unknown".
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Its part of the requests.
    pub weights: Weights,
}

/// A change of a check's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckChange {
    /// The instance's id.
    pub instance: String,
    /// The check's id.
    pub id: String,
    /// What it is now.
    pub check: Check,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn topics_read_and_print() {
        let key = Key::of("web");
        for topic in [
            Topic::Mesh,
            Topic::Roots,
            Topic::Service(key.clone()),
            Topic::Route(key.clone()),
            Topic::Endpoints(Key::new("team", "db")),
            Topic::Intentions(key.clone()),
            Topic::Virtual(key.clone()),
            Topic::Gateway(key.clone()),
            Topic::Outside(key),
            Topic::Services,
            Topic::Revocations,
            Topic::Address(VirtualAddress::nth(7).unwrap()),
        ] {
            assert_eq!(topic.to_string().parse::<Topic>().unwrap(), topic);
        }
        for text in [
            "",
            "service",
            "service/web",
            "service/a/*",
            "service/a/b/c",
            "x/a/b",
            "virtual/web",
            "virtual/a/*",
            "address",
            "address/",
            "address/a/b",
            "address/10.0.0.1",
            "address/240.0.0.0",
            "address/240.0.0.1/32",
            "address/fd6d:6573:6877::f000:1",
        ] {
            assert!(text.parse::<Topic>().is_err(), "{text}");
        }
        let six: Topic = "address/fd6d:6573:6876::f001:203".parse().unwrap();
        assert_eq!(six.to_string(), "address/240.1.2.3");
    }

    #[test]
    fn both_forms_of_an_address_are_told() {
        let fact = VirtualFact::from("240.1.2.3".parse::<VirtualAddress>().unwrap());
        let json = r#"{"ip4":"240.1.2.3","ip6":"fd6d:6573:6876::f001:203"}"#;
        assert_eq!(serde_json::to_string(&fact).unwrap(), json);
        assert_eq!(serde_json::from_str::<VirtualFact>(json).unwrap(), fact);
    }
}

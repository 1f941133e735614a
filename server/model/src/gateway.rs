//! A gateway: an edge of the mesh.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::default_namespace;
use crate::{Key, Protocol, is_default};

/// The `gateway` block. It says what the instances that are registered as this
/// gateway do; its name is also the service whose identity they prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GatewayForm", into = "GatewayForm")]
pub struct Gateway {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// What it does.
    pub edge: Edge,
    /// Free text for people.
    pub meta: BTreeMap<String, String>,
}

/// Which edge of the mesh a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Lets calls from outside in.
    Ingress(Ingress),
    /// Lets calls of the mesh out.
    Terminating(Terminating),
}

/// The kind of a gateway, as a registration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayKind {
    /// [`Ingress`].
    Ingress,
    /// [`Terminating`].
    Terminating,
}

/// Calls from outside, at ports of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// How it speaks TLS to the outside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: IngressTls,
    /// Where it listens; one for each port.
    #[serde(default, skip_serializing_if = "is_default")]
    pub listeners: Vec<Listener>,
}

/// How an ingress speaks TLS to the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressTls {
    /// Every listener does, with a certificate of the mesh's CA for the names
    /// that its services are called by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
}

/// A port at which calls come from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// What is spoken there: byte streams, all to one service; or requests,
    /// each to the service whose host it asks for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// The services behind it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: Vec<ExposedService>,
}

/// A service behind a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedService {
    /// The service; the name `*` is every one that speaks HTTP.
    pub service: Key,
    /// The hosts by which it is asked for: `shop.example.com`,
    /// `*.example.com`, or `*` for every host. Empty: `<service>.ingress.` and
    /// anything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hosts: Vec<String>,
}

/// Calls of the mesh to services outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminating {
    /// The services, whose identities it proves to their callers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: Vec<LinkedService>,
}

/// A service outside, and how the gateway speaks TLS to it; without a `ca_file`
/// it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedService {
    /// The service.
    pub service: Key,
    /// The file, on the gateway's machine, of the certificates that are
    /// trusted, PEM.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// The file of the certificate that the gateway shows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cert_file: String,
    /// The file of its key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key_file: String,
    /// The name that is asked for and that the certificate must have; empty:
    /// the address's host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sni: String,
}

impl Gateway {
    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// The kind with which its instances are registered.
    pub fn kind(&self) -> GatewayKind {
        match self.edge {
            Edge::Ingress(_) => GatewayKind::Ingress,
            Edge::Terminating(_) => GatewayKind::Terminating,
        }
    }

    /// What it lets in, if that is what it does.
    pub fn ingress(&self) -> Option<&Ingress> {
        match &self.edge {
            Edge::Ingress(ingress) => Some(ingress),
            Edge::Terminating(_) => None,
        }
    }

    /// The services outside that it stands for; none of an ingress.
    pub fn linked(&self) -> &[LinkedService] {
        match &self.edge {
            Edge::Ingress(_) => &[],
            Edge::Terminating(terminating) => &terminating.services,
        }
    }

    /// Whether it stands for this service outside.
    pub fn links(&self, service: &Key) -> bool {
        self.linked().iter().any(|one| one.service == *service)
    }
}

impl Ingress {
    /// The DNS names that its certificate must have, in order and each once;
    /// none when it speaks no TLS to the outside. `dc` is the mesh's
    /// datacenter. Of a service without hosts it is Consul's own default.
    pub fn dns_names(&self, dc: &str) -> Vec<String> {
        if !self.tls.enabled {
            return Vec::new();
        }
        let services = self.listeners.iter().flat_map(|it| &it.services);
        let mut names = std::collections::BTreeSet::from([
            "*.ingress.consul".to_owned(),
            format!("*.ingress.{dc}.consul").to_ascii_lowercase(),
        ]);
        let hosts = services.flat_map(|it| &it.hosts);
        names.extend(hosts.map(|host| host.to_ascii_lowercase()));
        names.into_iter().collect()
    }
}

impl GatewayKind {
    /// As a command line names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Terminating => "terminating",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ingress, Self::Terminating]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl LinkedService {
    /// Whether the gateway speaks TLS to it.
    pub fn is_tls(&self) -> bool {
        !self.ca_file.is_empty()
    }
}

/// Checks a host by which a service is asked for: a DNS name or an address,
/// without a port; `*` alone, or in place of the first label.
pub(crate) fn check_ingress_host(host: &str) -> Result<(), String> {
    let rest = match host {
        "*" => return Ok(()),
        host => host.strip_prefix("*.").unwrap_or(host),
    };
    let label = |label: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(fine)
    };
    match rest.len() <= 253 && rest.split('.').all(label) {
        true => Ok(()),
        false => Err(format!(
            "`{}` is not a host; write one such as `shop.example.com` or `*.example.com`, without a port",
            host.chars().take(64).collect::<String>()
        )),
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayForm {
    #[serde(default = "default_namespace")]
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    ingress: Option<Ingress>,
    #[serde(default, skip_serializing_if = "is_default")]
    terminating: Option<Terminating>,
    #[serde(default, skip_serializing_if = "is_default")]
    meta: BTreeMap<String, String>,
}

impl TryFrom<GatewayForm> for Gateway {
    type Error = String;

    fn try_from(form: GatewayForm) -> Result<Self, String> {
        let edge = match (form.ingress, form.terminating) {
            (Some(ingress), None) => Edge::Ingress(ingress),
            (None, Some(terminating)) => Edge::Terminating(terminating),
            (Some(_), Some(_)) => {
                return Err(format!(
                    "gateway {}: is both an ingress and terminating; make two of it",
                    form.name
                ));
            }
            (None, None) => {
                return Err(format!(
                    "gateway {}: is neither an ingress nor terminating; add one of the two",
                    form.name
                ));
            }
        };
        Ok(Self {
            namespace: form.namespace,
            name: form.name,
            edge,
            meta: form.meta,
        })
    }
}

impl From<Gateway> for GatewayForm {
    fn from(value: Gateway) -> Self {
        let (ingress, terminating) = match value.edge {
            Edge::Ingress(ingress) => (Some(ingress), None),
            Edge::Terminating(terminating) => (None, Some(terminating)),
        };
        Self {
            namespace: value.namespace,
            name: value.name,
            ingress,
            terminating,
            meta: value.meta,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_gateway_is_one_edge() {
        for (text, fine) in [
            (r#"{"name":"edge","ingress":{}}"#, true),
            (
                r#"{"name":"out","terminating":{"services":[{"service":{"name":"a"},"sni":"b"}]}}"#,
                true,
            ),
            (r#"{"name":"edge"}"#, false),
            (r#"{"name":"edge","mesh":{}}"#, false),
            (r#"{"name":"edge","ingress":{},"terminating":{}}"#, false),
            (r#"{"name":"edge","ingress":{"sds":{}}}"#, false),
        ] {
            let read = serde_json::from_str::<Gateway>(text);
            assert_eq!(read.is_ok(), fine, "{text}: {read:?}");
            if let Ok(read) = read {
                let written = serde_json::to_string(&read).unwrap();
                assert_eq!(serde_json::from_str::<Gateway>(&written).unwrap(), read);
            }
        }
    }

    #[test]
    fn hosts() {
        for good in ["*", "a", "*.example.com", "shop.example.com", "10.0.0.1"] {
            assert_eq!(check_ingress_host(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "example.*",
            "*-a.example.com",
            "a:80",
            "a..b",
            "**",
            "*.",
        ] {
            assert!(check_ingress_host(bad).is_err(), "{bad}");
        }
    }
}

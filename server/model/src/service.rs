//! A service: a name, and how to call it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::default_namespace;
use crate::{Duration, Key, is_default};

/// The `service` block. A service that is registered exists without one, with
/// what [`Service::named`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// What its instances speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// How an instance is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancer: LoadBalancer,
    /// How long to wait for a connection to an instance; `None` is 5 s.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connect_timeout: Option<Duration>,
    /// The whole of a request, retries included, where no route rule says
    /// otherwise; zero is none. `None` is 15 s (as Consul's), but none for
    /// gRPC, whose calls carry their own deadline and may stream for hours.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request_timeout: Option<Duration>,
    /// When an instance that fails is left alone for a while.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Named parts of the service's instances.
    #[serde(default, skip_serializing_if = "is_default")]
    pub subsets: BTreeMap<String, Subset>,
    /// The subset that "the whole service" means; `None`: all instances.
    #[serde(default, skip_serializing_if = "is_default")]
    pub default_subset: Option<String>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
}

impl Service {
    /// The service of that key with every default.
    pub fn named(key: &Key) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            protocol: Protocol::default(),
            load_balancer: LoadBalancer::default(),
            connect_timeout: None,
            request_timeout: None,
            outlier_detection: None,
            subsets: BTreeMap::new(),
            default_subset: None,
            meta: BTreeMap::new(),
        }
    }

    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// How long to wait for a connection to an instance.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(5))
    }

    /// The whole of a request where no rule says otherwise; zero is no limit.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout.unwrap_or(match self.protocol {
            Protocol::Grpc => Duration::ZERO,
            _ => Duration::from_secs(15),
        })
    }
}

/// What the bytes of a service are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Byte streams; routes and L7 permissions do not apply.
    #[default]
    Tcp,
    /// HTTP/1.1 (WebSocket included) and HTTP/2, as the caller speaks; the
    /// application is spoken to in HTTP/1.1.
    Http,
    /// HTTP/2 to the application (prior knowledge, RFC 9113, 3.3).
    Http2,
    /// gRPC: HTTP/2, with retries by gRPC status.
    Grpc,
}

impl Protocol {
    /// Whether requests can be seen: routes and L7 permissions apply.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Http, Self::Http2, Self::Grpc]
            .into_iter()
            .find(|p| p.as_str() == text)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an instance is chosen for a request (or for a TCP connection).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancer {
    /// Each in turn, by weight.
    RoundRobin,
    /// Of two drawn by weight, the one with fewer requests under way.
    #[default]
    LeastRequest,
    /// Drawn by weight.
    Random,
}

impl LoadBalancer {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::Random => "random",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::RoundRobin, Self::LeastRequest, Self::Random]
            .into_iter()
            .find(|p| p.as_str() == text)
    }
}

/// When an instance that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierDetection {
    /// So many 5xx answers in a row eject an instance; 1 or more.
    pub consecutive_5xx: u32,
    /// How long the first ejection lasts; each further one lasts this much
    /// longer. `None` is 30 s.
    #[serde(default, skip_serializing_if = "is_default")]
    pub base_ejection_time: Option<Duration>,
    /// At most this part of the instances is ejected at once, 1 to 100 (one
    /// always may be). `None` is 50.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_ejection_percent: Option<u32>,
}

/// A named part of a service's instances: those for which all of this holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Each of these is in the instance's meta, with this value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Each of these is a tag of the instance.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Only instances whose checks all pass, never `warning` ones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only_passing: bool,
}

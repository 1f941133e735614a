//! What an agent tells a proxy: everything that it needs, compiled.
//!
//! The proxy knows nothing of services, subsets and routes as operators write
//! them: wiring turned them into listeners and clusters. The same JSON stands
//! in the stream, in the file of `mesh-proxy -static`, and at `/config` of the
//! admin listener. It holds no secret.

use std::collections::BTreeMap;

use mesh_model::{
    Duration, ExposePath, Key, LoadBalancer, OutlierDetection, Protocol, RequestMatch, Retries,
    TlsPolicy, VirtualAddress,
};
use mesh_policy::{Feature, Features, Policy, PolicyForm};
use serde::{Deserialize, Serialize};

/// The config of one proxy.
///
/// Its policy is read on its own ([`ProxyConfig::policy_of`]) and always taken,
/// since what is unknown in it denies. The rest is strict: a proxy that meets
/// an unknown field keeps its last good config and says so in its ack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// The proxy's id.
    pub proxy: String,
    /// The service whose sidecar it is.
    pub service: Key,
    /// The SPIFFE ID that its leaf must carry.
    pub identity: String,
    /// The domain whose identities it accepts.
    pub trust_domain: String,
    /// The node's name, for logs and traces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// With what it makes connections to other sidecars, and takes theirs.
    #[serde(default, skip_serializing_if = "TlsPolicy::is_default")]
    pub tls: TlsPolicy,
    /// Who may call. Wrong or missing: nobody.
    #[serde(default)]
    pub policy: PolicyForm,
    /// Who may call the services that a terminating gateway stands for; a
    /// service that is not among them may be called by nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ServicePolicy>,
    /// Where other sidecars call, and what stands behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Where the application calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<Outbound>,
    /// Where other sidecars call, of a terminating gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<Terminating>,
    /// Where calls come from outside the mesh: of an ingress gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressListener>,
    /// The DNS names that the proxy's leaf must have: for a leaf without one of
    /// them another is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// How the application's calls to any address are taken; absent: they are
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent: Option<Transparent>,
    /// Paths that are open without mTLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<ExposePath>,
    /// Instances to choose from, by the name that routes use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, Cluster>,
}

impl ProxyConfig {
    /// The policy alone, of a config that may hold what is not known here.
    /// `None` when even that cannot be read: then nobody may call.
    pub fn policy_of(json: &[u8]) -> Option<PolicyForm> {
        #[derive(Deserialize)]
        struct Only {
            policy: PolicyForm,
        }
        serde_json::from_slice::<Only>(json)
            .ok()
            .map(|it| it.policy)
    }

    /// The same of the policies of services: each that can be read. One that
    /// cannot is not there, and denies.
    pub fn policies_of(json: &[u8]) -> Vec<ServicePolicy> {
        #[derive(Deserialize)]
        struct Only {
            #[serde(default)]
            policies: Vec<serde_json::Value>,
        }
        let only = serde_json::from_slice::<Only>(json);
        let policies = only.map(|it| it.policies).unwrap_or_default();
        let read = policies.into_iter().map(serde_json::from_value);
        read.filter_map(Result::ok).collect()
    }

    /// The features that a proxy must have to run it. One without them keeps
    /// its last good config. What the *policy* needs is not among them: the
    /// policy is always taken, and what is unknown in it denies.
    pub fn needs(&self) -> Vec<Feature> {
        let rules = || self.outbound.iter().flat_map(|one| &one.rules);
        let mut needs = Vec::new();
        if rules().any(|rule| rule.retries.is_some()) {
            needs.push(Feature::Retries);
        }
        if rules()
            .flat_map(|rule| &rule.matches)
            .any(|one| !one.query.is_empty())
        {
            needs.push(Feature::Query);
        }
        if !self.ingress.is_empty() {
            needs.push(Feature::Ingress);
        }
        if self.terminating.is_some() {
            needs.push(Feature::Terminating);
        }
        if self.transparent.is_some() {
            needs.push(Feature::Transparent);
        }
        needs
    }
}

/// How the application's calls to any address are taken: the kernel redirects
/// them to the sidecar, which goes by where they were going.
///
/// A call to a virtual address is one of the service that has it: the
/// [`Outbound`] with that [`Bind::Virtual`]. What the application asks for first
/// (a name, or a virtual address) the sidecar tells the agent, and the next
/// config answers: in `names`, and with the outbound; or in `absent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transparent {
    /// Where the kernel sends connections, on 127.0.0.1 and ::1.
    pub outbound_port: u16,
    /// Where the kernel sends DNS, UDP and TCP, on the same.
    pub dns_port: u16,
    /// Whether addresses outside the mesh are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mesh_only: bool,
    /// The services that were asked for, as far as there is an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameAnswer>,
    /// Virtual addresses that were asked for and that no service has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<VirtualAddress>,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameAnswer {
    /// The service.
    pub service: Key,
    /// Its virtual address; absent: there is no such service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<VirtualAddress>,
}

/// Where other sidecars call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// The address to bind: `0.0.0.0`.
    pub address: String,
    /// The port to bind.
    pub port: u16,
    /// What the application speaks.
    pub protocol: Protocol,
    /// The application, `host:port`.
    pub application: String,
    /// How long to wait for a connection to it.
    pub connect_timeout: Duration,
}

/// Where the application calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// The service that it calls here.
    pub service: Key,
    /// The address or socket to bind.
    pub bind: Bind,
    /// What the application speaks here.
    pub protocol: Protocol,
    /// The rules, in order; the first that matches decides. Always empty for
    /// byte streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The cluster for what no rule matches, and for byte streams.
    pub cluster: String,
    /// The whole of a request where no rule says otherwise; zero: no limit.
    pub timeout: Duration,
}

/// An address or socket to bind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Bind {
    /// A TCP port.
    Tcp {
        /// `127.0.0.1`.
        address: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        path: String,
        /// Its mode, octal; empty: as the umask makes it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        mode: String,
    },
    /// Nothing is bound: what comes to [`Transparent::outbound_port`] and was
    /// going to this address, whatever the port.
    Virtual {
        /// The address, in both families.
        address: VirtualAddress,
    },
    /// Nothing is bound: what comes to the [`IngressListener`] of that port and
    /// asks for one of these hosts; all of it where that carries byte streams.
    Ingress {
        /// The port.
        port: u16,
        /// Each is a name; `*.` and a name; a name, `.` and `*`; or `*` for what
        /// no other is for. The most exact counts. Empty for byte streams.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<String>,
    },
}

/// Who may call a service that a terminating gateway stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePolicy {
    /// The service.
    pub service: Key,
    /// Who may.
    pub policy: PolicyForm,
}

/// Where other sidecars call services outside the mesh: which is meant says the
/// name in the TLS hello. The gateway proves its own identity, and each
/// service's own policy decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminating {
    /// Where it binds.
    pub bind: Vec<BindAddress>,
    /// The services.
    pub services: Vec<OutsideService>,
}

/// An address to bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindAddress {
    /// An IP.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// A service outside the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideService {
    /// The service.
    pub service: Key,
    /// What it speaks.
    pub protocol: Protocol,
    /// How long to wait for a connection to it.
    pub connect_timeout: Duration,
    /// How TLS is spoken to it; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OriginTls>,
    /// Its instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<OutsideInstance>,
}

/// How TLS is spoken to a service outside: files are the gateway's machine's,
/// and are read when a config with another form of this comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginTls {
    /// Path of what is trusted, PEM.
    pub ca_file: String,
    /// Path of the certificate that is shown, PEM; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cert_file: String,
    /// Path of its key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_file: String,
    /// The name that is asked for and must be in the certificate; empty: the
    /// host of the address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sni: String,
}

/// An instance of a service outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideInstance {
    /// `<node>/<instance>`.
    pub id: String,
    /// Its address: an IP, or a name for the resolver.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its part, relative to the others'; more than 0.
    pub weight: u32,
    /// Whether it is used.
    pub health: Health,
}

/// Where calls come from outside the mesh. What is behind it are the outbounds
/// with its [`Bind::Ingress`]: several, each with its hosts, for requests; one
/// for byte streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressListener {
    /// The addresses to bind, IPs.
    pub addresses: Vec<String>,
    /// The port; unique among them.
    pub port: u16,
    /// Byte streams, or requests.
    pub protocol: Protocol,
    /// Whether it speaks TLS to the outside, with the proxy's own leaf.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, for logs and metrics.
    pub name: String,
    /// Alternatives; empty: every request.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RequestMatch>,
    /// Where it goes; never empty.
    pub to: Vec<WeightedCluster>,
    /// The whole of a request, retries included; zero: no limit.
    pub timeout: Duration,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

/// A cluster and its part of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedCluster {
    /// The cluster's name.
    pub cluster: String,
    /// Its part, relative to the others'; 0: none.
    pub weight: u32,
}

/// Instances to choose from: a service or a subset of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The service.
    pub service: Key,
    /// The subset, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The name in the TLS hello:
    /// `[<subset>.]<service>.<namespace>.<dc>.internal.<trust domain>`.
    pub sni: String,
    /// What the service speaks.
    pub protocol: Protocol,
    /// How an instance is chosen.
    pub load_balancer: LoadBalancer,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// When an instance that fails is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// The instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `<node>/<instance>`.
    pub id: String,
    /// Its sidecar's address, or its own where it is native: an IP, or a name
    /// for the resolver.
    pub address: String,
    /// The inbound port of the same.
    pub port: u16,
    /// The SPIFFE ID that it must prove.
    pub identity: String,
    /// It is an application that knows TLS and not `mesh/1`: each byte stream
    /// is a connection, and none names a protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
    /// Its part, relative to the others'.
    pub weight: u32,
    /// Whether it is used.
    pub health: Health,
}

/// Whether an instance is used. Critical ones are not in the list at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It is.
    Healthy,
    /// When no healthy one is left: its node is not heard.
    Unknown,
}

/// The file of `mesh-proxy -static`: a config, and where the certificates are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFile {
    /// The config.
    pub config: ProxyConfig,
    /// Path of the leaf and what stands between it and the root, PEM.
    pub chain: String,
    /// Path of the leaf's key, PEM.
    pub key: String,
    /// Path of what is trusted, PEM.
    pub roots: String,
    /// Where the admin listener binds, `host:port`; empty: nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub admin: String,
}

/// For fuzzing: what a proxy does with a config that comes.
///
/// # Panics
/// When what it must never do happens: what is read strictly and what is read
/// of the policy alone disagree, or a part that is not understood is not denied.
pub fn fuzz(data: &[u8]) {
    let strict = serde_json::from_slice::<ProxyConfig>(data);
    let policy = ProxyConfig::policy_of(data);
    if let Ok(config) = &strict {
        let _ = config.needs();
        if let Some(policy) = &policy {
            assert_eq!(config.policy, *policy);
        }
        assert_eq!(config.policies, ProxyConfig::policies_of(data));
    }
    let (compiled, denied) = Policy::compile(&policy.unwrap_or_default(), &Features::default());
    // One that can be read so far governs its own pair, unless a more exact
    // one does; where not even the pair can be read, nobody may call.
    if denied.iter().any(|one| one.pair.is_none()) {
        assert!(!compiled.stream(&Key::of("anyone")).is_allowed());
    }
}

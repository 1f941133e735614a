//! Consul's config entries: a second door to the same model.
//!
//! service-defaults and service-resolver are parts of a `service`,
//! service-router and service-splitter of a `route`, and service-intentions is
//! one `intention` for each source; ingress-gateway and terminating-gateway are
//! each a `gateway`. An entry is kept as it was written; what it
//! means is a [`Fragment`], and [`compile`] puts the fragments of a service
//! together, a pure function of all its entries. So reading an entry gives back
//! what was written, and deleting one takes away what it brought and no more.
//!
//! A field that we do not have is refused by name: an entry that is half
//! understood is worse than one that is not taken.

mod compile;
mod filter;
mod gateways;
mod intentions;
mod matching;
mod parse;
mod service;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;

pub use compile::compile;
use serde::Serialize;

use crate::diagnostic::Context;
use crate::fields::{Fields, Style};
use crate::tree::{Item, Node, Value};
use crate::words::suggest;
use crate::{
    DEFAULT_NAMESPACE, Destination, Diagnostics, Duration, Edge, Intention, Key, LoadBalancer,
    Located, NameError, Protocol, Rule, Subset,
};

/// A kind of Consul's that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsulKind {
    /// The protocol of a service.
    ServiceDefaults,
    /// Subsets, timeouts and load balancing of a service.
    ServiceResolver,
    /// The rules of a service's route.
    ServiceRouter,
    /// The last rule of a service's route.
    ServiceSplitter,
    /// Who may call a service.
    ServiceIntentions,
    /// A gateway for calls from outside.
    IngressGateway,
    /// A gateway for calls to the outside.
    TerminatingGateway,
}

impl ConsulKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ServiceDefaults,
        Self::ServiceResolver,
        Self::ServiceRouter,
        Self::ServiceSplitter,
        Self::ServiceIntentions,
        Self::IngressGateway,
        Self::TerminatingGateway,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceDefaults => "service-defaults",
            Self::ServiceResolver => "service-resolver",
            Self::ServiceRouter => "service-router",
            Self::ServiceSplitter => "service-splitter",
            Self::ServiceIntentions => "service-intentions",
            Self::IngressGateway => "ingress-gateway",
            Self::TerminatingGateway => "terminating-gateway",
        }
    }

    /// Whether it is the entry of a gateway.
    pub fn is_gateway(self) -> bool {
        matches!(self, Self::IngressGateway | Self::TerminatingGateway)
    }

    /// Whether this is a kind of Consul's that we do not take yet.
    pub fn is_later(text: &str) -> bool {
        LATER_KINDS.contains(&text)
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for ConsulKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Consul's kinds that we do not take yet.
const LATER_KINDS: [&str; 14] = [
    "ai-gateway",
    "api-gateway",
    "control-plane-request-limit",
    "exported-services",
    "file-system-certificate",
    "http-route",
    "inference-gateway",
    "inline-certificate",
    "jwt-provider",
    "mesh",
    "proxy-defaults",
    "rate-limit",
    "sameness-group",
    "tcp-route",
];

/// One of Consul's config entries, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigEntry {
    /// Its kind.
    pub kind: ConsulKind,
    /// The namespace; `default` when none is written.
    pub namespace: String,
    /// The name: the service's; of intentions the destination's, perhaps `*`.
    pub name: String,
    /// The entry as JSON, its keys and values as they were written.
    pub raw: serde_json::Value,
    /// What it means.
    pub fragment: Fragment,
}

impl ConfigEntry {
    /// The key of what it is about.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}

/// As errors name it: `service-router web`.
impl fmt::Display for ConfigEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key())
    }
}

/// What one entry says of its service.
#[derive(Clone, Debug, PartialEq)]
pub enum Fragment {
    /// Of service-defaults.
    Defaults {
        /// What the instances speak.
        protocol: Protocol,
        /// The entry's meta.
        meta: BTreeMap<String, String>,
    },
    /// Of service-resolver.
    Resolver {
        /// How long to wait for a connection.
        connect_timeout: Option<Duration>,
        /// The whole of a request.
        request_timeout: Option<Duration>,
        /// The subset that "the service" means.
        default_subset: Option<String>,
        /// The subsets.
        subsets: BTreeMap<String, Subset>,
        /// How an instance is chosen, if it says.
        load_balancer: Option<LoadBalancer>,
    },
    /// Of service-router: its rules. A rule without a destination goes to the
    /// service as a whole, hence through the splitter if there is one.
    Router(Vec<Rule>),
    /// Of service-splitter.
    Splitter(Vec<Destination>),
    /// Of service-intentions: one for each source.
    Intentions(Vec<Intention>),
    /// Of ingress-gateway and terminating-gateway.
    Gateway(Edge),
}

/// Whether a file is one of Consul's entries rather than one of ours: whether
/// it has a kind at its top. A guess, so that one command can take both.
pub fn is_config_entry(text: &str) -> bool {
    let context = Context::new("", text);
    match parse::parse(&context) {
        Some(items) => items.iter().any(is_kind),
        None => text.trim_start().starts_with('{'),
    }
}

fn is_kind(item: &Item) -> bool {
    item.name.eq_ignore_ascii_case("kind") && !item.is_block
}

/// One of Consul's config entries, in HCL or JSON; or everything that is wrong
/// with it.
pub fn parse_config_entry(file: &str, text: &str) -> Result<ConfigEntry, Diagnostics> {
    parse_located(file, text).map(|located| located.value)
}

/// The same with its place, and the places of its routes, splits, sources and
/// permissions under the paths of the entries that [`compile`] makes of them.
pub fn parse_located(file: &str, text: &str) -> Result<Located<ConfigEntry>, Diagnostics> {
    let context = Context::new(file, text);
    let located = parse::parse(&context).and_then(|items| {
        let entry = entry(&context, &items)?;
        let kind = items.iter().find(|item| is_kind(item));
        let at = kind.map_or(0, |item| item.at);
        Some(context.locate(at, "", entry))
    });
    finish(context, located)
}

/// The same of a value that was read from JSON already, such as
/// [`ConfigEntry::raw`]; the mistakes have no places, but their paths.
pub fn from_json(value: &serde_json::Value) -> Result<ConfigEntry, Diagnostics> {
    let context = Context::new("entry", "");
    let items = match node(value, 0).map(|node| node.value) {
        Some(Value::Object(items)) => items,
        _ => {
            context.report(0, "a config entry must be an object", None);
            Vec::new()
        }
    };
    let entry = entry(&context, &items);
    finish(context, entry)
}

fn finish<T>(context: Context<'_>, entry: Option<T>) -> Result<T, Diagnostics> {
    let entry = context.not_lost(0, 0, entry);
    match context.finish(entry)? {
        Some(entry) => Ok(entry),
        None => Err(Diagnostics::default()), // not reached: a loss was reported
    }
}

fn node(value: &serde_json::Value, depth: usize) -> Option<Node> {
    use serde_json::Value as Json;
    if depth > 128 {
        return None;
    }
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(i128::from(value)),
            (_, Some(value)) => Value::Int(i128::from(value)),
            _ => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(values) => {
            let nodes = values.iter().map(|value| node(value, depth + 1));
            Value::List(nodes.collect::<Option<_>>()?)
        }
        Json::Object(map) => {
            let items = map.iter().map(|(name, value)| {
                Some(Item {
                    name: name.clone(),
                    at: 0,
                    labels: Vec::new(),
                    value: node(value, depth + 1)?,
                    is_block: false,
                })
            });
            Value::Object(items.collect::<Option<_>>()?)
        }
    };
    Some(Node { at: 0, value })
}

fn entry(context: &Context<'_>, items: &[Item]) -> Option<ConfigEntry> {
    let mut head = Fields::new(context, Style::Consul, "", 0, items);
    let written = head.text("Kind");
    let written = head.required("Kind", written, "Kind = \"service-defaults\"");
    let kind = written.and_then(|(text, at)| kind(context, text, at));
    let name = head.text("Name");
    let name = head.required("Name", name, "Name = \"web\"");
    let namespace = head.string("Namespace");
    let (kind, (name, at)) = (kind?, name?);
    let key = Key::new(
        namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        name,
    );
    let path = format!("{kind} {key}");
    let checked = match kind {
        ConsulKind::ServiceIntentions => key.check_pattern(),
        _ => key.check(),
    };
    if let Err(error) = checked {
        context.report(at, format!("{path}: {error}"), None);
    }
    let mut fields = Fields::new(context, Style::Consul, path, 0, items);
    fields.ignore(&[
        "Kind",
        "Name",
        "Namespace",
        "CreateIndex",
        "ModifyIndex",
        "Hash",
    ]);
    partition(&mut fields);
    let fragment = match kind {
        ConsulKind::ServiceDefaults => service::defaults(&mut fields),
        ConsulKind::ServiceResolver => service::resolver(&mut fields),
        ConsulKind::ServiceRouter => Fragment::Router(traffic::router(&mut fields, &key)),
        ConsulKind::ServiceSplitter => Fragment::Splitter(traffic::splitter(&mut fields, &key)),
        ConsulKind::ServiceIntentions => {
            Fragment::Intentions(intentions::intentions(&mut fields, &key))
        }
        ConsulKind::IngressGateway => gateways::ingress(&mut fields, &key),
        ConsulKind::TerminatingGateway => gateways::terminating(&mut fields, &key),
    };
    if kind != ConsulKind::ServiceDefaults {
        let _ = fields.map("Meta");
    }
    fields.finish();
    Some(ConfigEntry {
        kind,
        namespace: key.namespace,
        name: key.name,
        raw: Value::Object(items.to_vec()).to_json(),
        fragment,
    })
}

fn kind(context: &Context<'_>, text: &str, at: usize) -> Option<ConsulKind> {
    let kind = ConsulKind::parse(text);
    if kind.is_none() {
        let shown: String = text.chars().take(64).collect();
        if ConsulKind::is_later(text) {
            context.report(at, format!("kind `{shown}` is not supported yet"), None);
        } else {
            let known = suggest(text, ConsulKind::ALL.map(ConsulKind::as_str));
            let hint = match known {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    "use service-defaults, service-resolver, service-router, service-splitter, \
                     service-intentions, ingress-gateway or terminating-gateway"
                        .to_owned()
                }
            };
            context.report(at, format!("kind `{shown}` is not known"), Some(hint));
        }
    }
    kind
}

/// Takes `Partition` if it is the one that there is.
fn partition(fields: &mut Fields<'_>) {
    if let Some((text, at)) = fields.text("Partition")
        && text != DEFAULT_NAMESPACE
    {
        fields.wrong(at, "Partition", format!("`{text}` is not supported yet"));
    }
}

/// A service that is named beside its namespace; `None` is the entry's own.
fn other(fields: &mut Fields<'_>, own: &Key) -> Option<Key> {
    let named = fields.text("Service");
    let namespace = fields.text("Namespace");
    partition(fields);
    let at = named.or(namespace).map(|(_, at)| at)?;
    let key = Key::new(
        namespace.map_or(own.namespace.as_str(), |(text, _)| text),
        named.map_or(own.name.as_str(), |(text, _)| text),
    );
    let checked: Result<(), NameError> = key.check();
    if let Err(error) = checked {
        fields.wrong(at, "Service", error);
    }
    (key != *own).then_some(key)
}

#[cfg(test)]
mod tests;

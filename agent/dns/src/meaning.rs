//! What a name means to the mesh.
//!
//! Consul's forms, as far as the mesh has what they speak of:
//!
//! - `SERVICE.virtual.consul`, `SERVICE.service.consul`
//! - `_SERVICE._tcp.service.consul`, `_SERVICE._tcp.consul` (RFC 2782)
//! - each with `NAMESPACE.ns`, `DATACENTER.dc`, or `DATACENTER` alone before
//!   `consul`, in this order; the datacenter must be this one
//! - `SERVICE`, one label: the name as it stands in a URL
//!
//! The mesh's names are lower case, as DNS has no case. All else below `consul`
//! is ours, and is not there: also a tag, since who asks for one wants some
//! instances of a service, and a virtual address leads to all of them.

use mesh_model::{DEFAULT_NAMESPACE, Key};

use crate::Name;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A service. If it is not there, the name is not.
    Service(Key),
    /// A service, if there is one of this name; else it is none of ours.
    Short(Key),
    /// `consul` itself.
    Zone,
    /// A name that only others are below: it is there, and has no records.
    Between,
    /// Ours, and not there.
    Absent,
    /// None of ours.
    Other,
}

/// What a name means, where this is the datacenter `dc`.
#[must_use]
pub fn meaning(name: &Name, dc: &str) -> Meaning {
    let Some(labels) = labels(name) else {
        // What is no text may still be below our zone.
        return match is_ours(name) {
            true => Meaning::Absent,
            false => Meaning::Other,
        };
    };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        ["consul"] => Meaning::Zone,
        // No service: it is in `/etc/hosts`, and resolvers know it (RFC 6761).
        ["localhost"] => Meaning::Other,
        [one] => service(DEFAULT_NAMESPACE, one).map_or(Meaning::Other, Meaning::Short),
        [rest @ .., "consul"] => below(rest, dc),
        _ => Meaning::Other,
    }
}

/// A name's labels in lower case; `None`: one of them is no text.
pub(crate) fn labels(name: &Name) -> Option<Vec<String>> {
    name.labels()
        .map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase()))
        .collect()
}

/// Whether a name is `consul`, or below it.
pub(crate) fn is_ours(name: &Name) -> bool {
    let last = name.labels().last();
    last.is_some_and(|label| label.eq_ignore_ascii_case(b"consul"))
}

/// What stands before `consul`.
fn below(labels: &[&str], dc: &str) -> Meaning {
    let (labels, namespace) = match place(labels, dc) {
        Some(found) => found,
        None => return Meaning::Absent,
    };
    let found = match labels {
        ["virtual" | "service"] | [] => return Meaning::Between,
        [name, "virtual" | "service"] => service(namespace, name),
        [name, "_tcp", "service"] | [name, "_tcp"] => name
            .strip_prefix('_')
            .and_then(|name| service(namespace, name)),
        _ => None,
    };
    found.map_or(Meaning::Absent, Meaning::Service)
}

/// Takes namespace and datacenter off the end. `None`: another datacenter.
pub(crate) fn place<'a, 'b>(labels: &'a [&'b str], dc: &str) -> Option<(&'a [&'b str], &'b str)> {
    let ours = |name: &str| name.eq_ignore_ascii_case(dc);
    let rest = match labels {
        [rest @ .., name, "dc"] => ours(name).then_some(rest)?,
        [.., "virtual" | "service" | "connect" | "addr" | "ns"] => labels,
        [.., last] if last.starts_with('_') => labels,
        [rest @ .., name] => ours(name).then_some(rest)?,
        [] => labels,
    };
    Some(match rest {
        [rest @ .., namespace, "ns"] => (rest, namespace),
        _ => (rest, DEFAULT_NAMESPACE),
    })
}

pub(crate) fn service(namespace: &str, name: &str) -> Option<Key> {
    let key = Key::new(namespace, name);
    key.check().is_ok().then_some(key)
}

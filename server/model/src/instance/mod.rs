//! An agent's instance files: `instance "name"` blocks to registrations.
//!
//! The block is what a Nomad job's service block is, so that a service moves
//! from one to the other by copying it; every default is filled in here as
//! Consul's agent fills it in, so that nothing after this asks what is meant by
//! a key that is not there.

mod check;
mod proxy;

use std::collections::HashMap;

pub use check::sidecar_checks;

use crate::diagnostic::Context;
use crate::fields::Fields;
use crate::hcl::{enter, exact, with_namespace};
use crate::tree::{self, Item};
use crate::{CheckKind, Diagnostics, Key, Located, Registration, Sidecar, TaggedAddress, Weights};

/// The registrations of one file, in its order; or everything that is wrong
/// with it.
///
/// A sidecar for which the file names no port has port 0, and the agent picks
/// one: see [`set_sidecar_port`].
pub fn parse_instances(file: &str, text: &str) -> Result<Vec<Located<Registration>>, Diagnostics> {
    let context = Context::new(file, text);
    let mut all = Vec::new();
    let mut first: HashMap<String, String> = HashMap::new();
    for item in tree::read(&context) {
        let before = context.count();
        let read = instance(&context, &item);
        let Some(registration) = context.not_lost(item.at, before, read) else {
            continue;
        };
        let id = registration.id.clone();
        match first.get(&id) {
            Some(place) => {
                let message = format!("instance {id}: is defined twice; the first is at {place}");
                let hint = Some("give one of the two an `id` of its own".to_owned());
                context.report(item.at, message, hint);
            }
            None => {
                first.insert(id, context.source.named(item.at));
                all.push(context.source.locate(item.at, registration));
            }
        }
    }
    context.finish(all)
}

/// Gives a sidecar the port that the agent picked, and its checks that had none.
pub fn set_sidecar_port(sidecar: &mut Sidecar, port: u16) {
    sidecar.port = port;
    for check in &mut sidecar.checks {
        if let CheckKind::Tcp { address } | CheckKind::Grpc { address, .. } = &mut check.kind
            && let Some(host) = address.strip_suffix(":0")
        {
            *address = format!("{host}:{port}");
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn instance(context: &Context<'_>, item: &Item) -> Option<Registration> {
    if !item.is_block || item.name != "instance" {
        let hint = match item.name.as_str() {
            "mesh" | "service" | "route" | "intention" | "gateway" if item.is_block => {
                "an agent's files have `instance` blocks; write this with `meshctl apply`"
            }
            _ => "write `instance \"name\" { … }`",
        };
        let what = if item.is_block { "block" } else { "key" };
        let message = format!("unknown {what} `{}`", item.name);
        context.report(item.at, message, Some(hint.to_owned()));
        return None;
    }
    let [label] = item.labels.as_slice() else {
        let hint = Some("write `instance \"name\" { … }`".to_owned());
        context.report(
            item.at,
            "instance: must have one label, the service's name",
            hint,
        );
        return None;
    };
    let path = format!("instance {}", label.text);
    let key = exact(context, &path, &label.text, label.at);
    let mut fields = enter(context, item, path)?;
    let key = with_namespace(&mut fields, key, label);
    let name = key.as_ref().map_or(label.text.as_str(), |key| &key.name);
    let registration = registration(fields, name);
    key.map(|Key { namespace, name }| Registration {
        namespace,
        service: name,
        ..registration
    })
}

/// Everything but the key.
fn registration(mut fields: Fields<'_>, name: &str) -> Registration {
    let id = id(&mut fields).unwrap_or_else(|| name.to_owned());
    let address = fields.parsed("address", host);
    let port = fields.port("port", 0).unwrap_or_default();
    let tags = fields.strings("tags");
    let meta = fields.map("meta");
    let weights = fields.block("weights").map(weights).unwrap_or_default();
    let tagged = fields.labelled("tagged_address");
    let tagged_addresses = tagged
        .into_iter()
        .filter_map(|(label, inner)| Some((label.text.clone(), tagged_address(inner)?)))
        .collect();
    let of = check::Of {
        id: &id,
        name,
        host: address.as_deref().unwrap_or("127.0.0.1"),
        port,
        port_is_picked: false,
    };
    let checks = check::checks(&mut fields, &of);
    let sidecar = fields
        .block("connect")
        .and_then(|inner| proxy::connect(inner, &of));
    if let Some(sidecar) = &sidecar
        && sidecar.id == id
    {
        let message = format!("the sidecar's id is that of its instance, `{id}`");
        fields.wrong(fields.at(), "connect", message);
    }
    fields.finish();
    Registration {
        id,
        namespace: String::new(),
        service: String::new(),
        address,
        port,
        tagged_addresses,
        tags,
        meta,
        weights,
        checks,
        gateway: None,
        sidecar,
        // Its certificate needs the token of a workload, which only Nomad's have.
        native: false,
    }
}

/// An id: it stands in the agent's paths and in the ids of checks.
fn id(fields: &mut Fields<'_>) -> Option<String> {
    fields.parsed("id", |text| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        match !text.is_empty() && text.len() <= 256 && text.chars().all(fine) {
            true => Ok(text.to_owned()),
            false => Err("must be 1 to 256 letters, digits, `-`, `_`, `.` and `:`"),
        }
    })
}

/// Checks what is written where others are told to connect: an IP address or a DNS name, without
/// a port.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn check_host(text: &str) -> Result<(), String> {
    host(text).map(drop)
}

/// An address or a DNS name.
fn host(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let is_host = !text.is_empty() && text.len() <= 253 && text.chars().all(fine);
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    match is_address || (is_host && !text.contains(':')) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{}` is not an address; write one such as `10.0.0.1`, without a port",
            text.chars().take(64).collect::<String>()
        )),
    }
}

fn weights(mut fields: Fields<'_>) -> Weights {
    let mut weight = |key| {
        let value = fields.whole(key, 0, 65_535);
        value.and_then(|value| u32::try_from(value).ok())
    };
    let weights = Weights {
        passing: weight("passing").unwrap_or(1),
        warning: weight("warning").unwrap_or(1),
    };
    fields.finish();
    weights
}

fn tagged_address(mut fields: Fields<'_>) -> Option<TaggedAddress> {
    let address = fields.parsed("address", host);
    let address = fields.required("address", address, "address = \"10.0.0.1\"");
    let port = fields.port("port", 0).unwrap_or_default();
    fields.finish();
    Some(TaggedAddress {
        address: address?,
        port,
    })
}

#[cfg(test)]
mod tests;

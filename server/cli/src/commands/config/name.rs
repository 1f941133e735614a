//! What entries are called on the command line.

use mesh_model::consul::ConsulKind;
use mesh_model::{EntryKey, Key, Kind};
use serde_json::Value;

use crate::args::Namespace;
use crate::error::CliError;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Ours(EntryKey),
    /// `name` may have its namespace before it.
    Consul {
        kind: String,
        name: String,
    },
}

impl Name {
    pub(super) fn parse(kind: &str, name: &str, namespace: &Namespace) -> Result<Self, CliError> {
        let key = |text: &str| -> Result<Key, CliError> {
            let key = namespace.key(text.trim());
            key.map_err(|error| CliError::refused(format!("-name {text}: {error}"), ""))
        };
        let Ok(ours) = kind.parse::<Kind>() else {
            let (kind, name) = (consul(kind)?, key(name)?.to_string());
            return Ok(Self::Consul { kind, name });
        };
        Ok(Self::Ours(match ours {
            Kind::Mesh => EntryKey::Mesh,
            Kind::Service => EntryKey::Service(key(name)?),
            Kind::Route => EntryKey::Route(key(name)?),
            Kind::Gateway => EntryKey::Gateway(key(name)?),
            Kind::Intention => {
                let Some((source, destination)) = name.split_once("=>") else {
                    return Err(CliError::refused(
                        format!("-name {name}: an intention is named by both its sides"),
                        "Write for example: -kind intention -name \"web => db\"",
                    ));
                };
                EntryKey::Intention {
                    source: key(source)?,
                    destination: key(destination)?,
                }
            }
        }))
    }
}

/// A kind of Consul's, as it is written.
pub(super) fn consul(kind: &str) -> Result<String, CliError> {
    match ConsulKind::parse(kind) {
        Some(kind) => Ok(kind.to_string()),
        // As `config write` says it.
        None if ConsulKind::is_later(kind) => Err(CliError::refused(
            format!("-kind {kind} is not supported yet"),
            "",
        )),
        None => {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            let consuls = ConsulKind::ALL.map(ConsulKind::as_str);
            Err(CliError::refused(
                format!("-kind {kind} is not known"),
                format!(
                    "There are {}; of Consul's\n{}.",
                    known.join(", "),
                    consuls.join(", ")
                ),
            ))
        }
    }
}

/// `kind/name`.
pub(super) fn label(name: &Name) -> String {
    match name {
        Name::Consul { kind, name } => format!("{kind}/{name}"),
        Name::Ours(key) => match key {
            EntryKey::Mesh => "mesh/mesh".to_owned(),
            EntryKey::Service(name) => format!("service/{name}"),
            EntryKey::Route(name) => format!("route/{name}"),
            EntryKey::Gateway(name) => format!("gateway/{name}"),
            EntryKey::Intention {
                source,
                destination,
            } => {
                format!("intention/{source} => {destination}")
            }
        },
    }
}

/// The name of a row that the server listed.
pub(super) fn of_row(kind: Option<Kind>, row: &Value) -> String {
    match kind {
        Some(Kind::Mesh) => "mesh".to_owned(),
        Some(Kind::Intention) => format!("{} => {}", key(&row["source"]), key(&row["destination"])),
        _ => key(row).to_string(),
    }
}

/// The namespace of a row; of an intention, its destination's.
pub(super) fn namespace(kind: Option<Kind>, row: &Value) -> String {
    match kind {
        Some(Kind::Intention) => key(&row["destination"]).namespace,
        _ => key(row).namespace,
    }
}

fn key(value: &Value) -> Key {
    let part = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let namespace = Some(part("namespace")).filter(|namespace| !namespace.is_empty());
    let default = mesh_model::DEFAULT_NAMESPACE.to_owned();
    Key::new(namespace.unwrap_or(default), part("name"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_read_and_print() {
        let none = Namespace::default();
        for (kind, name, shown) in [
            ("mesh", "mesh", "mesh/mesh"),
            ("service", "web", "service/web"),
            ("route", "team/web", "route/team/web"),
            ("gateway", "edge", "gateway/edge"),
            ("intention", "web=>db", "intention/web => db"),
            ("intention", "* => team/db", "intention/* => team/db"),
            ("service-router", "web", "service-router/web"),
        ] {
            assert_eq!(label(&Name::parse(kind, name, &none).unwrap()), shown);
        }
        let team = Namespace {
            namespace: Some("team".into()),
        };
        let name = Name::parse("intention", "web => other/db", &team).unwrap();
        assert_eq!(label(&name), "intention/team/web => other/db");
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (kind, name) in [("intention", "web"), ("service", "a/b/c"), ("gate", "x")] {
            assert!(
                Name::parse(kind, name, &Namespace::default()).is_err(),
                "{kind} {name}"
            );
        }
    }
}

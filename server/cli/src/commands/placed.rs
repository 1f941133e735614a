//! What is said of entries, at the places where they are written: of a server's
//! findings a user should see the line that is to be changed, whichever command
//! sent it.

use std::collections::BTreeMap;

use mesh_model::consul::{self, ConfigEntry, ConsulKind};
use mesh_model::{Entry, EntryKey, Located, Place};

use crate::client::Finding;
use crate::console::Console;
use crate::error::CliError;

/// A server's error with its findings at their places, one a line; every other
/// error as it is.
pub(crate) fn explained(error: CliError, entries: &[Located<Entry>]) -> CliError {
    let CliError::Api(mut error) = error else {
        return error;
    };
    if error.code == "invalid" {
        let findings = error.details.get("findings").cloned().unwrap_or_default();
        let findings: Vec<Finding> = serde_json::from_value(findings).unwrap_or_default();
        if !findings.is_empty() {
            let lines: Vec<String> = findings.iter().map(|one| placed(one, entries)).collect();
            error.message = lines.join("\n       ");
        }
    }
    error.into()
}

/// Says the warnings of an answer, each after `head`.
pub(crate) fn warn(
    head: &str,
    warnings: &[Finding],
    entries: &[Located<Entry>],
    console: &mut Console<'_>,
) {
    for warning in warnings {
        console.note(format!("{head}: {}", placed(warning, entries)));
    }
}

/// With the place of what it is about.
fn placed(finding: &Finding, entries: &[Located<Entry>]) -> String {
    let key = serde_json::from_value(finding.key.clone()).ok();
    let found = entries.iter().find(|one| Some(one.value.key()) == key);
    match found {
        Some(one) => format!("{}: {}", one.place_of(&finding.message), finding.message),
        None => finding.message.clone(),
    }
}

/// What config entries of Consul's become, at their places.
pub(crate) fn compiled(theirs: &[Located<ConfigEntry>]) -> Vec<Located<Entry>> {
    let mut makers: BTreeMap<EntryKey, Vec<&Located<ConfigEntry>>> = BTreeMap::new();
    let mut parts: BTreeMap<&str, Vec<(String, Place)>> = BTreeMap::new();
    for one in theirs {
        for row in consul::compile(std::slice::from_ref(&one.value)) {
            makers.entry(row.key()).or_default().push(one);
        }
        for part in &one.parts {
            // A path begins with the name of its entry.
            let name = part.0.split(": ").next().unwrap_or_default();
            parts.entry(name).or_default().push(part.clone());
        }
    }
    let all: Vec<ConfigEntry> = theirs.iter().map(|one| one.value.clone()).collect();
    let located = |entry: Entry| {
        let key = entry.key();
        let place = first(makers.get(&key)?)?.place();
        let parts = parts.get(key.to_string().as_str());
        Some(Located {
            value: entry,
            file: place.file,
            line: place.line,
            column: place.column,
            parts: parts.cloned().unwrap_or_default(),
        })
    };
    consul::compile(&all)
        .into_iter()
        .filter_map(located)
        .collect()
}

/// Of those that make one row: of a service the resolver says most, of a route
/// the router.
fn first<'a>(makers: &[&'a Located<ConfigEntry>]) -> Option<&'a Located<ConfigEntry>> {
    let rank = |one: &&&Located<ConfigEntry>| match one.value.kind {
        ConsulKind::ServiceResolver | ConsulKind::ServiceRouter => 0,
        _ => 1,
    };
    makers.iter().min_by_key(rank).copied()
}

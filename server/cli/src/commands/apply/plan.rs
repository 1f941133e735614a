//! What has to be done so that the mesh has what the files say.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{Entry, EntryKey, Gateway, Intention, Kind, Located, Mesh, Route, Service};
use serde::Deserialize;
use serde_json::{Value, json};

use super::diff;
use crate::client::{Client, Operation, unrow};
use crate::error::CliError;

/// The rows that stand.
#[derive(Debug, Default)]
pub(crate) struct Current {
    rows: BTreeMap<EntryKey, Seen>,
    /// Those that config entries made, and that are changed and deleted
    /// through them only.
    of_config: BTreeSet<EntryKey>,
}

/// A row, as the plan saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// The noun, without what the row adds.
    pub(crate) noun: Value,
    pub(crate) owner: String,
    pub(crate) modify_index: u64,
}

impl Seen {
    /// A row of the API.
    pub(crate) fn of(kind: Kind, row: &Value) -> Option<(EntryKey, Self)> {
        let noun = unrow(row);
        let seen = |noun: Value| Self {
            noun,
            owner: row["owner"].as_str().unwrap_or_default().to_owned(),
            modify_index: row["modify_index"].as_u64().unwrap_or_default(),
        };
        match entry(kind, &noun) {
            Some(entry) => Some((entry.key(), seen(value(&entry)))),
            // A condition that this meshctl does not know: the row still has a
            // name, and can be compared word by word.
            None => Some((key(kind, &noun)?, seen(noun))),
        }
    }
}

impl Current {
    /// What the server has, each kind as of one moment; a change between two
    /// of them is found by the indexes when the plan is written.
    pub(crate) async fn read(client: &Client) -> Result<Self, CliError> {
        let mut all = Self::default();
        for kind in Kind::ALL {
            let rows = client.rows(kind).await?;
            all.rows
                .extend(rows.iter().filter_map(|row| Seen::of(kind, row)));
        }
        for entry in client.all_configs().await?.value {
            let rows = entry["rows"].as_array().into_iter().flatten();
            // A row of a kind that is not known here is in no file either.
            let keys = rows.filter_map(|row| EntryKey::deserialize(row).ok());
            all.of_config.extend(keys);
        }
        Ok(all)
    }
}

/// Everything to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Entries of the files that stand as they are written, with their index.
    pub(crate) unchanged: Vec<(EntryKey, u64)>,
    /// Rows of this owner that the files do not have, and that stay.
    pub(crate) left: usize,
    /// Rows of this owner that config entries made, and that the files do not
    /// have: these stay in any case.
    pub(crate) of_config: usize,
}

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) key: EntryKey,
    /// As it is; `None`: not there.
    pub(crate) before: Option<Seen>,
    /// As it will be; `None`: gone.
    pub(crate) after: Option<Entry>,
}

impl Plan {
    pub(crate) fn of(
        entries: &[Located<Entry>],
        current: &Current,
        owner: &str,
        prune: bool,
    ) -> Self {
        let mut plan = Self::default();
        let wanted: BTreeMap<EntryKey, &Entry> = entries
            .iter()
            .map(|one| (one.value.key(), &one.value))
            .collect();
        for (key, entry) in &wanted {
            match current.rows.get(key) {
                Some(seen) if seen.noun == value(entry) => {
                    plan.unchanged.push((key.clone(), seen.modify_index));
                }
                before => plan.steps.push(Step {
                    key: key.clone(),
                    before: before.cloned(),
                    after: Some((*entry).clone()),
                }),
            }
        }
        let surplus =
            |(key, seen): &(&EntryKey, &Seen)| seen.owner == owner && !wanted.contains_key(key);
        for (key, seen) in current.rows.iter().filter(surplus) {
            match prune {
                _ if current.of_config.contains(key) => plan.of_config += 1,
                true => plan.steps.push(Step {
                    key: key.clone(),
                    before: Some(seen.clone()),
                    after: None,
                }),
                false => plan.left += 1,
            }
        }
        plan
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The index at which all of it stands already, if nothing is to be done.
    pub(crate) fn stands_since(&self) -> Option<u64> {
        self.unchanged.iter().map(|(_, index)| *index).max()
    }

    /// One write, with the indexes that were seen: also of the entries that
    /// stay, so that what was confirmed is what then stands.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let step = |step: &Step| {
            let cas = Some(step.before.as_ref().map_or(0, |seen| seen.modify_index));
            match &step.after {
                Some(entry) => Operation::put(entry.clone(), cas),
                None => Operation::delete(step.key.clone(), cas),
            }
        };
        let stays = |(key, index): &(EntryKey, u64)| Operation::require(key.clone(), *index);
        let steps = self.steps.iter().map(step);
        steps.chain(self.unchanged.iter().map(stays)).collect()
    }

    /// `Plan: 1 to create, 2 to update, 0 to delete.`
    pub(crate) fn summary(&self) -> String {
        let number = |sign: char| self.steps.iter().filter(|step| step.sign() == sign).count();
        format!(
            "Plan: {} to create, {} to update, {} to delete.",
            number('+'),
            number('~'),
            number('-')
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                let change = match step.sign() {
                    '+' => "create",
                    '-' => "delete",
                    _ => "update",
                };
                json!({
                    "change": change,
                    "key": step.key,
                    "owner": step.before.as_ref().map(|seen| &seen.owner),
                    "before": step.before.as_ref().map(|seen| &seen.noun),
                    "after": step.after.as_ref().map(value),
                })
            })
            .collect();
        let unchanged: Vec<&EntryKey> = self.unchanged.iter().map(|(key, _)| key).collect();
        json!({"plan": steps, "unchanged": unchanged})
    }
}

impl Step {
    /// `+` is made, `~` changed, `-` deleted.
    pub(crate) fn sign(&self) -> char {
        match (&self.before, &self.after) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        }
    }

    /// The owner whose row this is, if it is another.
    pub(crate) fn foreign(&self, owner: &str) -> Option<&str> {
        let before = self.before.as_ref()?;
        (before.owner != owner).then_some(before.owner.as_str())
    }

    /// What changes, field by field; of what is made or deleted, nothing.
    pub(crate) fn difference(&self) -> Vec<String> {
        match (&self.before, &self.after) {
            (Some(seen), Some(entry)) => diff::lines(&seen.noun, &value(entry)),
            _ => Vec::new(),
        }
    }
}

/// The noun as the API has it.
fn value(entry: &Entry) -> Value {
    let value = match entry {
        Entry::Mesh(noun) => serde_json::to_value(noun),
        Entry::Service(noun) => serde_json::to_value(noun),
        Entry::Route(noun) => serde_json::to_value(noun),
        Entry::Gateway(noun) => serde_json::to_value(noun),
        Entry::Intention(noun) => serde_json::to_value(noun),
    };
    value.unwrap_or_default()
}

/// A noun of the API as an entry; `None` if it has a field that is not known
/// here.
pub(crate) fn entry(kind: Kind, noun: &Value) -> Option<Entry> {
    match kind {
        Kind::Mesh => Mesh::deserialize(noun).map(Entry::Mesh),
        Kind::Service => Service::deserialize(noun).map(Entry::Service),
        Kind::Route => Route::deserialize(noun).map(Entry::Route),
        Kind::Gateway => Gateway::deserialize(noun).map(Entry::Gateway),
        Kind::Intention => Intention::deserialize(noun).map(Entry::Intention),
    }
    .ok()
}

fn key(kind: Kind, noun: &Value) -> Option<EntryKey> {
    let key = |value: &Value| mesh_model::Key::deserialize(value).ok();
    let own = || key(&json!({"namespace": noun.get("namespace")?, "name": noun.get("name")?}));
    Some(match kind {
        Kind::Mesh => EntryKey::Mesh,
        Kind::Service => EntryKey::Service(own()?),
        Kind::Route => EntryKey::Route(own()?),
        Kind::Gateway => EntryKey::Gateway(own()?),
        Kind::Intention => EntryKey::Intention {
            source: key(noun.get("source")?)?,
            destination: key(noun.get("destination")?)?,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn current(rows: &[(Kind, Value)]) -> Current {
        let rows = rows.iter().filter_map(|(kind, row)| Seen::of(*kind, row));
        Current {
            rows: rows.collect(),
            of_config: BTreeSet::new(),
        }
    }

    fn files(text: &str) -> Vec<Located<Entry>> {
        mesh_model::hcl::parse_entries("a.hcl", text).unwrap()
    }

    fn web(owner: &str, protocol: &str) -> (Kind, Value) {
        let row = json!({
            "namespace": "default", "name": "web", "protocol": protocol, "defined": true,
            "instances": {"total": 1}, "owner": owner, "create_index": 3, "modify_index": 7,
            "created_at": "2026-03-01T09:30:00.250Z", "modified_at": "2026-03-02T00:00:00.000Z",
        });
        (Kind::Service, row)
    }

    fn text(plan: &Plan) -> String {
        let mut text = String::new();
        for step in &plan.steps {
            text.push_str(&format!("{} {}\n", step.sign(), step.key));
            for line in step.difference() {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text + &plan.summary()
    }

    const WEB: &str = "service \"web\" {\n  protocol = \"http\"\n}\n";

    #[test]
    fn what_stands_as_written_is_only_watched() {
        let plan = Plan::of(
            &files(WEB),
            &current(&[web("apply", "http")]),
            "apply",
            true,
        );
        assert!(plan.is_empty());
        let operations = serde_json::to_value(plan.operations()).unwrap();
        let key = json!({"service": {"namespace": "default", "name": "web"}});
        assert_eq!(operations, json!([{"require": key, "cas": 7}]));
    }

    #[test]
    fn creates_updates_and_deletes() {
        let entries = files(&format!(
            "{WEB}intention \"a\" \"web\" {{ action = \"allow\" }}\n"
        ));
        let rows = [
            web("apply", "http2"),
            (
                Kind::Intention,
                json!({"source": {"name": "x"}, "destination": {"name": "web"}, "action": "deny",
                       "owner": "apply", "modify_index": 9, "precedence": 9}),
            ),
            (
                Kind::Intention,
                json!({"source": {"name": "y"}, "destination": {"name": "web"}, "action": "deny",
                       "owner": "cli", "modify_index": 9, "precedence": 9}),
            ),
        ];
        let kept = Plan::of(&entries, &current(&rows), "apply", false);
        assert_eq!(
            text(&kept),
            "~ service web\n    protocol: \"http2\" -> \"http\"\n+ intention a => web\nPlan: 1 to \
             create, 1 to update, 0 to delete."
        );
        assert_eq!(kept.left, 1);
        let pruned = Plan::of(&entries, &current(&rows), "apply", true);
        assert!(
            text(&pruned).contains("- intention x => web\n"),
            "{}",
            text(&pruned)
        );
        assert!(!text(&pruned).contains("y => web"));
        let cas: Vec<Value> = pruned
            .operations()
            .iter()
            .map(|one| serde_json::to_value(one).unwrap()["cas"].clone())
            .collect();
        assert_eq!(cas, [json!(7), json!(0), json!(9)]);
    }

    #[test]
    fn rows_of_config_entries_are_not_pruned() {
        let (kind, row) = web("cli", "http");
        let mut current = current(&[(kind, row)]);
        current.of_config = current.rows.keys().cloned().collect();
        for prune in [true, false] {
            let plan = Plan::of(&[], &current, "cli", prune);
            assert!(plan.is_empty());
            assert_eq!((plan.left, plan.of_config), (0, 1));
        }
        let plan = Plan::of(&files(WEB), &current, "cli", true);
        assert_eq!(plan.of_config, 0, "what the files have is no surplus");
    }

    #[test]
    fn another_owners_row_is_named() {
        let plan = Plan::of(
            &files(WEB),
            &current(&[web("terraform", "tcp")]),
            "apply",
            true,
        );
        assert_eq!(plan.steps[0].foreign("apply"), Some("terraform"));
        let same = Plan::of(
            &files(WEB),
            &current(&[web("terraform", "http")]),
            "apply",
            true,
        );
        assert!(same.is_empty(), "what is as written need not be taken over");
    }

    #[test]
    fn a_row_of_a_newer_server_is_compared_word_by_word() {
        let (kind, mut row) = web("apply", "http");
        row["mirror"] = json!(true);
        let plan = Plan::of(&files(WEB), &current(&[(kind, row)]), "apply", true);
        assert_eq!(plan.steps[0].difference(), ["mirror: true -> (none)"]);
    }
}

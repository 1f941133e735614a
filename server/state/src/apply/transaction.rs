//! Entries, all of them or none.
//!
//! What must hold before (check-and-set, owners) is asked of the state before;
//! what must hold after (references, validation) of the state after. So the
//! order of the operations does not matter.

use std::collections::BTreeSet;

use mesh_model::{Entry, EntryKey, Gateway, Intention, Key, Mesh, Route, Service};

use super::{Draft, done};
use crate::check;
use crate::command::Op;
use crate::key::{ConfigKey, Pair, RowKey};
use crate::outcome::{Applied, Change, OpResult, Refusal};
use crate::stored::ConfigEntry;

/// What a transaction writes: entries, and the config entries behind them.
#[derive(Default)]
struct Written {
    entries: BTreeSet<EntryKey>,
    put: BTreeSet<EntryKey>,
    config: BTreeSet<ConfigKey>,
    /// The rows that its config entries claim, before or after.
    claimed: BTreeSet<EntryKey>,
}

impl Draft {
    pub(super) fn transaction(
        &mut self,
        ops: &[Op],
        owner: &str,
        force: bool,
    ) -> Result<Applied, Refusal> {
        if owner.is_empty() {
            return Err(Refusal::NoOwner);
        }
        let written = self.survey(ops)?;
        for op in ops {
            self.allow(op, &written, owner, force)?;
        }
        let claims_before = self.claims_of(&written.config);
        let tls_before = self.state.tls();
        let mut results: Vec<OpResult> =
            ops.iter().filter_map(|op| self.run_op(op, owner)).collect();
        if force {
            self.drop_foreign_claims(&written);
        }
        let orphans = self.delete_orphans(&claims_before, &written);
        self.check_claims(&claims_before, &written)?;

        // Only what is other than before is looked at: a write that changes
        // nothing is not held against what others have left behind.
        let changed: Vec<EntryKey> = results
            .iter()
            .chain(&orphans)
            .filter(|result| !matches!(result.change, Change::Unchanged | Change::Absent))
            .filter_map(|result| result.key.entry())
            .collect();
        results.extend(orphans);
        if let Some(why) = self.state.tls().nothing_in_common(&tls_before) {
            return Err(Refusal::invalid(EntryKey::Mesh, why));
        }
        let warnings = check::check(&self.state, &changed)?;
        Ok(Applied {
            warnings,
            ..done(results)
        })
    }

    /// What the operations write, which must not contradict each other.
    fn survey(&self, ops: &[Op]) -> Result<Written, Refusal> {
        let mut written = Written::default();
        for op in ops {
            let (fresh, key): (bool, RowKey) = match op {
                Op::Put { entry, .. } => {
                    written.put.insert(entry.key());
                    (written.entries.insert(entry.key()), entry.key().into())
                }
                Op::Delete { key, .. } => (written.entries.insert(key.clone()), key.clone().into()),
                Op::PutConfig { entry, .. } => {
                    written.claimed.extend(entry.rows.iter().cloned());
                    (
                        written.config.insert(entry.key.clone()),
                        RowKey::Config(entry.key.clone()),
                    )
                }
                Op::DeleteConfig { key, .. } => (
                    written.config.insert(key.clone()),
                    RowKey::Config(key.clone()),
                ),
                Op::Require { .. } => continue,
            };
            if !fresh {
                return Err(Refusal::invalid(key, "is written twice in one transaction"));
            }
        }
        let before = self.claims_of(&written.config);
        written
            .claimed
            .extend(before.into_iter().map(|(row, _)| row));
        Ok(written)
    }

    /// Whether the state before lets this happen.
    fn allow(&self, op: &Op, written: &Written, owner: &str, force: bool) -> Result<(), Refusal> {
        let (key, cas, delete): (RowKey, Option<u64>, bool) = match op {
            Op::Require { key, cas } => return self.compare(key, Some(*cas)),
            Op::Put { entry, cas } => (entry.key().into(), *cas, false),
            Op::Delete { key, cas } => (key.clone().into(), *cas, true),
            Op::PutConfig { entry, cas } => (RowKey::Config(entry.key.clone()), *cas, false),
            Op::DeleteConfig { key, cas } => (RowKey::Config(key.clone()), *cas, true),
        };
        self.compare(&key, cas)?;
        let row = self.state.row(&key);
        if delete && row.is_none() {
            return Err(Refusal::NotFound { key });
        }
        if force {
            return Ok(());
        }
        if let Some((_, other)) = row
            && other != owner
        {
            let owner = other.to_owned();
            return Err(Refusal::OwnedBy { key, owner });
        }
        // A row that a config entry makes is changed through that entry.
        if let Some(entry) = key.entry()
            && !written.claimed.contains(&entry)
            && let Some(claim) = self.claimants(&entry).into_iter().next()
        {
            let owner = claim.to_string();
            return Err(Refusal::OwnedBy { key, owner });
        }
        // And a config entry does not write over a row that was written
        // without one: what it does not say would be gone, and with the entry
        // one day the whole row.
        if let Op::Put { entry, .. } = op
            && written.claimed.contains(&entry.key())
            && row.is_some()
            && self.claimants(&entry.key()).is_empty()
        {
            let owner = format!("{owner}, who wrote it directly and not by a config entry");
            return Err(Refusal::OwnedBy { key, owner });
        }
        Ok(())
    }

    fn run_op(&mut self, op: &Op, owner: &str) -> Option<OpResult> {
        Some(match op {
            Op::Require { .. } => return None,
            Op::Put { entry, .. } => match entry.clone() {
                Entry::Mesh(mesh) => self.put(mesh, owner),
                Entry::Service(service) => self.put(service, owner),
                Entry::Route(route) => self.put(route, owner),
                Entry::Intention(intention) => self.put(intention, owner),
                Entry::Gateway(gateway) => {
                    let key = gateway.key();
                    self.changing_gateway(&key, |draft| draft.put(gateway, owner))
                }
            },
            Op::Delete { key, .. } => self.delete_entry(key),
            Op::PutConfig { entry, .. } => {
                self.unclaim(&entry.key);
                for row in &entry.rows {
                    let claim = (row.clone(), entry.key.clone());
                    self.state.claims.insert(claim);
                }
                self.put(entry.clone(), owner)
            }
            Op::DeleteConfig { key, .. } => {
                self.unclaim(key);
                self.delete::<ConfigEntry>(key)
            }
        })
    }

    fn delete_entry(&mut self, key: &EntryKey) -> OpResult {
        match key {
            EntryKey::Mesh => self.delete::<Mesh>(&()),
            EntryKey::Service(key) => self.delete::<Service>(key),
            EntryKey::Route(key) => self.delete::<Route>(key),
            EntryKey::Intention {
                source,
                destination,
            } => self.delete::<Intention>(&Pair {
                destination: destination.clone(),
                source: source.clone(),
            }),
            EntryKey::Gateway(key) => {
                self.changing_gateway(key, |draft| draft.delete::<Gateway>(key))
            }
        }
    }

    /// Changes a gateway. The services that it stood for, or stands for now,
    /// are called elsewhere than before.
    fn changing_gateway(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut Self) -> OpResult,
    ) -> OpResult {
        let mut services = self.linked_by(key);
        let result = change(self);
        if !matches!(result.change, Change::Unchanged | Change::Absent) {
            services.extend(self.linked_by(key));
            for service in &services {
                self.touch_endpoints(service, 0);
            }
        }
        result
    }

    /// What these config entries claim in the state as it is.
    fn claims_of(&self, config: &BTreeSet<ConfigKey>) -> BTreeSet<(EntryKey, ConfigKey)> {
        config
            .iter()
            .filter_map(|key| self.state.config.get(key))
            .flat_map(|row| {
                let entry = &row.value;
                entry
                    .rows
                    .iter()
                    .map(|row| (row.clone(), entry.key.clone()))
            })
            .collect()
    }

    /// Who claims a row.
    fn claimants(&self, row: &EntryKey) -> Vec<ConfigKey> {
        let first = ConfigKey {
            kind: String::new(),
            key: mesh_model::Key::new("", ""),
        };
        self.state
            .claims
            .range((row.clone(), first)..)
            .take_while(|(claimed, _)| claimed == row)
            .map(|(_, config)| config.clone())
            .collect()
    }

    fn unclaim(&mut self, config: &ConfigKey) {
        let before = self.claims_of(&BTreeSet::from([config.clone()]));
        for claim in before {
            self.state.claims.remove(&claim);
        }
    }

    /// A row that was taken over by force is its config entry's no more; the
    /// entry stays as it was written.
    fn drop_foreign_claims(&mut self, written: &Written) {
        for row in written.entries.difference(&written.claimed) {
            for config in self.claimants(row) {
                self.state.claims.remove(&(row.clone(), config.clone()));
                self.state
                    .config
                    .amend(&config, |entry| entry.rows.retain(|claimed| claimed != row));
            }
        }
    }

    /// Deletes the rows that no config entry claims any more.
    fn delete_orphans(
        &mut self,
        claims_before: &BTreeSet<(EntryKey, ConfigKey)>,
        written: &Written,
    ) -> Vec<OpResult> {
        let rows: BTreeSet<&EntryKey> = claims_before.iter().map(|(row, _)| row).collect();
        rows.into_iter()
            .filter(|row| !written.entries.contains(*row) && self.claimants(row).is_empty())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|row| self.delete_entry(row))
            .filter(|result| result.change == Change::Deleted)
            .collect()
    }

    /// A config entry cannot claim what it did not make.
    fn check_claims(
        &self,
        claims_before: &BTreeSet<(EntryKey, ConfigKey)>,
        written: &Written,
    ) -> Result<(), Refusal> {
        for claim in self.claims_of(&written.config) {
            let (row, config) = &claim;
            let made = written.put.contains(row) || claims_before.contains(&claim);
            if !made || self.state.row(&row.clone().into()).is_none() {
                let key = RowKey::Config(config.clone());
                let message = format!("claims {row}, which this write does not make");
                return Err(Refusal::invalid(key, message));
            }
        }
        Ok(())
    }
}

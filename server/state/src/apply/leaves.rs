//! Leaves that were signed, and revocations.

use std::sync::Arc;

use mesh_model::{Key, serial_number};

use super::{Draft, SERVER, done};
use crate::key::RowKey;
use crate::leaves::{MAX_LEAVES, MAX_REASON, MAX_REVOCATIONS, Revocation, Revoked, SignedLeaf};
use crate::outcome::{Applied, Finding, OpResult, Refusal};
use crate::state::{MAX_NUMBER, State};

impl Draft {
    pub(super) fn revoke(
        &mut self,
        what: &Revoked,
        reason: &str,
        until: Option<u64>,
    ) -> Result<Applied, Refusal> {
        let row = RowKey::Revocation(what.clone());
        let wrong = |why: &str| Err(Refusal::invalid(row.clone(), why));
        if reason.len() > MAX_REASON {
            return wrong(&format!("the reason is longer than {MAX_REASON} bytes"));
        }
        let mut warnings = Vec::new();
        let revocations = match (what, until) {
            (Revoked::Service(service), None) => {
                if service.check().is_err() {
                    return wrong("this is no service; write its name, and no pattern");
                }
                vec![Revocation {
                    what: what.clone(),
                    reason: reason.to_owned(),
                    until: None,
                    leaf: None,
                }]
            }
            (Revoked::Serial(serial), Some(until)) => {
                if serial_number(serial).as_ref() != Some(serial) {
                    return wrong("this is no serial number; write its hex digits");
                }
                let found = self.leaves_of(serial, reason, until.min(MAX_NUMBER));
                if found.iter().any(|one| one.leaf.is_none()) {
                    warnings.push(Finding {
                        key: None,
                        message: format!(
                            "{row}: no server has recorded a leaf with this serial number; it is \
                             refused all the same, but its key is not known, and may be signed again"
                        ),
                    });
                }
                found
            }
            _ => return wrong("a leaf is revoked until a time, and a service without one"),
        };
        let new = revocations
            .iter()
            .filter(|one| self.state.revocations.get(&one.what).is_none());
        if self.state.revocations.len() + new.count() > MAX_REVOCATIONS {
            return wrong(&format!(
                "{MAX_REVOCATIONS} revocations stand already, and each goes to every sidecar; wait \
                 until leaves that are revoked end (`meshctl ca revocations`), revoke the service \
                 (`-service`) in place of its leaves, or change the root (`meshctl ca rotate`)"
            ));
        }
        let results = revocations.into_iter().map(|one| self.put(one, SERVER));
        let mut applied = done(results.collect());
        applied.warnings = warnings;
        Ok(applied)
    }

    /// The revocations of a leaf and of all others of its key, all until no leaf
    /// of that key is good.
    fn leaves_of(&self, serial: &str, reason: &str, until: u64) -> Vec<Revocation> {
        let one = |serial: &str, until: u64, leaf: Option<SignedLeaf>| Revocation {
            what: Revoked::Serial(serial.to_owned()),
            reason: reason.to_owned(),
            until: Some(until),
            leaf,
        };
        let before = self
            .state
            .revocations
            .get(&Revoked::Serial(serial.to_owned()));
        let known = self.state.leaf(serial).map(|leaf| SignedLeaf::clone(leaf));
        // A leaf that was forgotten is as it was when it was revoked.
        let known = known.or_else(|| before.and_then(|row| row.value.leaf.clone()));
        let until = until.max(before.and_then(|row| row.value.until).unwrap_or(0));
        let Some(known) = known else {
            return vec![one(serial, until, None)];
        };
        let same_key = self.state.leaves().filter(|leaf| leaf.key == known.key);
        let mut all: Vec<SignedLeaf> = same_key.map(|leaf| SignedLeaf::clone(leaf)).collect();
        if !all.iter().any(|leaf| leaf.serial == serial) {
            all.push(known);
        }
        let ends = all.iter().map(|leaf| leaf.not_after);
        let until = until.max(ends.max().unwrap_or(0));
        let rows = all.into_iter();
        rows.map(|leaf| one(&leaf.serial.clone(), until, Some(leaf)))
            .collect()
    }

    pub(super) fn unrevoke(&mut self, service: &Key) -> Result<Applied, Refusal> {
        let what = Revoked::Service(service.clone());
        if self.state.revocations.get(&what).is_none() {
            return Err(Refusal::NotFound {
                key: RowKey::Revocation(what),
            });
        }
        Ok(done(vec![self.delete::<Revocation>(&what)]))
    }

    /// Nothing of it is a change that somebody waits for, and takes an index;
    /// but where a leaf is one of a key that is revoked, or of a serial number
    /// that nobody had recorded then.
    pub(super) fn record_leaves(&mut self, leaves: &[SignedLeaf]) -> Applied {
        let mut results = Vec::new();
        for leaf in leaves {
            self.state
                .leaves
                .insert(leaf.place(), Arc::new(leaf.clone()));
            if self.state.revocations.len() > 0 {
                results.extend(self.revoke_late(leaf));
            }
        }
        while self.state.leaves.len() > MAX_LEAVES {
            forget_first(&mut self.state);
        }
        done(results)
    }

    /// What is revoked already of a leaf that is recorded now: a server that was
    /// behind signed it, or its record was.
    fn revoke_late(&mut self, leaf: &SignedLeaf) -> Vec<OpResult> {
        let of_it = |row: &Revocation| match (&row.what, &row.leaf) {
            (Revoked::Serial(serial), None) => *serial == leaf.serial,
            (_, known) => known.as_ref().is_some_and(|known| known.key == leaf.key),
        };
        let rows = self.state.revocations().map(|row| &row.value);
        let rows: Vec<Revocation> = rows.filter(|row| of_it(row)).cloned().collect();
        let Some(first) = rows.first() else {
            return Vec::new();
        };
        let ends = rows.iter().filter_map(|row| row.until);
        let until = Some(ends.max().unwrap_or(0).max(leaf.not_after));
        let own = Revocation {
            what: Revoked::Serial(leaf.serial.clone()),
            reason: first.reason.clone(),
            until,
            leaf: Some(leaf.clone()),
        };
        let is_there = self.state.revocations.get(&own.what).is_some();
        // Beyond the limit the key is refused all the same, for as long.
        let own = (is_there || self.state.revocations.len() < MAX_REVOCATIONS).then_some(own);
        let rows = rows.into_iter().filter(|row| row.leaf.is_some());
        let rows = rows.map(|row| Revocation { until, ..row });
        let rows: Vec<Revocation> = rows.chain(own).collect();
        rows.into_iter().map(|row| self.put(row, SERVER)).collect()
    }

    pub(super) fn sweep_leaves(&mut self) -> Applied {
        let now = self.state.now / 1000;
        while let Some(((end, _), _)) = self.state.leaves.get_min()
            && *end < now
        {
            forget_first(&mut self.state);
        }
        let rows = self.state.revocations();
        let over = rows.filter(|row| row.value.until.is_some_and(|end| end < now));
        let over: Vec<Revoked> = over.map(|row| row.value.what.clone()).collect();
        let swept = over.iter().map(|what| self.delete::<Revocation>(what));
        done(swept.collect())
    }

    /// What was revoked before a restore stays so: a snapshot is no reason to
    /// believe a stolen key again.
    pub(super) fn keep_revocations(&mut self, before: &State) {
        for row in before.revocations() {
            self.put(row.value.clone(), SERVER);
        }
        for leaf in before.leaves() {
            self.state.leaves.insert(leaf.place(), leaf.clone());
        }
        while self.state.leaves.len() > MAX_LEAVES {
            forget_first(&mut self.state);
        }
    }
}

/// Forgets the leaf that ends first.
fn forget_first(state: &mut State) {
    if let Some((first, _)) = state.leaves.get_min() {
        let first = first.clone();
        state.leaves.remove(&first);
    }
}

//! A table: rows in order, and the memory of those that are gone.
//!
//! A deletion is a fact with an index (a *tombstone*), so that whoever asks
//! "what is the index of this?" never sees it go back. Tombstones are bounded:
//! the oldest go, and then the table's *floor* rises to their index, which
//! stands for all of them from then on.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use mesh_model::Row;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::key::RowKey;
use crate::state::State;

/// More tombstones than this in one table, and the oldest go. Part of what is
/// replicated: it may only change with the cluster's level.
const MAX_TOMBSTONES: usize = 4096;

/// Older tombstones go, in milliseconds: a day. As [`MAX_TOMBSTONES`].
const MAX_TOMBSTONE_AGE: u64 = 24 * 3_600_000;

/// What a table holds.
pub(crate) trait Stored: Clone + PartialEq + Serialize + DeserializeOwned {
    type Key: Ord + Clone + Debug + Serialize + DeserializeOwned;

    fn key(&self) -> Self::Key;
    fn row_key(key: &Self::Key) -> RowKey;
    fn of(state: &State) -> &Table<Self>;
    fn of_mut(state: &mut State) -> &mut Table<Self>;
}

/// That a row is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tombstone<K> {
    pub(crate) key: K,
    /// The state's index when the row was deleted.
    pub(crate) index: u64,
    /// The state's clock then, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// What a write did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there.
    Created,
    /// It is another one now.
    Updated,
    /// It is what it was, with the index that it had.
    Unchanged,
    /// It is gone.
    Deleted,
    /// It was not there, and that is fine.
    Absent,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Table<T: Stored> {
    rows: OrdMap<T::Key, Arc<Row<T>>>,
    gone: OrdMap<T::Key, Arc<Tombstone<T::Key>>>,
    /// `gone` by age.
    order: OrdSet<(u64, T::Key)>,
    /// The index that stands for every tombstone that was pruned.
    floor: u64,
    /// The index of the last change in the table.
    last: u64,
}

impl<T: Stored> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: OrdMap::new(),
            gone: OrdMap::new(),
            order: OrdSet::new(),
            floor: 0,
            last: 0,
        }
    }
}

/// `order` and `last` follow from the rest.
impl<T: Stored> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.gone == other.gone && self.floor == other.floor
    }
}

impl<T: Stored> Table<T> {
    pub(crate) fn get(&self, key: &T::Key) -> Option<&Arc<Row<T>>> {
        self.rows.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row<T>>> {
        self.rows.values()
    }

    pub(crate) fn range<R: RangeBounds<T::Key>>(
        &self,
        range: R,
    ) -> impl Iterator<Item = (&T::Key, &Arc<Row<T>>)> {
        self.rows.range::<R, T::Key>(range)
    }

    pub(crate) fn tombstones(&self) -> impl Iterator<Item = &Arc<Tombstone<T::Key>>> {
        self.gone.values()
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether nothing was ever in it.
    pub(crate) fn is_blank(&self) -> bool {
        self.rows.is_empty() && self.gone.is_empty() && self.floor == 0
    }

    /// The index of the last change in the table.
    pub(crate) fn index(&self) -> u64 {
        self.last
    }

    /// The index of the last change of one row, there or not.
    pub(crate) fn index_of(&self, key: &T::Key) -> u64 {
        match (self.rows.get(key), self.gone.get(key)) {
            (Some(row), _) => row.modify_index,
            (None, Some(tombstone)) => tombstone.index,
            (None, None) => self.floor,
        }
    }

    /// The index of the last change among the rows from `start` for as long as
    /// `within` holds.
    pub(crate) fn index_from(&self, start: &T::Key, within: impl Fn(&T::Key) -> bool) -> u64 {
        let live = self
            .rows
            .range(start.clone()..)
            .take_while(|(key, _)| within(key))
            .map(|(_, row)| row.modify_index);
        let gone = self
            .gone
            .range(start.clone()..)
            .take_while(|(key, _)| within(key))
            .map(|(_, tombstone)| tombstone.index);
        live.chain(gone).max().unwrap_or(0).max(self.floor)
    }

    /// Writes a row. One that has this value and owner keeps its index and time.
    /// `now`: the state's clock, which never runs back.
    pub(crate) fn put(&mut self, value: T, owner: &str, index: u64, now: u64) -> Change {
        let key = value.key();
        let old = self.rows.get(&key);
        if old.is_some_and(|row| row.value == value && row.owner == owner) {
            return Change::Unchanged;
        }
        let (create_index, created_at) =
            old.map_or((index, now), |row| (row.create_index, row.created_at));
        let change = match old {
            Some(_) => Change::Updated,
            None => Change::Created,
        };
        if let Some(tombstone) = self.gone.remove(&key) {
            self.order.remove(&(tombstone.index, key.clone()));
        }
        let row = Row {
            value,
            owner: owner.to_owned(),
            create_index,
            modify_index: index,
            created_at,
            modified_at: now,
        };
        self.rows.insert(key, Arc::new(row));
        self.last = self.last.max(index);
        change
    }

    /// Says that the row changed though its value did not. `now` as in [`Self::put`].
    pub(crate) fn touch(&mut self, key: &T::Key, index: u64, now: u64) {
        if let Some(row) = self.rows.get_mut(key) {
            let row = Arc::make_mut(row);
            row.modify_index = index;
            row.modified_at = now;
            self.last = self.last.max(index);
        }
    }

    /// Changes a row without saying so: for what no reader sees.
    pub(crate) fn amend(&mut self, key: &T::Key, amend: impl FnOnce(&mut T)) {
        if let Some(row) = self.rows.get_mut(key) {
            amend(&mut Arc::make_mut(row).value);
        }
    }

    /// Deletes a row; whether it was there. `now` as [`Tombstone::at`].
    pub(crate) fn delete(&mut self, key: &T::Key, index: u64, now: u64) -> bool {
        if self.rows.remove(key).is_none() {
            return false;
        }
        self.bury(Tombstone {
            key: key.clone(),
            index,
            at: now,
        });
        true
    }

    /// Lets the oldest tombstones go, by number and age.
    pub(crate) fn prune(&mut self, now: u64) {
        while let Some((index, key)) = self.order.get_min() {
            let old = self
                .gone
                .get(key)
                .is_none_or(|tombstone| tombstone.at.saturating_add(MAX_TOMBSTONE_AGE) < now);
            if !old && self.order.len() <= MAX_TOMBSTONES {
                return;
            }
            let (index, key) = (*index, key.clone());
            self.gone.remove(&key);
            self.order.remove(&(index, key));
            self.raise_floor(index);
        }
    }

    /// Every row as changed at `index`, without tombstones: after a restore. The
    /// times stay: they say when somebody wrote what is there.
    pub(crate) fn restamp(&mut self, index: u64) {
        let rows = std::mem::take(&mut self.rows);
        self.rows = rows
            .into_iter()
            .map(|(key, mut row)| {
                Arc::make_mut(&mut row).modify_index = index;
                (key, row)
            })
            .collect();
        self.gone = OrdMap::new();
        self.order = OrdSet::new();
        self.raise_floor(index);
    }

    /// Takes a row as a snapshot has it; `false` when its key is there already.
    pub(crate) fn load(&mut self, row: Arc<Row<T>>) -> bool {
        self.last = self.last.max(row.modify_index);
        let key = row.value.key();
        !self.gone.contains_key(&key) && self.rows.insert(key, row).is_none()
    }

    /// Takes a tombstone as a snapshot has it; as [`Self::load`].
    pub(crate) fn load_tombstone(&mut self, tombstone: Tombstone<T::Key>) -> bool {
        if self.rows.contains_key(&tombstone.key) || self.gone.contains_key(&tombstone.key) {
            return false;
        }
        self.bury(tombstone);
        true
    }

    /// No index of this table is reported below this one from now on.
    pub(crate) fn raise_floor(&mut self, index: u64) {
        self.floor = self.floor.max(index);
        self.last = self.last.max(index);
    }

    fn bury(&mut self, tombstone: Tombstone<T::Key>) {
        self.last = self.last.max(tombstone.index);
        self.order.insert((tombstone.index, tombstone.key.clone()));
        self.gone.insert(tombstone.key.clone(), Arc::new(tombstone));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mesh_model::{Key, Service};

    use super::*;

    fn service(number: usize) -> Service {
        Service::named(&Key::of(format!("s{number:06}")))
    }

    fn key(number: usize) -> Key {
        service(number).key()
    }

    /// Rows `0..count`, made at index 1 and deleted one after the other.
    fn deleted(count: usize, at: u64) -> Table<Service> {
        let mut table = Table::default();
        for number in 0..count {
            table.put(service(number), "cli", 1, 0);
        }
        for number in 0..count {
            assert!(table.delete(&key(number), 2 + number as u64, at));
        }
        table
    }

    #[test]
    fn a_deletion_has_an_index() {
        let mut table = deleted(2, 0);
        assert_eq!(table.index_of(&key(0)), 2);
        assert_eq!(table.index_of(&key(1)), 3);
        assert_eq!(table.index_of(&key(9)), 0);
        assert!(!table.delete(&key(0), 9, 0));
        assert_eq!(table.index(), 3);
        // What comes again has forgotten its deletion.
        assert_eq!(table.put(service(0), "cli", 4, 0), Change::Created);
        assert_eq!(table.get(&key(0)).unwrap().create_index, 4);
        assert_eq!(table.tombstones().count(), 1);
    }

    #[test]
    fn the_oldest_tombstones_go_and_the_floor_stands_for_them() {
        let mut table = deleted(MAX_TOMBSTONES + 3, 0);
        let everything = |table: &Table<Service>| table.index_from(&key(0), |_| true);
        let before = everything(&table);
        table.prune(0);
        assert_eq!(table.tombstones().count(), MAX_TOMBSTONES);
        assert_eq!(table.floor(), 4, "the index of the third deletion");
        assert_eq!(table.index_of(&key(0)), 4);
        assert_eq!(table.index_of(&key(3)), 5);
        assert_eq!(everything(&table), before);
    }

    #[test]
    fn old_tombstones_go() {
        let mut table = deleted(3, 1_000);
        table.prune(1_000 + MAX_TOMBSTONE_AGE);
        assert_eq!(table.tombstones().count(), 3);
        table.prune(1_001 + MAX_TOMBSTONE_AGE);
        assert_eq!(table.tombstones().count(), 0);
        assert_eq!(table.floor(), 4);
        assert_eq!(table.index_of(&key(0)), 4);
        assert_eq!(table.index_from(&key(0), |_| true), 4);
        assert_eq!(table.order.len(), 0);
    }
}

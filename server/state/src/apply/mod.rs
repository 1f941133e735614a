//! From one state to the next.
//!
//! Every command works on a draft, a clone that costs a few pointers; a refused
//! one drops it, and so leaves no trace, neither an index nor a tick of the
//! clock.

mod catalog;
mod cluster;
mod leaves;
mod restore;
mod transaction;
mod virtuals;

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{Instance, Key, VirtualAddress};

pub use restore::MAX_RESTORE;
pub(crate) use restore::{Piece, Staging};

use crate::command::{Command, Envelope};
use crate::key::{InstanceKey, RowKey};
use crate::outcome::{Applied, Change, OpResult, Outcome, Refusal};
use crate::state::{MAX_NUMBER, State, each_table_mut};
use crate::stored::Registered;
use crate::table::Stored;
use crate::touched::Touched;

/// The owner of what agents say.
const AGENT: &str = "agent";

/// The owner of what the servers themselves write.
pub(crate) const SERVER: &str = "server";

/// What became of some commands.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Of each.
    pub outcomes: Vec<Outcome>,
    /// What they touched together.
    pub touched: Touched,
}

impl State {
    /// Applies commands in their order: the next state is a function of this
    /// one and of them, and of nothing else.
    pub fn apply(&mut self, commands: &[Envelope]) -> Commit {
        let mut touched = Touched::default();
        let outcomes = commands
            .iter()
            .map(|envelope| self.apply_one(envelope, &mut touched))
            .collect();
        touched.version = self.version();
        Commit { outcomes, touched }
    }

    fn apply_one(&mut self, envelope: &Envelope, touched: &mut Touched) -> Outcome {
        let mut draft = Draft::of(self, envelope.time);
        let applied = draft.run(&envelope.command);
        let done = applied.and_then(|applied| Ok((applied, draft.finish(VirtualAddress::COUNT)?)));
        match done {
            Err(refusal) => Outcome::Refused(refusal),
            Ok((mut applied, (state, rows, everything))) => {
                *self = state;
                touched.rows.extend(rows);
                touched.everything |= everything;
                applied.version = self.version();
                Outcome::Applied(applied)
            }
        }
    }
}

/// The next state while it is made.
struct Draft {
    state: State,
    /// The index of what this command changes.
    index: u64,
    touched: BTreeSet<RowKey>,
    everything: bool,
    /// The services whose endpoints changed, and by how many. They are counted
    /// at the end, so that one whose last instance goes and another comes
    /// stays the row that it was.
    endpoints: BTreeMap<Key, i64>,
}

impl Draft {
    fn of(state: &State, time: u64) -> Self {
        let mut state = state.clone();
        state.now = state.now.max(time.min(MAX_NUMBER));
        Self {
            index: state.index + 1,
            state,
            touched: BTreeSet::new(),
            everything: false,
            endpoints: BTreeMap::new(),
        }
    }

    fn run(&mut self, command: &Command) -> Result<Applied, Refusal> {
        if self.state.is_empty() && !matches!(command, Command::Bootstrap { .. }) {
            return Err(Refusal::NotBootstrapped);
        }
        self.state.admits(command)?;
        match command {
            Command::Bootstrap { .. } => self.bootstrap(command),
            Command::RaiseLevel { level } => self.raise_level(*level),
            Command::PutClusterConfig {
                default_intention,
                cas,
            } => self.put_cluster_config(*default_intention, *cas),
            Command::PutCa { value, cas } => self.put_ca(value, *cas),
            Command::Transaction { ops, owner, force } => self.transaction(ops, owner, *force),
            Command::RegisterNode { node } => self.register_node(node),
            Command::SyncInstances {
                node,
                stream,
                instances,
            } => self.sync_instances(node, *stream, instances),
            Command::PutInstance {
                node,
                stream,
                instance,
            } => self.put_one_instance(node, *stream, instance),
            Command::RemoveInstance { node, stream, id } => {
                self.remove_one_instance(node, *stream, id)
            }
            Command::SetChecks {
                node,
                stream,
                changes,
            } => self.set_checks(node, *stream, changes),
            Command::SetNodeState { node, state } => self.set_node_state(node, *state),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::ReapNodes { ttl } => self.reap_nodes(*ttl),
            Command::Revoke {
                what,
                reason,
                until,
            } => self.revoke(what, reason, *until),
            Command::Unrevoke { service } => self.unrevoke(service),
            Command::RecordLeaves { leaves } => Ok(self.record_leaves(leaves)),
            Command::SweepLeaves {} => Ok(self.sweep_leaves()),
            Command::Restore(step) => self.restore(step),
            #[cfg(feature = "tomorrow")]
            Command::Tomorrow {} => {
                let service = mesh_model::Service::named(&Key::of("tomorrow"));
                Ok(done(vec![self.put(service, SERVER)]))
            }
        }
    }

    /// The state, what was touched, and whether everything was. `addresses`:
    /// how many virtual addresses there are.
    fn finish(mut self, addresses: u32) -> Result<(State, BTreeSet<RowKey>, bool), Refusal> {
        self.count_endpoints();
        self.settle_virtuals(addresses)?;
        if self.everything || !self.touched.is_empty() {
            self.state.index = self.index;
        }
        let now = self.state.now;
        each_table_mut!(self.state, table => table.prune(now));
        Ok((self.state, self.touched, self.everything))
    }

    fn put<T: Stored>(&mut self, value: T, owner: &str) -> OpResult {
        let (key, now) = (value.key(), self.state.now);
        let change = T::of_mut(&mut self.state).put(value, owner, self.index, now);
        let row = T::row_key(&key);
        if change != Change::Unchanged {
            self.touched.insert(row.clone());
        }
        OpResult {
            key: row,
            change,
            index: T::of(&self.state).index_of(&key),
        }
    }

    fn delete<T: Stored>(&mut self, key: &T::Key) -> OpResult {
        let now = self.state.now;
        let change = match T::of_mut(&mut self.state).delete(key, self.index, now) {
            true => Change::Deleted,
            false => Change::Absent,
        };
        let row = T::row_key(key);
        if change == Change::Deleted {
            self.touched.insert(row.clone());
        }
        OpResult {
            key: row,
            change,
            index: T::of(&self.state).index_of(key),
        }
    }

    /// Writes an instance, and what follows from it.
    fn put_instance(&mut self, instance: Instance) -> OpResult {
        let (key, service) = (instance.key_on_node(), instance.key());
        let before = self.state.instances.get(&key).map(|row| row.value.key());
        let result = self.put(instance, AGENT);
        if result.change == Change::Unchanged {
            return result;
        }
        match before {
            Some(before) if before == service => self.touch_endpoints(&service, 0),
            before => {
                if let Some(before) = before {
                    self.state.by_service.remove(&(before.clone(), key.clone()));
                    self.touch_endpoints(&before, -1);
                }
                self.state.by_service.insert((service.clone(), key));
                self.touch_endpoints(&service, 1);
            }
        }
        result
    }

    /// Deletes an instance, and what follows from it.
    fn delete_instance(&mut self, key: &InstanceKey) -> OpResult {
        let service = self.state.instances.get(key).map(|row| row.value.key());
        let result = self.delete::<Instance>(key);
        if let Some(service) = service {
            self.state
                .by_service
                .remove(&(service.clone(), key.clone()));
            self.touch_endpoints(&service, -1);
        }
        result
    }

    /// A service's endpoints changed, and their number by so many.
    fn touch_endpoints(&mut self, service: &Key, more: i64) {
        *self.endpoints.entry(service.clone()).or_default() += more;
    }

    /// The services outside that a gateway stands for.
    fn linked_by(&self, gateway: &Key) -> BTreeSet<Key> {
        let row = self.state.gateways.get(gateway);
        let linked = row.into_iter().flat_map(|row| row.value.linked());
        linked.map(|one| one.service.clone()).collect()
    }

    fn count_endpoints(&mut self) {
        // Where a gateway runs is where the services are called that it stands for.
        let changed = self.endpoints.keys();
        let linked: BTreeSet<Key> = changed.flat_map(|key| self.linked_by(key)).collect();
        for service in linked {
            self.touch_endpoints(&service, 0);
        }
        for (service, more) in std::mem::take(&mut self.endpoints) {
            let before = self.state.instance_count(&service);
            let instances = before.saturating_add_signed(more);
            if instances == 0 {
                self.delete::<Registered>(&service);
                continue;
            }
            let registered = Registered {
                service: service.clone(),
                instances,
            };
            if self.put(registered, AGENT).change == Change::Unchanged {
                let now = self.state.now;
                self.state.endpoints.touch(&service, self.index, now);
                self.touched.insert(RowKey::Endpoints(service));
            }
        }
    }

    /// A check-and-set: `expected` as in [`Op::Put`](crate::Op::Put).
    fn compare(&self, key: &RowKey, expected: Option<u64>) -> Result<(), Refusal> {
        let actual = self.state.row(key).map_or(0, |(index, _)| index);
        match expected {
            Some(expected) if expected != actual => Err(Refusal::Conflict {
                key: key.clone(),
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }
}

/// Where an instance is found.
trait OnNode {
    fn key_on_node(&self) -> InstanceKey;
}

impl OnNode for Instance {
    fn key_on_node(&self) -> InstanceKey {
        InstanceKey {
            node: self.node.clone(),
            id: self.id.clone(),
        }
    }
}

/// What a command did to these rows.
fn done(results: Vec<OpResult>) -> Applied {
    Applied {
        results,
        ..Applied::default()
    }
}

//! The state behind consensus: commands in their order into [`Store`].

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use mesh_model::Version;
use mesh_raft::{Machine, MachineError, SnapshotSource};
use mesh_state::{Command, CommandError, Envelope, Restore, SnapshotError, State, Store};
use tokio::runtime::RuntimeFlavor;
use tokio::sync::watch;

/// The version of the snapshot's body; the body has one of its own inside.
const FORMAT: u32 = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct StateMachine {
    store: Store,
    /// The highest level of commands that are known here.
    level: u32,
    versions: watch::Sender<Version>,
}

impl StateMachine {
    pub(crate) fn new(store: Store, level: u32) -> Self {
        let versions = watch::Sender::new(store.state().version());
        Self {
            store,
            level,
            versions,
        }
    }

    /// Tells of each version of the state.
    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.versions.subscribe()
    }

    fn publish(&self) {
        let version = self.store.state().version();
        self.versions.send_if_modified(|last| {
            let changed = *last != version;
            *last = version;
            changed
        });
    }
}

impl Machine for StateMachine {
    fn format(&self) -> u32 {
        FORMAT
    }

    fn apply(&self, index: u64, commands: &[Bytes]) -> Result<Vec<Bytes>, MachineError> {
        // All are read before one is applied: an entry is applied whole or not at all.
        let envelopes = commands
            .iter()
            .map(|bytes| Envelope::decode(bytes, self.level))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| match error {
                CommandError::Unknown(_) | CommandError::Level { .. } => {
                    MachineError::Unknown(format!("entry {index}: {error}"))
                }
                other => MachineError::Corrupt(format!("entry {index}: {other}")),
            })?;
        let finish =
            |one: &Envelope| matches!(one.command, Command::Restore(Restore::Finish { .. }));
        let outcomes = match envelopes.iter().any(finish) {
            // It reads a whole snapshot: what else this thread serves, heartbeats too, goes on.
            true => off_worker(|| self.store.apply(&envelopes)),
            false => self.store.apply(&envelopes),
        };
        self.publish();
        outcomes
            .iter()
            .map(|outcome| {
                let bytes = outcome.encode();
                bytes.map(Bytes::from).map_err(|error| {
                    MachineError::Corrupt(format!("entry {index}: its outcome: {error}"))
                })
            })
            .collect()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Source(self.store.state()))
    }

    fn restore(&self, format: u32, body: &mut dyn Read) -> Result<(), MachineError> {
        if format != FORMAT {
            return Err(MachineError::Format {
                found: format,
                known: FORMAT,
            });
        }
        let state = State::read_snapshot_up_to(body, self.level).map_err(|error| match error {
            SnapshotError::Newer(_) | SnapshotError::Level { .. } => {
                MachineError::Unknown(error.to_string())
            }
            other => MachineError::Corrupt(other.to_string()),
        })?;
        self.store.install(state);
        self.publish();
        Ok(())
    }
}

/// Runs what takes long, without holding up the tasks of this thread.
fn off_worker<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Handle::try_current();
    match runtime.map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

struct Source(Arc<State>);

impl SnapshotSource for Source {
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut buffered = io::BufWriter::new(out);
        self.0.write_snapshot(&mut buffered)?;
        buffered.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_model::Action;
    use mesh_state::Outcome;

    fn bootstrap() -> Bytes {
        let command = Command::Bootstrap {
            cluster_id: "c".into(),
            trust_domain: "c.mesh".into(),
            datacenter: "dc1".into(),
            epoch: "e1".into(),
            default_intention: Action::Deny,
        };
        Envelope::new(1, command).encode().unwrap().into()
    }

    #[test]
    fn applies_snapshots_and_restores() {
        let store = Store::default();
        let machine = StateMachine::new(store.clone(), mesh_state::LEVEL);
        let mut versions = machine.versions();
        let answers = machine.apply(1, &[bootstrap()]).unwrap();
        assert!(Outcome::decode(&answers[0]).unwrap().into_result().is_ok());
        assert!(versions.has_changed().unwrap());
        assert_eq!(versions.borrow_and_update().epoch, "e1");

        let mut body = Vec::new();
        machine.snapshot().write_to(&mut body).unwrap();
        let other = StateMachine::new(Store::default(), mesh_state::LEVEL);
        other.restore(FORMAT, &mut body.as_slice()).unwrap();
        assert_eq!(*other.store.state(), *store.state());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_takes_long_holds_nobody_up() {
        let (say, heard) = std::sync::mpsc::channel();
        // On the only worker, until another task of it has run.
        let long = tokio::spawn(async move {
            let waited = move || heard.recv_timeout(std::time::Duration::from_secs(60));
            off_worker(waited)
        });
        let other = tokio::spawn(async move { say.send(()) });
        other.await.unwrap().unwrap();
        long.await.unwrap().unwrap();
    }

    #[test]
    fn one_of_an_older_level_stops_at_what_is_newer() {
        let newer = mesh_state::LEVEL + 1;
        let store = Store::default();
        let machine = StateMachine::new(store.clone(), newer);
        let command = |command| Bytes::from(Envelope::new(1, command).encode().unwrap());
        let raise = command(Command::RaiseLevel { level: newer });
        let tomorrow = command(Command::Tomorrow {});
        let commands = [bootstrap(), raise.clone(), tomorrow.clone()];
        for answer in machine.apply(1, &commands).unwrap() {
            assert!(Outcome::decode(&answer).unwrap().into_result().is_ok());
        }
        let mut snapshot = Vec::new();
        machine.snapshot().write_to(&mut snapshot).unwrap();

        let store = Store::default();
        let older = StateMachine::new(store.clone(), mesh_state::LEVEL);
        older.apply(1, &[bootstrap()]).unwrap();
        let before = store.state();
        for command in [raise, tomorrow] {
            let error = older.apply(2, &[command]).unwrap_err();
            assert!(matches!(error, MachineError::Unknown(_)), "{error}");
            assert!(error.to_string().contains("level 2"), "{error}");
        }
        let error = older.restore(FORMAT, &mut snapshot.as_slice()).unwrap_err();
        assert!(matches!(error, MachineError::Unknown(_)), "{error}");
        assert_eq!(*store.state(), *before);
        let newer = StateMachine::new(Store::default(), newer);
        newer.restore(FORMAT, &mut snapshot.as_slice()).unwrap();
    }

    #[test]
    fn what_is_not_known_stops_and_changes_nothing() {
        let store = Store::default();
        let machine = StateMachine::new(store.clone(), mesh_state::LEVEL);
        let unknown = Bytes::from_static(b"{\"v\":1,\"time\":1,\"cmd\":{\"fly\":{}}}");
        let error = machine.apply(7, &[bootstrap(), unknown]).unwrap_err();
        assert!(matches!(error, MachineError::Unknown(_)), "{error}");
        assert!(error.to_string().contains("entry 7"), "{error}");
        assert!(store.state().is_empty());
        let damaged = machine.apply(8, &[Bytes::from_static(b"\xff")]);
        assert!(matches!(damaged, Err(MachineError::Corrupt(_))));
        let format = machine.restore(9, &mut io::empty());
        assert!(matches!(format, Err(MachineError::Format { found: 9, .. })));
        assert!(machine.restore(FORMAT, &mut &b"{}"[..]).is_err());
    }
}

//! openraft's own suite for stores.

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;

use super::Memory;
use crate::health::Reporter;
use crate::log::{LogLimits, LogStore};
use crate::sm::StateMachine;
use crate::types::{StorageError, TypeConfig};

struct Stores {
    cache_bytes: usize,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, watch::Sender<bool>)> for Stores {
    async fn build(
        &self,
    ) -> Result<((TempDir, watch::Sender<bool>), LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let health = Reporter::new();
        let limits = LogLimits {
            cache_bytes: self.cache_bytes,
            append_bytes: 1 << 20,
        };
        let log = LogStore::open(dir.path(), 1, limits, health.clone()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let (machine, _) = StateMachine::open(
            dir.path().join("snapshots"),
            std::sync::Arc::new(Memory::default()),
            watch::Sender::new(0),
            health,
            stopping,
        )
        .unwrap();
        Ok(((dir, stop), log, machine))
    }
}

#[test]
fn stores_are_as_openraft_wants_them() {
    Suite::test_all(Stores {
        cache_bytes: 1 << 20,
    })
    .unwrap();
}

#[test]
fn and_so_they_are_when_every_read_is_from_the_file() {
    Suite::test_all(Stores { cache_bytes: 0 }).unwrap();
}

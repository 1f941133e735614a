#![allow(clippy::unwrap_used)]
//! The log, its file, and what may happen to both.

use std::path::Path;

use openraft::storage::{RaftLogReaderExt, RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};

use super::*;
use crate::health::Health;
use crate::testing::PowerLoss;
use crate::types::Batch;

const LIMITS: LogLimits = LogLimits {
    cache_bytes: 1 << 20,
    append_bytes: 1 << 20,
};

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Batch::from(vec![format!("{term}.{index}").into_bytes()])),
    }
}

fn on(disk: &PowerLoss) -> Result<LogStore, LogError> {
    let backend = Box::new(disk.clone());
    LogStore::open_backend(backend, "log.redb".into(), 1, LIMITS, Reporter::new())
}

fn in_folder(dir: &Path, node: u64) -> Result<LogStore, LogError> {
    LogStore::open(dir, node, LIMITS, Reporter::new())
}

/// What is asked of a log, one after the other.
#[derive(Debug, Clone)]
enum Op {
    Vote(u64),
    /// Term, from, to (inclusive).
    Append(u64, u64, u64),
    Truncate(u64, u64),
    Purge(u64, u64),
    Committed(u64, u64),
}

fn script() -> Vec<Op> {
    use Op::*;
    let mut ops = vec![
        Vote(1),
        Append(1, 0, 3),
        Committed(1, 2),
        Append(1, 4, 9),
        Vote(2),
        Truncate(1, 8),
        Append(2, 8, 12),
        Purge(1, 5),
        Committed(2, 11),
        Vote(3),
        Append(3, 13, 13),
        // A snapshot from the leader went past the end.
        Purge(4, 20),
        Append(4, 21, 40),
    ];
    ops.extend((0..10).map(|n| Append(5, 41 + n * 10, 50 + n * 10)));
    ops.push(Truncate(5, 100));
    ops
}

async fn run(log: &mut LogStore, op: &Op) -> Result<(), StorageError> {
    match *op {
        Op::Vote(term) => log.save_vote(&Vote::new(term, 1)).await,
        Op::Append(term, from, to) => {
            let entries: Vec<Entry> = (from..=to).map(|i| entry(term, i)).collect();
            log.blocking_append(entries).await
        }
        Op::Truncate(term, index) => log.truncate(log_id(term, index)).await,
        Op::Purge(term, index) => log.purge(log_id(term, index)).await,
        Op::Committed(term, index) => log.save_committed(Some(log_id(term, index))).await,
    }
}

/// All of a log that counts. (What was committed may be behind.)
#[derive(Debug, Clone, PartialEq)]
struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: Vec<Entry>,
}

async fn contents(log: &mut LogStore) -> Contents {
    let state = log.get_log_state().await.unwrap();
    Contents {
        vote: log.read_vote().await.unwrap(),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: log.try_get_log_entries(..).await.unwrap(),
    }
}

#[tokio::test]
async fn power_may_go_at_any_sync() {
    let ops = script();
    // What there is after each op, and how many syncs it all takes.
    let disk = PowerLoss::new();
    let mut log = on(&disk).unwrap();
    let setting_up = disk.syncs();
    let mut after = vec![contents(&mut log).await];
    for op in &ops {
        run(&mut log, op).await.unwrap();
        after.push(contents(&mut log).await);
    }
    let syncs = disk.syncs();
    assert!(
        syncs - setting_up >= ops.len() as u64 - 2,
        "each op but `Committed` syncs"
    );
    log.close().await;

    for cut in 1..=syncs {
        let disk = PowerLoss::new();
        disk.cut_at_sync(cut);
        let mut acked = 0;
        if let Ok(mut log) = on(&disk) {
            for op in &ops {
                if run(&mut log, op).await.is_err() {
                    break;
                }
                acked += 1;
            }
            // After its first error it takes nothing.
            if acked < ops.len() {
                run(&mut log, &Op::Vote(99)).await.unwrap_err();
            }
            log.close().await;
        }
        // What was not synced is gone, or some of it is there, torn and out of order.
        for chance in std::iter::once(None).chain((0..8).map(|n| Some(cut * 1000 + n))) {
            let disk = disk.after_power_loss(chance);
            let mut log = match on(&disk) {
                // A file that was never whole; in a folder it has no name yet.
                Err(_) if cut <= setting_up => continue,
                log => log.unwrap(),
            };
            let found = contents(&mut log).await;
            let allowed = &after[acked..=(acked + 1).min(ops.len())];
            assert!(
                allowed.contains(&found),
                "cut at {cut} ({chance:?}), {acked} ops acked: {found:?} is none of {allowed:?}"
            );
            log.close().await;
        }
    }
}

#[tokio::test]
async fn what_waits_is_committed_at_once() {
    let disk = PowerLoss::new();
    let log = on(&disk).unwrap();
    let before = disk.syncs();
    let votes = (1..=100).map(|term| log.change(Change::Vote(Vote::new(term, 1))));
    for done in futures::future::join_all(votes).await {
        done.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs <= 100, "{syncs}");
    // All hundred stand in the queue before the first is answered, at most a few
    // commits take them.
    assert!(syncs < 60, "{syncs} syncs for 100 changes");
    log.close().await;
}

#[tokio::test]
async fn committed_is_on_disk_after_a_moment_of_quiet() {
    let disk = PowerLoss::new();
    let mut log = on(&disk).unwrap();
    run(&mut log, &Op::Append(1, 0, 5)).await.unwrap();
    let before = disk.syncs();
    run(&mut log, &Op::Committed(1, 4)).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 4)));
    while disk.syncs() == before {
        tokio::time::sleep(QUIET).await;
    }
    // The sync was counted as it began; an answered job comes after it.
    log.change(Change::Vote(Vote::new(1, 1))).await.unwrap();
    let mut again = on(&disk.after_power_loss(None)).unwrap();
    assert_eq!(again.read_committed().await.unwrap(), Some(log_id(1, 4)));
    log.close().await;
}

#[tokio::test]
async fn reads_are_the_same_from_memory_and_from_the_file() {
    let disk = PowerLoss::new();
    let mut log = on(&disk).unwrap();
    for op in script() {
        run(&mut log, &op).await.unwrap();
    }
    let small = LogLimits {
        cache_bytes: 0,
        append_bytes: 200,
    };
    let copy = PowerLoss::with_bytes(disk.bytes());
    let mut cold =
        LogStore::open_backend(Box::new(copy), "x".into(), 1, small, Reporter::new()).unwrap();
    for (start, end) in [(0, 200), (20, 22), (21, 22), (50, 80), (95, 110), (7, 3)] {
        let (a, b) = (
            log.try_get_log_entries(start..end).await.unwrap(),
            cold.try_get_log_entries(start..end).await.unwrap(),
        );
        assert_eq!(a, b, "{start}..{end}");
    }
    // Limited, but never to nothing.
    let few = cold.limited_get_log_entries(21, 90).await.unwrap();
    assert!(!few.is_empty() && few.len() < 20, "{}", few.len());
    assert_eq!(cold.get_log_id(30).await.unwrap(), log_id(4, 30));
    log.close().await;
    cold.close().await;
}

#[tokio::test]
async fn a_folder_belongs_to_one_node_and_is_not_taken_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = in_folder(dir.path(), 1).unwrap();
    run(&mut log, &Op::Append(1, 0, 3)).await.unwrap();
    let e = in_folder(dir.path(), 1).err().unwrap();
    assert!(matches!(e, LogError::InUse { .. }), "{e}");
    log.close().await;
    let e = in_folder(dir.path(), 2).err().unwrap().to_string();
    assert!(e.contains("belongs to node 1, not to node 2"), "{e}");

    let file = dir.path().join("log.redb");
    let whole = std::fs::read(&file).unwrap();
    assert!(!dir.path().join("log.new").exists());
    for gone in [
        |f: &Path| std::fs::remove_file(f),
        |f: &Path| std::fs::write(f, ""),
    ] {
        gone(&file).unwrap();
        let e = in_folder(dir.path(), 1).err().unwrap();
        assert!(matches!(e, LogError::Missing { node: 1, .. }), "{e}");
    }
    std::fs::write(&file, whole).unwrap();
    let log = in_folder(dir.path(), 1).unwrap();
    log.close().await;
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_named() {
    let disk = PowerLoss::new();
    let mut log = on(&disk).unwrap();
    run(&mut log, &Op::Append(1, 0, 3)).await.unwrap();
    run(&mut log, &Op::Append(1, 4, 4)).await.unwrap();
    log.close().await;
    {
        let backend = disk.clone();
        let db = redb::Database::builder()
            .create_with_backend(backend)
            .unwrap();
        let txn = db.begin_write().unwrap();
        {
            let table: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("log");
            let mut table = txn.open_table(table).unwrap();
            table.insert(2, &[7u8, 1, 2, 3][..]).unwrap();
        }
        txn.commit().unwrap();
    }
    let mut log = on(&disk).unwrap();
    let e = log.try_get_log_entries(0..5).await.unwrap_err().to_string();
    assert!(
        e.contains("log log.redb: entry 2 has version 7, this server reads up to 1"),
        "{e}"
    );
    assert_eq!(log.try_get_log_entries(3..5).await.unwrap().len(), 2);
    log.close().await;
}

#[tokio::test]
async fn a_disk_that_fails_is_seen() {
    let disk = PowerLoss::new();
    let health = Reporter::new();
    let backend = Box::new(disk.clone());
    let mut log =
        LogStore::open_backend(backend, "log.redb".into(), 1, LIMITS, health.clone()).unwrap();
    run(&mut log, &Op::Append(1, 0, 3)).await.unwrap();
    disk.cut_at_sync(1);
    let e = run(&mut log, &Op::Append(1, 4, 4))
        .await
        .unwrap_err()
        .to_string();
    assert!(e.contains("log.redb") && e.contains("power is off"), "{e}");
    let Health::Failed(reason) = health.watch().borrow().clone() else {
        panic!("{:?}", health.watch().borrow().clone());
    };
    assert!(
        reason.contains("takes no writes until it is started again"),
        "{reason}"
    );
    // What was there can still be read, and what failed is not.
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 4);
    log.close().await;
}

#[test]
fn a_damaged_file_is_an_error_and_never_a_panic() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let disk = PowerLoss::new();
    let expected = runtime.block_on(async {
        let mut log = on(&disk).unwrap();
        for op in script() {
            run(&mut log, &op).await.unwrap();
        }
        let expected = contents(&mut log).await;
        log.close().await;
        expected
    });
    let whole = disk.bytes();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {})); // redb's own, which we catch
    let mut wrong = 0;
    let mut try_bytes = |bytes: Vec<u8>, what: String| {
        let disk = PowerLoss::with_bytes(bytes);
        let outcome = runtime.block_on(async {
            let mut log = on(&disk)?;
            let state = log.get_log_state().await.unwrap();
            let entries = log.try_get_log_entries(..).await;
            let vote = log.read_vote().await.unwrap();
            log.close().await;
            let entries = entries.map_err(|e| log.shared.io_error(e.to_string()))?;
            Ok::<_, LogError>(Contents {
                vote,
                purged: state.last_purged_log_id,
                last: state.last_log_id,
                entries,
            })
        });
        match outcome {
            Ok(found) => assert_eq!(found.entries, expected.entries, "{what}"),
            Err(e) => {
                wrong += 1;
                assert!(e.to_string().contains("log.redb"), "{what}: {e}");
            }
        }
    };
    // Only pages that hold something: the rest of the file is zeros.
    let used: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] != 0).collect();
    for n in 0..300 {
        let at = used[n * used.len() / 300];
        // The header's own bytes are redb's to protect; from a wrong one of them it
        // may go back to an older commit.
        if at < 4096 {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (n % 8);
        try_bytes(bytes, format!("bit {} of byte {at}", n % 8));
    }
    for cut in [1, 100, 4096, 5000, whole.len() / 2, whole.len() - 1] {
        try_bytes(whole[..cut].to_vec(), format!("cut at {cut}"));
    }
    try_bytes(b"not a database at all".repeat(1000), "noise".to_owned());
    std::panic::set_hook(hook);
    assert!(wrong > 10, "the damage was found: {wrong}");
}

//! The record of what this server signed, so that a leaf is found by its service and can be revoked.
//!
//! A leaf is given out at once, and recorded within a second, with all others of that second in one
//! command: whoever wants a leaf does not wait for consensus, and ten thousand sidecars whose leaves
//! live a day cost the log some forty bytes a second. What a server that is killed had not recorded
//! yet is revoked by its serial number all the same, which the sidecar's log has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_ca::IssuedLeaf;
use mesh_model::{Key, serial_number};
use mesh_state::{Command, MAX_LEAVES, SignedLeaf};
use tokio::sync::Notify;

use crate::core::Core;

/// Between two commands.
const EVERY: Duration = Duration::from_secs(1);
/// Leaves of one command: far less than a command may have bytes.
const AT_ONCE: usize = 2048;
/// At its end a server tries for so long to record what is left.
const LAST: Duration = Duration::from_secs(2);

/// What was signed and is not recorded yet.
#[derive(Debug, Default)]
pub(crate) struct Unrecorded {
    leaves: Mutex<VecDeque<SignedLeaf>>,
    some: Notify,
}

impl Unrecorded {
    /// One more. Where no command gets through for long the oldest are forgotten, as they would be
    /// by the record itself.
    pub(crate) fn push(&self, leaf: SignedLeaf) {
        let mut leaves = self.leaves();
        leaves.push_back(leaf);
        if leaves.len() > MAX_LEAVES {
            leaves.pop_front();
        }
        drop(leaves);
        self.some.notify_one();
    }

    fn leaves(&self) -> MutexGuard<'_, VecDeque<SignedLeaf>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is recorded of a leaf.
pub(crate) fn signed(
    leaf: &IssuedLeaf,
    public_key: &[u8],
    service: &Key,
    (node, proxy): (&str, &str),
    now: u64,
) -> SignedLeaf {
    SignedLeaf {
        serial: serial_number(&leaf.serial).unwrap_or_else(|| leaf.serial.clone()),
        key: key_id(public_key),
        service: service.clone(),
        node: node.to_owned(),
        proxy: proxy.to_owned(),
        signed: now,
        not_after: leaf.not_after,
    }
}

/// What a public key is known by: SHA-256 of its DER, in hex.
pub(super) fn key_id(public_key: &[u8]) -> String {
    let digest = mesh_tls::fingerprint(public_key);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Records what is signed here, for as long as the server runs.
pub(crate) async fn record(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.ca.unrecorded.some.notified() => {}
            () = core.stop.cancelled() => break,
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.stop.cancelled() => break,
        }
        flush(&core).await;
    }
    let _ = tokio::time::timeout(LAST, flush(&core)).await;
}

/// Records what was signed here until now. What cannot be recorded waits for the next time, as does
/// what is signed meanwhile: who went on until nothing is left would commit a few at a time, for as
/// long as leaves are asked for.
pub(crate) async fn flush(core: &Core) {
    let mut due = core.ca.unrecorded.leaves().len();
    while due > 0 {
        let leaves: Vec<SignedLeaf> = {
            let mut waiting = core.ca.unrecorded.leaves();
            let count = waiting.len().min(due).min(AT_ONCE);
            waiting.drain(..count).collect()
        };
        if leaves.is_empty() {
            return;
        }
        due -= leaves.len();
        let command = Command::RecordLeaves {
            leaves: leaves.clone(),
        };
        if let Err(error) = core.write(command).await {
            tracing::warn!(%error, "what was signed here is not recorded yet; it is tried again");
            for leaf in leaves.into_iter().rev() {
                core.ca.unrecorded.leaves().push_front(leaf);
            }
            core.ca.unrecorded.some.notify_one();
            return;
        }
    }
}

//! Certificates of native instances: applications that are in the mesh by themselves, and ask for
//! a certificate with its key.
//!
//! The key is made here, since that is what such an application expects, and stands in memory
//! only: after a restart of the agent there is another one. A server signs for it as for a
//! sidecar's, by the agent's own certificate and what the node has registered; to whom it is given
//! is decided before anybody comes here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_tls::{GivenKey, Leaf, PeerLeaf, RevokedBy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::View;
use crate::clock::Clock;
use crate::facts::Facts;
use crate::revoked;
use crate::uplink::{SignError, Signer};

/// How long a renewal may hold up somebody who wants what there is.
const RENEWAL: Duration = Duration::from_secs(5);
/// Before the second try to renew while somebody waits; then twice as long each time,
const AGAIN: Duration = Duration::from_secs(2);
/// up to this.
const LONGEST: Duration = Duration::from_secs(60);

/// A certificate and its key.
pub(crate) struct Given {
    pub(crate) key: GivenKey,
    pub(crate) leaf: Leaf,
    /// Another one has another index, also after a restart of the agent: the time at which it was
    /// made, in milliseconds since 1970.
    pub(crate) index: u64,
    renew: End,
    late: End,
    end: End,
    told_late: AtomicBool,
}

/// A moment by the clock and by what has passed: whichever comes first counts, so that a clock that
/// is set back makes nothing last longer.
struct End {
    clock: SystemTime,
    passed: Instant,
}

/// Those of this node, by the instance's id.
pub(crate) struct Leaves {
    signer: Arc<dyn Signer>,
    clock: Arc<dyn Clock>,
    facts: Arc<Facts>,
    held: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Held while one is made: all who wait get the same.
    making: tokio::sync::Mutex<()>,
    given: watch::Sender<Option<Arc<Given>>>,
}

impl Leaves {
    pub(crate) fn new(signer: Arc<dyn Signer>, clock: Arc<dyn Clock>, facts: Arc<Facts>) -> Self {
        Self {
            signer,
            clock,
            facts,
            held: Mutex::default(),
        }
    }

    /// The instance's certificate. One with the index `known` is waited out until it is due to be
    /// renewed, or until `wait` is over: then it is the answer.
    pub(crate) async fn of(
        &self,
        instance: &str,
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Arc<Given>, SignError> {
        let deadline = Instant::now() + wait;
        let slot = self.held().entry(instance.to_owned()).or_default().clone();
        let mut changed = slot.given.subscribe();
        let mut facts = self.facts.watch();
        let mut again = AGAIN;
        loop {
            let given = changed.borrow_and_update().clone();
            let given = given.filter(|it| self.left(&it.end) > Duration::ZERO);
            // One that is revoked is none: there is another key with the next.
            let given = given.filter(|it| !self.is_revoked(it));
            let Some(given) = given else {
                // Nothing to go on with.
                let making = self.make(&slot, instance);
                return match tokio::time::timeout_at(deadline, making).await {
                    Ok(made) => made,
                    Err(_) => Err(SignError::new("no server signed in time; ask again")),
                };
            };
            let fresh = self.left(&given.renew);
            self.tell_late(&given, instance);
            if known != Some(given.index) {
                if fresh > Duration::ZERO {
                    return Ok(given);
                }
                let making = tokio::time::timeout(RENEWAL, self.make(&slot, instance));
                return match making.await {
                    Ok(Ok(made)) => Ok(made),
                    Ok(Err(_)) | Err(_) => Ok(given),
                };
            }
            if Instant::now() >= deadline {
                return Ok(given);
            }
            let until = deadline.min(Instant::now() + fresh);
            if fresh > Duration::ZERO {
                tokio::select! {
                    _ = tokio::time::timeout_at(until, changed.changed()) => {}
                    // It may have been revoked.
                    _ = facts.changed() => {}
                }
                continue;
            }
            match tokio::time::timeout_at(deadline, self.make(&slot, instance)).await {
                Ok(Ok(made)) => return Ok(made),
                Ok(Err(error)) => {
                    tracing::warn!(instance, %error, "a native service's certificate is not renewed");
                    let wait = again.mul_f64(rand::random_range(0.5..=1.0));
                    again = (again * 2).min(LONGEST);
                    tokio::time::sleep_until(deadline.min(Instant::now() + wait)).await;
                }
                Err(_) => return Ok(given),
            }
        }
    }

    fn is_revoked(&self, given: &Given) -> bool {
        let leaf = given.leaf.chain.first();
        let leaf = leaf.and_then(|leaf| PeerLeaf::read(leaf).ok());
        let revoked = revoked::of(&self.facts);
        let by = revoked.zip(leaf).map(|(all, leaf)| all.covers(&leaf));
        // What is not understood is no word of this one.
        matches!(by, Some(Some(RevokedBy::Identity | RevokedBy::Leaf)))
    }

    /// Forgets those of instances that are native no longer, or are gone.
    pub(crate) fn retain(&self, view: &View) {
        self.held().retain(|id, _| {
            let entry = view.instance(id);
            entry.is_some_and(|entry| entry.registration.native)
        });
    }

    /// Makes one, unless another has just done so.
    async fn make(&self, slot: &Slot, instance: &str) -> Result<Arc<Given>, SignError> {
        let before = slot.given.borrow().as_ref().map(|it| it.index);
        let _making = slot.making.lock().await;
        if let Some(made) = slot.given.borrow().clone()
            && Some(made.index) != before
        {
            return Ok(made);
        }
        let crypto = |error: mesh_tls::csr::CsrError| SignError::new(error.to_string());
        let key = GivenKey::generate().map_err(crypto)?;
        let csr = key.csr().map_err(crypto)?;
        let chain = self.signer.sign(instance, csr).await?;
        let chain = chain.into_iter().map(Into::into).collect();
        let leaf = Leaf::parse("the certificate that a server signed", chain)
            .map_err(|error| SignError::new(error.to_string()))?;
        let now = self.clock.now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let index = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let end = |clock: SystemTime| End {
            clock,
            passed: Instant::now() + clock.duration_since(now).unwrap_or_default(),
        };
        let life = leaf.not_after.duration_since(now).unwrap_or_default();
        let given = Arc::new(Given {
            renew: end(leaf.renew_at(now, rand::random())),
            late: end(now + life / 3 * 2),
            end: end(leaf.not_after),
            told_late: AtomicBool::new(false),
            // Two within one millisecond are two all the same.
            index: before.map_or(index, |before| index.max(before + 1)).max(1),
            key,
            leaf,
        });
        tracing::info!(
            instance,
            serial = given.leaf.serial,
            "a certificate was made for a native service"
        );
        slot.given.send_replace(Some(given.clone()));
        Ok(given)
    }

    /// Tells once of one whose last third has begun.
    fn tell_late(&self, given: &Given, instance: &str) {
        if self.left(&given.late) == Duration::ZERO && !given.told_late.swap(true, Relaxed) {
            tracing::error!(
                instance,
                serial = given.leaf.serial,
                "a native service's certificate is in the last third of its life, and is not \
                 renewed yet"
            );
        }
    }

    fn left(&self, until: &End) -> Duration {
        let by_clock = until.clock.duration_since(self.clock.now());
        let passed = until.passed.saturating_duration_since(Instant::now());
        by_clock.unwrap_or_default().min(passed)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        // Each change is one step, so a poisoned one is as good.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

//! What every part of a server shares: the state, consensus, who is connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_model::Version;
use mesh_nomad::Servers;
use mesh_raft::{Peer, RaftNode};
use mesh_state::{Applied, Command, Envelope, Outcome, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ca::Ca;
use crate::clock::Clock;
use crate::error::{ReadFailure, WriteFailure};
use crate::feed::{Facts, Registry};
use crate::lease::Leases;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::options::{Limits, ServerOptions, Timing};
use crate::peers::PeerClients;

/// See the module.
pub(crate) struct Core {
    pub(crate) me: Peer,
    pub(crate) options: Settings,
    /// Where other servers may be.
    pub(crate) others: Servers,
    pub(crate) store: Store,
    pub(crate) raft: RaftNode,
    /// Each version of the state.
    pub(crate) versions: watch::Receiver<Version>,
    pub(crate) ca: Ca,
    pub(crate) facts: Facts,
    pub(crate) registry: Registry,
    /// What is registered with this server itself.
    pub(crate) local: Option<Arc<dyn Local>>,
    pub(crate) leases: Leases,
    pub(crate) peers: PeerClients,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    /// The last term in which this server proved to lead; 0: none.
    pub(crate) proved: AtomicU64,
    /// On the leader: held for reading while a server is let in, for writing while the level is
    /// raised, which is for all who were let in.
    pub(crate) members: tokio::sync::RwLock<()>,
    pub(crate) stop: CancellationToken,
}

/// What of the options is needed while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) datacenter: String,
    pub(crate) trust_domain: Option<String>,
    pub(crate) default_intention: mesh_model::Action,
    pub(crate) formation: crate::options::Formation,
    pub(crate) ca: mesh_ca::CaConfig,
    /// What a new mesh takes over.
    pub(crate) import: Option<mesh_model::config::CaImport>,
    pub(crate) allow_short_ttl: bool,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    /// Whether agents may pass on the entries of gateways.
    pub(crate) agents_write_gateways: bool,
    /// The highest level that this server speaks.
    pub(crate) level: u32,
}

impl Settings {
    pub(crate) fn of(options: &ServerOptions) -> Self {
        Self {
            datacenter: options.datacenter.clone(),
            trust_domain: options.trust_domain.clone(),
            default_intention: options.default_intention,
            formation: options.formation,
            ca: options.ca.clone(),
            import: options.import.clone(),
            allow_short_ttl: options.allow_short_ttl,
            timing: options.timing.clone(),
            limits: options.limits.clone(),
            agents_write_gateways: options.agents_write_gateways,
            level: options.level,
        }
    }
}

/// How fresh a read must be; see the API's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As of now: the leader by its lease, others by asking the leader.
    Default,
    /// As of now, proved by a majority.
    Consistent,
    /// As it is here.
    Stale,
}

impl Core {
    /// Writes a command through the leader, and waits until it is applied here.
    pub(crate) async fn write(&self, command: Command) -> Result<Applied, WriteFailure> {
        self.write_within(command, self.options.timing.request)
            .await
    }

    pub(crate) async fn write_within(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<Applied, WriteFailure> {
        let begin = Instant::now();
        let result = self.propose(command, limit, false).await;
        self.metrics
            .write_seconds
            .observe(begin.elapsed().as_secs_f64());
        let outcome = match &result {
            Ok(_) => "ok",
            Err(WriteFailure::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        self.metrics.writes.with_label_values(&[outcome]).inc();
        result
    }

    /// Writes as the leader or not at all: for what was decided by what this leader knows.
    pub(crate) async fn write_as_leader(&self, command: Command) -> Result<Applied, WriteFailure> {
        let limit = self.options.timing.request;
        self.propose(command, limit, true).await
    }

    /// What was written is told as done also when it is not applied here within `limit`: it is
    /// done. Who then looks here for what was written may see what was before.
    async fn propose(
        &self,
        command: Command,
        limit: Duration,
        here: bool,
    ) -> Result<Applied, WriteFailure> {
        let begin = Instant::now();
        self.store.state().admits(&command)?;
        let bytes = Envelope::new(self.clock.unix_millis(), command).encode()?;
        let written = match here {
            true => self.raft.write(bytes).await?,
            false => self.raft.write_anywhere(bytes, limit).await?,
        };
        // Whoever reads here next sees what it wrote.
        let mut applied = self.raft.watch_applied();
        let here = applied.wait_for(|applied| *applied >= written.index);
        let left = limit.saturating_sub(begin.elapsed());
        if tokio::time::timeout(left, here).await.is_err() {
            tracing::warn!(
                index = written.index,
                "what was written is not applied here yet"
            );
        }
        let outcome = Outcome::decode(&written.answer);
        let outcome = outcome.map_err(|error| WriteFailure::Answer(error.to_string()))?;
        Ok(outcome.into_result()?)
    }

    /// Makes the state here as fresh as asked. Whether that hangs on the leader's lease, and so
    /// only holds for as long; see [`Self::is_leased`].
    pub(crate) async fn fresh(&self, freshness: Freshness) -> Result<bool, ReadFailure> {
        if freshness == Freshness::Stale {
            return Ok(false);
        }
        if freshness == Freshness::Default && self.is_leased() {
            return Ok(true);
        }
        let term = self.leads();
        self.raft.linearize(self.options.timing.request).await?;
        if let (Some(before), Some(now)) = (term, self.leads())
            && before == now
        {
            self.proved.store(now, Ordering::Release);
        }
        Ok(false)
    }

    /// Whether this server leads, was heard by a majority so lately that no
    /// other can lead, and has all that was acknowledged. The last is so after
    /// one proof in its term: what is acknowledged later is applied here first.
    /// (A leader that was restarted leads on in its term, and replays its log.)
    pub(crate) fn is_leased(&self) -> bool {
        let contact = self.raft.last_contact();
        self.leads() == Some(self.proved.load(Ordering::Acquire))
            && contact.is_some_and(|age| age < self.lease())
    }

    /// The term in which this server leads.
    pub(crate) fn leads(&self) -> Option<u64> {
        let leadership = self.raft.watch_leadership();
        let leadership = leadership.borrow();
        leadership.is_leader.then_some(leadership.term)
    }

    /// No other server can be elected so soon after a majority was heard:
    /// under the shortest election time.
    fn lease(&self) -> Duration {
        self.options.timing.raft_heartbeat * 3
    }

    /// Whether this server has not heard of the leader for too long to speak
    /// for the cluster.
    pub(crate) fn is_cut_off(&self) -> bool {
        let age = self.raft.last_contact();
        self.raft.leader().is_none() && age.is_none_or(|age| age > self.options.timing.leader_grace)
    }
}

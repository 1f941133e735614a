//! What the leader does beside leading: it names a new cluster, raises the cluster's
//! level, judges leases, and lets go of nodes that are silent for days.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mesh_model::NodeState;
use mesh_state::{Command, Restore};

use crate::core::{Core, Freshness};
use crate::error::WriteFailure;
use crate::{lease, local};

/// Between two looks at what is seldom due.
const SELDOM: Duration = Duration::from_secs(30);

/// A restore without a new piece for so long is given up. Longer than a piece may take.
const RESTORE_STANDS: Duration = Duration::from_secs(50);

/// Leases: the leader judges, followers pass on. For as long as the server runs.
pub(crate) async fn leases(core: Arc<Core>) {
    let step = core.options.timing.lease / 15;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.clock.sleep(step) => {
                local::heartbeat(&core);
                lease::tick(&core).await;
            }
        }
    }
}

/// The leader's other duties, for as long as the server runs.
pub(crate) async fn duties(core: Arc<Core>) {
    let mut leadership = core.raft.watch_leadership();
    let mut restore = None;
    loop {
        let leads = leadership.borrow_and_update().is_leader;
        let pause = match leads {
            true => lead(&core, &mut restore).await,
            false => {
                restore = None;
                SELDOM * 100
            }
        };
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = core.clock.sleep(pause) => {}
        }
    }
}

/// One round; how long until the next.
async fn lead(core: &Core, restore: &mut Option<Begun>) -> Duration {
    let soon = core.options.timing.join_retry;
    if let Err(error) = core.fresh(Freshness::Consistent).await {
        tracing::debug!(%error, "this server leads, but cannot yet prove it");
        return soon;
    }
    if core.store.state().is_empty()
        && let Err(error) = name_cluster(core).await
    {
        tracing::warn!(%error, "the cluster is not named yet");
        return soon;
    }
    raise_level(core).await;
    reap(core).await;
    sweep(core).await;
    give_up(core, restore).await;
    SELDOM.min(core.options.timing.node_ttl / 4)
}

async fn name_cluster(core: &Core) -> Result<(), WriteFailure> {
    let cluster_id = uuid::Uuid::new_v4().to_string();
    let trust_domain = core.options.trust_domain.clone();
    let command = Command::Bootstrap {
        trust_domain: trust_domain.unwrap_or_else(|| format!("{cluster_id}.mesh")),
        datacenter: core.options.datacenter.clone(),
        epoch: uuid::Uuid::new_v4().simple().to_string(),
        default_intention: core.options.default_intention,
        cluster_id: cluster_id.clone(),
    };
    core.write(command).await?;
    tracing::info!(cluster = %cluster_id, "a cluster was begun");
    Ok(())
}

/// Once every server speaks a level, commands of it may be proposed. Learners are asked too: one
/// that is catching up will vote without being asked again. And none is let in meanwhile, since
/// nobody would ask it; nor is it raised by another leader, who may have let in others.
pub(crate) async fn raise_level(core: &Core) {
    let own = core.options.level;
    if core.store.state().level() >= own {
        return;
    }
    let _nobody_comes = core.members.write().await;
    if core.fresh(Freshness::Consistent).await.is_err() {
        return;
    }
    let (term, level) = (core.leads(), core.store.state().level());
    let status = core.raft.status();
    let members = status.voters.iter().chain(&status.learners);
    let others = members.filter(|peer| peer.id != core.me.id);
    let asked = others.map(|peer| async {
        let answer = core.peers.identify(&peer.addr).await;
        (peer.name.as_str(), answer.map_or(0, |one| one.level))
    });
    let spoken = join_all(asked).await;
    let common = spoken.iter().map(|(_, level)| *level).min();
    let common = common.unwrap_or(own).min(own);
    if common < own {
        let behind = spoken.iter().filter(|(_, spoken)| *spoken < own);
        let behind: Vec<&str> = behind.map(|(name, _)| *name).collect();
        tracing::info!(
            level,
            next = own,
            servers = behind.join(" "),
            "the next level waits for servers that are older or away"
        );
    }
    if common > level && term.is_some() && term == core.leads() {
        let raise = Command::RaiseLevel { level: common };
        match core.write_as_leader(raise).await {
            Ok(_) => tracing::info!(level = common, "every server speaks a new level"),
            Err(error) => tracing::warn!(%error, "the cluster's level was not raised"),
        }
    }
}

/// Nodes that are silent for longer than their time.
async fn reap(core: &Core) {
    let ttl = core.options.timing.node_ttl.as_millis() as u64;
    let now = core.clock.unix_millis();
    let due = core.store.state().nodes().any(|row| match row.value.state {
        NodeState::Alive => false,
        NodeState::Silent { since } => since.saturating_mul(1000).saturating_add(ttl) <= now,
    });
    if due && let Err(error) = core.write(Command::ReapNodes { ttl }).await {
        tracing::warn!(%error, "nodes that are gone were not dropped");
    }
}

/// Leaves that have ended, and revocations of such.
async fn sweep(core: &Core) {
    let now = core.clock.unix_millis() / 1000;
    let due = core.store.state().has_ended_leaves(now);
    if due && let Err(error) = core.write(Command::SweepLeaves {}).await {
        tracing::warn!(%error, "leaves that have ended were not forgotten");
    }
}

/// A restore that has begun, as it was seen first.
struct Begun {
    id: String,
    pieces: usize,
    at: Duration,
}

/// Gives up a restore that does not go on: the server that wrote its pieces is gone. They would
/// stay in the state, and in every snapshot.
async fn give_up(core: &Core, seen: &mut Option<Begun>) {
    let state = core.store.state();
    let Some((id, pieces)) = state.restoring() else {
        *seen = None;
        return;
    };
    let now = core.clock.monotonic();
    let begun = seen.take_if(|begun| begun.id == id && begun.pieces == pieces);
    let begun = begun.unwrap_or_else(|| Begun {
        id: id.to_owned(),
        pieces,
        at: now,
    });
    if now.saturating_sub(begun.at) < RESTORE_STANDS {
        *seen = Some(begun);
        return;
    }
    tracing::warn!(id, pieces, "a restore does not go on, and is given up");
    let id = id.to_owned();
    if let Err(error) = core.write(Command::Restore(Restore::Abort { id })).await {
        tracing::warn!(%error, "a restore was not given up; it is tried again");
        *seen = Some(begun);
    }
}

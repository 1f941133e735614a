//! Doing what was decided, until this server belongs to a cluster.

use std::time::Duration;

use futures::future::join_all;
use mesh_proto::servers::v1::{IdentifyResponse, JoinRequest};
use mesh_raft::{MemberError, Peer};
use tonic::Status;

use super::decide::{Seen, Step, decide};
use crate::core::{Core, Freshness};

/// Who this server is, for one that asks before it makes a cluster.
pub(crate) async fn identity(core: &Core) -> IdentifyResponse {
    let cluster = core.store.state();
    let cluster = cluster.cluster().map(|row| row.value.cluster_id.clone());
    // In the moments between Raft's first entry and the cluster's name there is one already.
    let initialized = core.raft.is_initialized().await.unwrap_or(true);
    let unnamed = if initialized { "unnamed" } else { "" };
    IdentifyResponse {
        cluster_id: cluster.unwrap_or_else(|| unnamed.to_owned()),
        server: core.me.name.clone(),
        leader: core
            .raft
            .leader()
            .map(|leader| leader.addr)
            .unwrap_or_default(),
        id: core.me.id,
        address: core.me.addr.clone(),
        level: core.options.level,
        reaches_vault: core.ca.vault.is_some(),
        reaches_aws: core.ca.aws.is_built(),
    }
}

/// Takes a server into the cluster, as its leader. One that had its address before is gone, with its data:
/// it would only count against the majority.
pub(crate) async fn admit(core: &Core, peer: Peer, limit: Duration) -> Result<(), Status> {
    if peer.id == 0 || peer.addr.is_empty() {
        return Err(Status::invalid_argument(
            "a server needs an id and an address",
        ));
    }
    let letting_in = core.members.read().await;
    // What another leader did before is known here from now on.
    let fresh = core.fresh(Freshness::Consistent).await;
    fresh.map_err(|error| Status::unavailable(error.to_string()))?;
    // Two servers that say one address would push each other out.
    let there = core.peers.identify(&peer.addr).await;
    match there {
        Ok(there) if there.id == peer.id => {
            // It may have been raised since the server asked.
            let needs = core.store.state().level();
            if there.level < needs {
                return Err(Status::failed_precondition(format!(
                    "the cluster is at level {needs}, and the server speaks up to {}; upgrade it",
                    there.level
                )));
            }
        }
        Ok(there) => {
            return Err(Status::failed_precondition(format!(
                "at {} is server {} ({}), not the one that asks; set advertise_addr to an address of its own",
                peer.addr, there.id, there.server
            )));
        }
        Err(error) => {
            return Err(Status::failed_precondition(format!(
                "the server is not reached at {}: {}; set advertise_addr to where others reach it",
                peer.addr,
                error.message()
            )));
        }
    }
    let status = core.raft.status();
    let members = status.voters.iter().chain(&status.learners);
    let replaced: Vec<u64> = members
        .filter(|member| member.addr == peer.addr && member.id != peer.id)
        .map(|member| member.id)
        .collect();
    for id in replaced {
        tracing::warn!(id, server = %peer, "a server came back without its data: its old self is removed");
        let removed = core.raft.remove_peer(id, limit).await;
        removed.map_err(|error| member_status(&error))?;
    }
    // From then on it is asked before the level is raised; it may catch up without holding that up.
    let let_in = core.raft.add_learner(peer.clone(), limit).await;
    let_in.map_err(|error| member_status(&error))?;
    drop(letting_in);
    let added = core.raft.add_voter(peer.clone(), limit).await;
    added.map_err(|error| member_status(&error))?;
    tracing::info!(server = %peer, id = peer.id, "a server joined");
    Ok(())
}

fn member_status(error: &MemberError) -> Status {
    let message = error.to_string();
    match error {
        MemberError::Invalid(_) => Status::invalid_argument(message),
        _ => Status::unavailable(message),
    }
}

/// Works until this server belongs to a cluster.
pub(crate) async fn form(core: &Core) {
    let pause = core.options.timing.join_retry;
    let mut said = String::new();
    loop {
        match core.raft.is_initialized().await {
            Ok(false) => {}
            Ok(true) => return readdress(core).await,
            Err(error) => return tracing::error!(%error, "this server cannot come to a cluster"),
        }
        let seen = tokio::select! {
            seen = look(core) => seen,
            () = core.stop.cancelled() => return,
        };
        let why = match decide(&core.me, core.options.formation, &seen) {
            Step::Join(address) => join(core, &address).await,
            Step::Make(peers) => make(core, peers).await,
            Step::Wait(why) => why,
        };
        if why != said {
            tracing::info!(%why, "not in a cluster yet");
            said = why;
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(core: &Core) -> Vec<Seen> {
    let addresses = core.others.now().await;
    let answers = join_all(addresses.iter().map(|address| core.peers.identify(address))).await;
    let mut seen = Vec::new();
    for (address, answer) in addresses.iter().zip(answers) {
        match answer {
            Ok(answer) if answer.id == core.me.id => {}
            Ok(answer) => seen.push(Seen {
                cluster: (!answer.cluster_id.is_empty()).then(|| address.clone()),
                peer: Peer {
                    id: answer.id,
                    name: answer.server,
                    addr: answer.address,
                },
            }),
            Err(status) => tracing::debug!(address, reason = %status.message(), "not reached"),
        }
    }
    seen
}

async fn join(core: &Core, address: &str) -> String {
    match core.peers.join(address, request(core)).await {
        Ok(answer) => format!("taken in by cluster {}", answer.cluster_id),
        Err(status) => format!("asked {address} to be taken in: {}", status.message()),
    }
}

async fn make(core: &Core, peers: Vec<Peer>) -> String {
    let count = peers.len();
    match core.raft.bootstrap(peers).await {
        Ok(()) => format!("a cluster of {count} is made"),
        Err(error) => error.to_string(),
    }
}

/// A member whose address changed says so to the others. They cannot reach it
/// until then, so it hears of no leader and asks each of them in turn.
async fn readdress(core: &Core) {
    let mut status = core.raft.status();
    // Who the members are is told a moment after the start.
    while status.voters.is_empty() {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(core.options.timing.join_retry) => {}
        }
        status = core.raft.status();
    }
    let known = status.voters.iter().find(|peer| peer.id == core.me.id);
    if known.is_none_or(|known| *known == core.me) {
        return;
    }
    let others = status.voters.iter().filter(|peer| peer.id != core.me.id);
    let mut addresses: Vec<String> = others.map(|peer| peer.addr.clone()).collect();
    let members = addresses.len();
    loop {
        addresses.truncate(members);
        addresses.extend(core.others.now().await);
        match tell(core, &addresses).await {
            Ok(()) => return tracing::info!(me = %core.me, "this server's address is known"),
            Err(reason) => tracing::warn!(reason, "this server's address is not known yet"),
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(core.options.timing.join_retry) => {}
        }
    }
}

/// Who led before goes on leading after a restart, and then writes it itself;
/// else whoever leads is asked, through the others.
async fn tell(core: &Core, addresses: &[String]) -> Result<(), String> {
    let limit = core.options.timing.request;
    if addresses.is_empty() || core.raft.is_leader() {
        let told = core.raft.add_voter(core.me.clone(), limit).await;
        return told.map_err(|error| error.to_string());
    }
    let mut reason = String::new();
    for address in addresses {
        // Short, since it may lead itself before the other finds who does.
        let asked = core.peers.join(address, request(core));
        match tokio::time::timeout(core.options.timing.raft_heartbeat * 20, asked).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => reason = format!("{address}: {}", status.message()),
            Err(_) => reason = format!("{address}: no answer in time"),
        }
    }
    Err(reason)
}

fn request(core: &Core) -> JoinRequest {
    JoinRequest {
        id: core.me.id,
        server: core.me.name.clone(),
        address: core.me.addr.clone(),
        level: core.options.level,
        forwarded: false,
    }
}

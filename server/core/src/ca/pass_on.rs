//! Leaves for agents, by whichever server can sign.
//!
//! A server that has not got the key that opens the CA's keys does all else, so agents are
//! connected to it. What they ask for it passes on to the other servers, one after the other, the
//! leader first. Who is asked like that signs or says why not, and asks nobody.

use std::time::Duration;

use mesh_proto::servers::v1 as wire;
use mesh_raft::Peer;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::sign::sign;
use crate::core::Core;

/// How long all others together may take; it is less than agents wait.
const LIMIT: Duration = Duration::from_secs(27);

/// Signs for a proxy of `node`, whose agent asks; or has another server do it.
pub(crate) async fn sign_or_pass_on(
    core: &Core,
    node: String,
    wish: wire::SignRequest,
) -> Result<wire::SignResponse, Status> {
    let Some(problem) = closed(core) else {
        return sign_here(core, &node, &wish).await;
    };
    let end = Instant::now() + LIMIT;
    let asked = wire::SignForRequest {
        node,
        wish: Some(wish),
    };
    let mut reasons = Vec::new();
    for peer in others(core) {
        let answer = timeout_at(end, core.peers.sign_for(&peer.addr, asked.clone())).await;
        let refusal = match answer {
            Ok(Ok(signed)) if !signed.chain.is_empty() => {
                tracing::info!(
                    node = asked.node,
                    server = peer.name,
                    "another server signed a leaf"
                );
                let outcome = &["passed_on"];
                core.metrics.ca_signs.with_label_values(outcome).inc();
                return Ok(signed);
            }
            Ok(Ok(_)) => Status::unavailable("it answered with an empty chain"),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable("it did not answer in time"),
        };
        // What is wrong with the request is so everywhere.
        if [
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::NotFound,
        ]
        .contains(&refusal.code())
        {
            return Err(refusal);
        }
        reasons.push(format!("server {}: {}", peer.name, refusal.message()));
    }
    core.metrics.ca_signs.with_label_values(&["failed"]).inc();
    let others = match reasons.is_empty() {
        true => "there is no other server".to_owned(),
        false => reasons.join("; "),
    };
    tracing::warn!(%problem, %others, "no server signs");
    Err(Status::unavailable(format!(
        "this server cannot sign: {problem}; {others}; ask again later"
    )))
}

/// Signs for a proxy of a node, whose agent asks another server.
pub(crate) async fn sign_here(
    core: &Core,
    node: &str,
    wish: &wire::SignRequest,
) -> Result<wire::SignResponse, Status> {
    let leaf = sign(core, node, &wish.proxy, &wish.csr).await?;
    let chain = leaf.chain.iter().map(|one| one.to_vec()).collect();
    Ok(wire::SignResponse { chain })
}

/// Why this server cannot sign with the CA that there is; nothing where it can, or there is none.
fn closed(core: &Core) -> Option<String> {
    let state = core.store.state();
    state.ca()?;
    let opening = core.ca.of(&state);
    match opening.authority {
        Some(_) => None,
        None => Some(opening.problem.clone().unwrap_or_default()),
    }
}

/// The other servers, the leader first.
pub(crate) fn others(core: &Core) -> Vec<Peer> {
    let status = core.raft.status();
    let leader = core.raft.leader().map(|peer| peer.id);
    let members = status.voters.into_iter().chain(status.learners);
    let mut others: Vec<Peer> = members.filter(|peer| peer.id != core.me.id).collect();
    others.sort_by_key(|peer| Some(peer.id) != leader);
    others
}

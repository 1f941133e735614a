//! `/v1/operator`: the servers themselves.

use futures::FutureExt;
use http::Method;
use mesh_raft::Peer;
use serde_json::{Value, json};

use super::error::ApiError;
use super::route::{Access, Call, Reply, Route, Shape};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::GET,
            "/v1/operator/raft/peers",
            "listPeers",
            "The servers of the cluster",
            Shape::List("Peer"),
            |call| peers(call).boxed(),
        )
        .access(Access::Read),
        Route::act(
            Method::DELETE,
            "/v1/operator/raft/peers/{id}",
            "removePeer",
            "Removes a server, by id or name",
            Shape::One("Removed"),
            |call| remove(call).boxed(),
        ),
    ]
}

async fn peers(call: Call) -> Result<Reply, ApiError> {
    let status = call.core.raft.status();
    let leader = status.leader.as_ref().map(|peer| peer.id);
    let row = |peer: &Peer, voter: bool| {
        json!({
            "id": peer.id.to_string(),
            "name": peer.name,
            "address": peer.addr,
            "voter": voter,
            "leader": leader == Some(peer.id),
            "self": peer.id == call.core.me.id,
        })
    };
    let voters = status.voters.iter().map(|peer| row(peer, true));
    let learners = status.learners.iter().map(|peer| row(peer, false));
    let mut rows: Vec<Value> = voters.chain(learners).collect();
    rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(Reply::json(rows.into()))
}

async fn remove(call: Call) -> Result<Reply, ApiError> {
    let wanted = call.args.segment("id");
    let status = call.core.raft.status();
    let all: Vec<Peer> = status.voters.into_iter().chain(status.learners).collect();
    let by_id = all.iter().find(|peer| peer.id.to_string() == wanted);
    let peer = match by_id {
        Some(peer) => peer,
        None => {
            let mut named = all.iter().filter(|peer| peer.name == wanted);
            let first = named.next();
            if named.next().is_some() {
                let message = format!("several servers have the name {wanted}; give the id");
                return Err(ApiError::request(message));
            }
            first.ok_or_else(|| ApiError::not_found(format!("server {wanted}")))?
        }
    };
    let limit = call.core.options.timing.request;
    call.core.raft.remove_peer(peer.id, limit).await?;
    tracing::info!(server = %peer, id = peer.id, "a server was removed");
    Ok(Reply::json(
        json!({"removed": peer.id.to_string(), "name": peer.name}),
    ))
}

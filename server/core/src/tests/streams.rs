//! An agent speaks by one stream at a time, whatever is still on its way of an earlier one.

use mesh_proto::servers::v1::catalog::Change;
use mesh_state::{Command, Refusal};
use serde_json::json;
use tonic::Code;

use super::agent::{Agent, instance};
use super::harness::{Client, cluster, ok};
use crate::Server;
use crate::error::WriteFailure;

/// The stream that speaks for `n1`.
fn stream(server: &Server) -> u64 {
    server.core.store.state().node("n1").unwrap().value.stream
}

async fn registered(client: &Client) -> Vec<String> {
    let node = ok(&client.get("/v1/catalog/nodes/n1?consistent").await);
    let instances = node["instances"].as_array().unwrap().iter();
    instances
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

fn sync(ids: &[&str]) -> Change {
    let all = ids.iter().map(|id| instance("n1", "web", id));
    Change::Sync(serde_json::to_vec(&all.collect::<Vec<_>>()).unwrap())
}

/// Reads until the stream ends, and says how.
async fn end(agent: &mut Agent) -> Code {
    loop {
        if let Err(refusal) = agent.next().await {
            return refusal.code();
        }
    }
}

#[tokio::test]
async fn a_write_that_lands_after_the_next_streams_sync_is_not_taken() {
    let servers = cluster(3).await;
    let [(first, client), (second, _), ..] = &servers[..] else {
        panic!("three servers");
    };
    let mut older = Agent::connect(first, "n1").await;
    older.change(sync(&["old"])).await;
    let held = Command::PutInstance {
        node: "n1".into(),
        stream: stream(first),
        instance: instance("n1", "web", "late"),
    };
    let mut newer = Agent::connect(second, "n1").await;
    assert_eq!(newer.change(sync(&["new"])).await.error, "");
    // Now the write gets through that was held up between the first server and the leader.
    let landed = first.core.write(held).await;
    assert_eq!(
        landed,
        Err(WriteFailure::Refused(Refusal::Superseded {
            node: "n1".into()
        }))
    );
    assert_eq!(registered(client).await, ["new"]);
    // The first server hears of it, though its connection says nothing.
    assert_eq!(end(&mut older).await, Code::Aborted);
    assert_eq!(newer.change(sync(&["new", "more"])).await.error, "");
    assert_eq!(registered(client).await, ["more", "new"]);
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_the_nodes_last_ends_with_its_next_word() {
    let servers = cluster(3).await;
    let mut older = Agent::connect(&servers[0].0, "n1").await;
    let _newer = Agent::connect(&servers[1].0, "n1").await;
    let bytes = serde_json::to_vec(&instance("n1", "web", "late")).unwrap();
    let change = mesh_proto::servers::v1::Catalog {
        request: 1,
        change: Some(Change::Put(bytes)),
    };
    older
        .say(mesh_proto::servers::v1::from_agent::Message::Catalog(
            change,
        ))
        .await;
    assert_eq!(end(&mut older).await, Code::Aborted);
    assert!(registered(&servers[2].1).await.is_empty());
    for (server, _) in servers {
        server.shutdown().await;
    }
}

/// The agent begins anew with a restore, and says everything; its server begins nothing for it, and
/// takes no part of what it says before.
#[tokio::test]
async fn a_stream_that_a_restore_does_not_know_ends_with_its_next_word() {
    let mut old = cluster(1).await;
    let (other, client) = old.pop().unwrap();
    drop(Agent::connect(&other, "n1").await);
    let mut agent = Agent::connect(&other, "n1").await;
    agent.change(sync(&["one"])).await;
    let known = stream(&other);
    let snapshot = client.get("/v1/snapshot").await.text.into_bytes();

    let servers = cluster(1).await;
    let (server, client) = &servers[0];
    let mut agent = Agent::connect(server, "n1").await;
    agent.change(sync(&["two"])).await;
    assert_ne!(stream(server), known);
    ok(&super::restore::restore(client, snapshot).await);
    let bytes = serde_json::to_vec(&instance("n1", "web", "three")).unwrap();
    let change = mesh_proto::servers::v1::Catalog {
        request: 9,
        change: Some(Change::Put(bytes)),
    };
    let change = mesh_proto::servers::v1::from_agent::Message::Catalog(change);
    agent.say(change).await;
    assert_eq!(end(&mut agent).await, Code::Aborted);
    assert_eq!(stream(server), known);
    assert_eq!(registered(client).await, ["one"]);
    let mut agent = Agent::connect(server, "n1").await;
    assert_eq!(agent.change(sync(&["two", "three"])).await.error, "");
    assert_eq!(registered(client).await, ["three", "two"]);
    other.shutdown().await;
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_speaks_on_through_a_restore_and_ends_with_its_node() {
    let servers = cluster(1).await;
    let (server, client) = &servers[0];
    let mut agent = Agent::connect(server, "n1").await;
    agent.change(sync(&["one"])).await;
    let snapshot = client.get("/v1/snapshot").await.text.into_bytes();
    // Another stream than the snapshot knows.
    drop(agent);
    let mut agent = Agent::connect(server, "n1").await;
    agent.change(sync(&["two"])).await;
    ok(&super::restore::restore(client, snapshot).await);
    assert_eq!(agent.change(sync(&["two"])).await.error, "");
    assert_eq!(registered(client).await, ["two"]);
    // What is removed while it lives says all of it again, by another stream.
    ok(&client.delete("/v1/catalog/nodes/n1").await);
    assert_eq!(end(&mut agent).await, Code::Aborted);
    let mut agent = Agent::connect(server, "n1").await;
    assert_eq!(agent.change(sync(&["three"])).await.error, "");
    assert_eq!(registered(client).await, ["three"]);
    assert_eq!(
        ok(&client.get("/v1/catalog/nodes").await)[0]["id"],
        json!("n1")
    );
    for (server, _) in servers {
        server.shutdown().await;
    }
}

//! Servers of two versions in one cluster: what the newer know is proposed only when all know it.

use std::sync::Arc;

use mesh_proto::servers::v1 as wire;
use mesh_state::{Command, LEVEL, Refusal};
use mesh_tls::Role;
use serde_json::json;
use tonic::Code;

use super::harness::{Client, ok, soon, start, together};
use crate::error::WriteFailure;
use crate::leader::raise_level;
use crate::{Formation, Listen, ManualClock, Server, ServerOptions};

const NEXT: u32 = LEVEL + 1;

fn tomorrow() -> Command {
    Command::Tomorrow {}
}

/// What the leader does now and then, now.
async fn raise(servers: &[(Server, Client)]) {
    for (server, _) in servers.iter().filter(|(server, _)| server.is_leader()) {
        raise_level(&server.core).await;
    }
}

async fn writes_go_on(servers: &[(Server, Client)], name: &str) {
    let path = format!("/v1/services/{name}");
    for (_, client) in servers {
        ok(&client.put(&path, json!({"protocol": "http"})).await);
    }
    for (_, client) in servers {
        assert_eq!(ok(&client.get(&path).await)["protocol"], "http");
    }
}

#[tokio::test]
async fn a_level_is_raised_when_the_last_server_speaks_it() {
    let folder = tempfile::tempdir().unwrap();
    // It stands still, so that nothing happens but what the test says.
    let clock = Arc::new(ManualClock::default());
    let play = |options: ServerOptions, level| ServerOptions {
        data_dir: Some(folder.path().join(&options.name)),
        clock: clock.clone(),
        level,
        ..options
    };
    let levels = [NEXT, NEXT, LEVEL];
    let options = together(3).into_iter().zip(levels);
    let starting = options.map(|(options, level)| start(play(options, level)));
    let mut servers = futures::future::join_all(starting).await;

    raise(&servers).await;
    for (server, _) in &servers {
        let refused = server.core.write(tomorrow()).await;
        let (needs, has) = (NEXT, LEVEL);
        let level = WriteFailure::Refused(Refusal::Level { needs, has });
        assert_eq!(refused, Err(level));
        assert_eq!(server.core.store.state().level(), LEVEL);
    }
    writes_go_on(&servers, "before").await;

    // The last one is upgraded.
    let (old, _) = servers.pop().unwrap();
    let address = old.addresses().cluster;
    old.shutdown().await;
    raise(&servers).await;
    let away = servers
        .iter()
        .all(|(one, _)| one.core.store.state().level() == LEVEL);
    assert!(away, "one that is not reached may not speak it");
    let upgraded = ServerOptions {
        cluster: Listen::Address(address),
        ..super::harness::options("s3")
    };
    servers.push(start(play(upgraded, NEXT)).await);
    soon(async {
        while servers
            .iter()
            .any(|(server, _)| server.core.store.state().level() < NEXT)
        {
            raise(&servers).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    for (server, _) in &servers {
        server.core.write(tomorrow()).await.unwrap();
    }
    writes_go_on(&servers, "after").await;

    // Who does not speak it comes too late.
    let channel = super::agent::channel(&servers[0].0, Role::Server, "s9");
    let mut peers = wire::peers_client::PeersClient::new(channel);
    let refused = peers.join(wire::JoinRequest {
        id: 99,
        server: "s9".into(),
        address: "127.0.0.1:1".into(),
        level: LEVEL,
        forwarded: false,
    });
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("level 2"), "{refused}");
    for (server, _) in servers {
        server.shutdown().await;
    }
}

/// Nobody is let in between the question who speaks a level, and its raising: that one would be
/// handed what it does not know.
#[tokio::test]
async fn none_is_let_in_while_the_level_is_raised() {
    let play = |options: ServerOptions, level| ServerOptions {
        clock: Arc::new(ManualClock::default()),
        level,
        ..options
    };
    let levels = [NEXT, NEXT, LEVEL];
    let options = together(3).into_iter().zip(levels);
    let starting = options.map(|(options, level)| start(play(options, level)));
    let mut servers = futures::future::join_all(starting).await;
    // For that one the level waits, wherever it is.
    let (older, _) = servers.pop().unwrap();
    older.shutdown().await;
    soon(async {
        while !servers.iter().any(|(server, _)| server.is_leader()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It stands at the door and asks nobody itself.
    let newcomer = ServerOptions {
        formation: Formation::Join,
        retry_join: vec!["127.0.0.1:1".to_owned()],
        ..super::harness::options("s9")
    };
    let newcomer = Server::start(play(newcomer, LEVEL)).await.unwrap();
    let (leads, follows): (Vec<_>, Vec<_>) =
        servers.iter().partition(|(server, _)| server.is_leader());
    let ((leader, _), (follower, _)) = (leads[0], follows[0]);

    // All were asked, and all speak it.
    let asked = leader.core.members.write().await;
    let channel = super::agent::channel(follower, Role::Server, "s9");
    let mut peers = wire::peers_client::PeersClient::new(channel);
    let joining = peers.join(wire::JoinRequest {
        id: newcomer.id(),
        server: "s9".into(),
        address: newcomer.addresses().cluster.to_string(),
        level: LEVEL,
        forwarded: false,
    });
    let raising = async {
        // Time enough to be let in, if somebody let it.
        writes_go_on(&servers, "meanwhile").await;
        let raise = Command::RaiseLevel { level: NEXT };
        leader.core.write_as_leader(raise).await.unwrap();
        drop(asked);
    };
    let (refused, ()) = soon(async { tokio::join!(joining, raising) }).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("level 2"), "{refused}");
    let status = leader.core.raft.status();
    assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
    newcomer.shutdown().await;
    for (server, _) in servers {
        server.shutdown().await;
    }
}

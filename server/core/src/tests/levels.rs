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
use crate::{Listen, ManualClock, Server, ServerOptions};

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
    });
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("level 2"), "{refused}");
    for (server, _) in servers {
        server.shutdown().await;
    }
}

//! Three servers in one process.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use mesh_proto::servers::v1 as wire;
use mesh_tls::Role;
use serde_json::json;
use tonic::Code;

use super::agent::{Agent, instance};
use super::harness::{Client, cluster, ok, soon, start, together};
use crate::{Formation, Listen, ManualClock, Server, ServerOptions};

#[tokio::test]
async fn any_server_writes_and_reads_what_was_written() {
    let servers = cluster(3).await;
    for (number, (_, client)) in servers.iter().enumerate() {
        let path = format!("/v1/services/s{number}");
        ok(&client.put(&path, json!({"protocol": "http"})).await);
        // Here and elsewhere, at once.
        for (_, other) in &servers {
            assert_eq!(ok(&other.get(&path).await)["protocol"], "http");
        }
    }
    // A busy machine may hold an election now and then.
    soon(async {
        while servers
            .iter()
            .filter(|(server, _)| server.is_leader())
            .count()
            != 1
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (_, client) = &servers[0];
    assert_eq!(
        ok(&client.get("/v1/operator/raft/peers").await)
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let roots = client.get("/v1/ca/roots").await.text;
    for (_, other) in &servers {
        assert_eq!(other.get("/v1/ca/roots?stale").await.text, roots);
    }
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn proxies_are_known_to_all_wherever_their_agents_are() {
    let servers = cluster(3).await;
    let mut agents = Vec::new();
    for (number, (server, _)) in servers.iter().enumerate() {
        let node = format!("n{number}");
        let mut agent = Agent::connect(server, &node).await;
        agent.put(&instance(&node, "web", "web")).await;
        agent.subscribe(&["intentions/default/web"]).await;
        let proxy = wire::ProxyStatus {
            proxy: "web-sidecar-proxy".into(),
            service: "web".into(),
            ..wire::ProxyStatus::default()
        };
        agent.report(vec![proxy]).await;
        agents.push(agent);
    }
    let (_, client) = &servers[1];
    let wrote = ok(&client
        .put("/v1/intentions/a/web", json!({"action": "deny"}))
        .await);
    let index = wrote["index"].as_u64().unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .get(&format!("/v1/proxies/wait?index={index}&timeout=60s"))
                .await
        }
    });
    for agent in &mut agents {
        agent.ack(index).await;
    }
    let live = ok(&waiting.await.unwrap());
    assert_eq!((&live["live"], &live["agents"]), (&json!(true), &json!(3)));
    let listed = ok(&client.get("/v1/proxies").await);
    assert_eq!(listed["proxies"].as_array().unwrap().len(), 3);
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn followers_pass_on_whom_they_hear() {
    let clock = ManualClock::default();
    let mut options = together(3);
    for one in &mut options {
        one.clock = Arc::new(clock.clone());
    }
    let servers = futures::future::join_all(options.into_iter().map(start)).await;
    let follower = servers.iter().find(|(server, _)| !server.is_leader());
    let (follower, _) = follower.unwrap();
    let heard = Agent::connect(follower, "n1").await;
    // Its lease would end first, if it was not passed on.
    let silent = Agent::connect(follower, "n2").await;
    let (_, client) = &servers[0];
    soon(async {
        loop {
            let beat = wire::from_agent::Message::Heartbeat(wire::Heartbeat {});
            heard.say(beat).await;
            clock.advance(Duration::from_secs(1));
            let nodes = ok(&client.get("/v1/catalog/nodes").await);
            if (&nodes[0]["state"], &nodes[1]["state"]) == (&json!("alive"), &json!("silent")) {
                break;
            }
        }
    })
    .await;
    drop(silent);
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn without_a_majority_nothing_is_written_and_stale_reads_go_on() {
    let mut servers = cluster(3).await;
    let (last, client) = servers.pop().unwrap();
    ok(&client.put("/v1/services/web", json!({})).await);
    for (server, _) in servers {
        server.shutdown().await;
    }
    assert_eq!(
        ok(&client.get("/v1/services/web?stale").await)["name"],
        "web"
    );
    assert_eq!(ok(&client.get("/v1/status").await)["server"]["name"], "s3");
    let refused = client.put("/v1/services/db", json!({})).await;
    assert!(matches!(refused.status, 503 | 504), "{}", refused.text);
    let refused = client.get("/v1/services/web?consistent").await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    last.shutdown().await;
}

#[tokio::test]
async fn a_server_whose_data_is_gone_comes_back_into_its_cluster() {
    let mut servers = cluster(3).await;
    let (lost, _) = servers.remove(0);
    let (id, address) = (lost.id(), lost.addresses().cluster);
    let cluster_id = |client: Client| async move {
        ok(&client.get("/v1/status").await)["cluster"]["id"].clone()
    };
    let before = cluster_id(servers[0].1.clone()).await;
    lost.shutdown().await;
    let others = servers
        .iter()
        .map(|(server, _)| server.addresses().cluster.to_string());
    // As if it was to begin a cluster of its own: it asks first.
    let again = ServerOptions {
        formation: Formation::Bootstrap,
        retry_join: others.collect(),
        cluster: Listen::Address(address),
        ..super::harness::options("s1")
    };
    let (back, client) = start(again).await;
    assert_ne!(back.id(), id);
    assert_eq!(cluster_id(client.clone()).await, before);
    // In the place of what it was.
    soon(async {
        loop {
            let peers = ok(&client.get("/v1/operator/raft/peers").await);
            let voters = peers
                .as_array()
                .unwrap()
                .iter()
                .filter(|peer| peer["voter"] == true);
            if voters.count() == 3 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    ok(&client.put("/v1/services/web", json!({})).await);
    let all: Vec<Server> = servers
        .into_iter()
        .map(|(server, _)| server)
        .chain([back])
        .collect();
    for server in all {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_server_that_lost_the_leader_sends_its_agents_elsewhere() {
    let mut options = together(3);
    for one in &mut options {
        one.timing.leader_grace = Duration::from_millis(100);
    }
    let mut servers = futures::future::join_all(options.into_iter().map(start)).await;
    let (last, _) = servers.pop().unwrap();
    let mut agent = Agent::connect(&last, "n1").await;
    for (server, _) in servers {
        server.shutdown().await;
    }
    let ended = loop {
        if let Err(refusal) = agent.next().await {
            break refusal;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    last.shutdown().await;
}

#[tokio::test]
async fn a_newcomer_must_be_where_it_says() {
    let servers = cluster(1).await;
    let (server, client) = &servers[0];
    let channel = super::agent::channel(server, Role::Server, "s9");
    let mut peers = wire::peers_client::PeersClient::new(channel);
    let join = |address: String| wire::JoinRequest {
        forwarded: false,
        id: 99,
        server: "s9".into(),
        address,
        level: 1,
    };
    let taken = server.addresses().cluster.to_string();
    let refused = peers.join(join(taken)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("advertise_addr"), "{refused}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    assert!(peers.join(join(nobody)).await.is_err());
    let old = wire::JoinRequest {
        level: 0,
        ..join("127.0.0.1:1".into())
    };
    assert!(
        peers
            .join(old)
            .await
            .unwrap_err()
            .message()
            .contains("upgrade")
    );
    let listed = ok(&client.get("/v1/operator/raft/peers").await);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_server_at_another_address_is_found_again() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let options = together(3)
        .into_iter()
        .zip(&folders)
        .map(|(options, folder)| ServerOptions {
            data_dir: Some(folder.path().to_owned()),
            ..options
        });
    let mut servers = futures::future::join_all(options.map(start)).await;
    let (moved, _) = servers.remove(0);
    let (id, before) = (moved.id(), moved.addresses().cluster);
    moved.shutdown().await;
    let options = ServerOptions {
        data_dir: Some(folders[0].path().to_owned()),
        ..super::harness::options("s1")
    };
    let (back, client) = start(options).await;
    assert_eq!(back.id(), id);
    let now = back.addresses().cluster.to_string();
    assert_ne!(now, before.to_string());
    soon(async {
        loop {
            let peers = ok(&servers[0].1.get("/v1/operator/raft/peers").await);
            let known = peers
                .as_array()
                .unwrap()
                .iter()
                .find(|peer| peer["id"].as_str() == Some(&*id.to_string()));
            if known.unwrap()["address"] == now {
                break;
            }
        }
    })
    .await;
    ok(&client.put("/v1/services/web", json!({})).await);
    for (server, _) in servers.into_iter().chain([(back, client)]) {
        server.shutdown().await;
    }
}

/// As servers that Nomad runs, whose addresses are known when they run: each is alone at first.
#[tokio::test]
async fn servers_find_each_other_by_nomads_word() {
    let known = Arc::new(std::sync::Mutex::new(Vec::new()));
    let answer = |State(known): State<Arc<std::sync::Mutex<Vec<serde_json::Value>>>>| async move {
        axum::Json(known.lock().unwrap().clone())
    };
    let router = axum::Router::new().route("/v1/service/mesh-server", axum::routing::get(answer));
    let router = router.with_state(known.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut starting = Vec::new();
    let mut later = Vec::new();
    for mut options in together(3) {
        let own = options.retry_join.remove(later.len());
        let (ip, port) = own.rsplit_once(':').unwrap();
        let port: u16 = port.parse().unwrap();
        later.push(json!({"Address": ip, "Port": port, "ServiceName": "mesh-server"}));
        options.retry_join.clear();
        options.nomad.address = address.clone();
        options.nomad.service = Some("mesh-server".to_owned());
        starting.push(Server::start(options).await.unwrap());
    }
    // Each looks again and again, and finds the others when Nomad knows them.
    for one in later {
        known.lock().unwrap().push(one);
    }
    for server in &starting {
        soon(server.ready()).await;
    }
    let peers = ok(&Client::of(&starting[0])
        .get("/v1/operator/raft/peers")
        .await);
    assert_eq!(peers.as_array().unwrap().len(), 3);
    for server in starting {
        server.shutdown().await;
    }
}

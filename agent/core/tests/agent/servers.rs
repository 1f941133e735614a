//! The stream to the servers.

use std::sync::{Arc, Mutex};

use mesh_model::Status;
use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::to_agent::Message as To;
use serde_json::json;

use crate::support::{Fake, Proxy, World, bootstrap, register, request, soon, web};

#[tokio::test]
async fn the_catalog_is_synced_and_follows() {
    let world = World::new();
    let server = world.server().await;
    server.change(|state| {
        let stale = json!({"service": "old", "id": "stale", "node": "n1", "address": "a"});
        state
            .instances
            .insert("stale".into(), serde_json::from_value(stale).unwrap());
    });
    let agent = world.agent(&[&server]).await;
    server
        .until("an empty sync", |state| {
            state.syncs == 1 && state.instances.is_empty()
        })
        .await;
    let hello = server.change(|state| state.hellos[0].clone());
    let node: mesh_model::Node = serde_json::from_slice(&hello.node).unwrap();
    assert_eq!((node.id.as_str(), node.name.as_str()), ("n1", "node-1"));
    assert_eq!(node.address, "127.0.0.1");

    register(&agent, &web("web-1")).await;
    server
        .until("the instance", |state| {
            state.instances.contains_key("web-1")
        })
        .await;
    let instance = server.change(|state| state.instances["web-1"].clone());
    assert_eq!(instance.checks["service:web-1"].status, Status::Passing);
    let proxy = instance.proxy.unwrap();
    assert_eq!(
        (proxy.id.as_str(), proxy.address.as_str()),
        ("web-1-sidecar-proxy", "127.0.0.1")
    );
    assert!((21000..=21255).contains(&proxy.port));

    let http = agent.addresses().http;
    let fail = "/v1/agent/check/fail/service:web-1?note=tired";
    assert_eq!(
        request(http, "PUT", fail, &[], String::new()).await.status,
        200
    );
    server
        .until("the check", |state| {
            state.instances["web-1"].checks["service:web-1"].status == Status::Critical
        })
        .await;
    let away = "/v1/agent/service/deregister/web-1";
    request(http, "PUT", away, &[], String::new()).await;
    server
        .until("its end", |state| state.instances.is_empty())
        .await;
    assert_eq!(
        server.change(|state| state.syncs),
        1,
        "the rest were differences"
    );
}

#[tokio::test]
async fn what_the_servers_refuse_for_now_is_tried_again() {
    let world = World::new();
    let server = world.server().await;
    server.change(|state| {
        state.refuse = [("no leader".into(), true), ("no leader".into(), true)].into()
    });
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    server
        .until("the instance", |state| {
            state.instances.contains_key("web-1")
        })
        .await;
    assert!(server.change(|state| state.changes) >= 3);
}

#[tokio::test]
async fn topics_are_those_of_the_registered_proxies() {
    let world = World::new();
    let server = world.server().await;
    let route = json!({"namespace": "default", "name": "api", "rules": [
        {"name": "all", "to": [{"service": {"name": "other"}, "weight": 100}]}]});
    server.change(|state| {
        state
            .facts
            .insert("route/default/api".into(), route.to_string())
    });
    let agent = world.agent(&[&server]).await;
    server
        .until("the hello", |state| state.hellos.len() == 1)
        .await;
    assert!(server.change(|state| state.subscribed.is_empty()));
    register(&agent, &web("web-1")).await;
    server
        .until("the closure over the route", |state| {
            state.subscribed.contains("endpoints/default/other")
        })
        .await;
    let topics = server.change(|state| state.subscribed.clone());
    let other = ["endpoints/default/other", "service/default/other"];
    assert!(
        other.iter().all(|topic| topics.contains(*topic)),
        "{topics:?}"
    );
    assert_eq!(topics.len(), 10);
}

#[tokio::test]
async fn an_upstream_that_names_the_datacenter_is_wired_once_that_is_known() {
    let world = World::new();
    let server = world.server().await;
    let mut body = web("web-1");
    body["Connect"]["SidecarService"]["Proxy"]["Upstreams"] = json!([
        {"DestinationName": "api", "LocalBindPort": 9001, "Datacenter": "dc1"},
        {"DestinationName": "far", "LocalBindPort": 9002, "Datacenter": "dc2"},
    ]);
    // Before any server was ever spoken with.
    let agent = world.agent(&[]).await;
    register(&agent, &body).await;
    agent.shutdown().await;
    let agent = world.agent(&[&server]).await;
    let key = mesh_tls::LeafKey::generate().unwrap();
    let id = "web-1-sidecar-proxy";
    let ticket = bootstrap(&agent, id).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, id, &key, &ticket).await.unwrap();
    let (_, config) = proxy.config().await;
    let called: Vec<&str> = config
        .outbound
        .iter()
        .map(|it| it.service.name.as_str())
        .collect();
    assert_eq!(called, ["api"]);
    server
        .until("what is left out", |state| {
            let problem = state.reports.first().map(|it| it.problem.as_str());
            problem.is_some_and(|it| it.contains("upstream far: it is in datacenter dc2"))
        })
        .await;
}

#[tokio::test]
async fn a_sidecar_beyond_the_nodes_topics_is_left_out_and_the_others_are_not() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let many = mesh_proto::servers::MAX_TOPICS / 3 + 1;
    let upstreams: Vec<_> = (0..many)
        .map(|number| json!({"DestinationName": format!("s{number}"), "LocalBindPort": 1}))
        .collect();
    let mut greedy = web("web-2");
    greedy["Connect"]["SidecarService"]["Proxy"]["Upstreams"] = json!(upstreams);
    register(&agent, &greedy).await;
    server
        .until("why it is not wired", |state| {
            let problem = |it: &pb::ProxyStatus| {
                it.instance == "web-2" && it.problem.contains("more than 8192 topics")
            };
            state.reports.iter().any(problem)
        })
        .await;
    // The stream goes on, and the other follows.
    let version = server.set("intentions/default/web", "[ ]").await;
    server
        .until("an ack", |state| {
            let last = state.acks.last().and_then(|ack| ack.version.as_ref());
            last == Some(&version)
        })
        .await;
    assert_eq!(
        server.change(|state| (state.hellos.len(), state.subscribed.len())),
        (1, 8)
    );
}

#[tokio::test]
async fn another_server_takes_over() {
    let world = World::new();
    let mut servers = vec![world.server().await, world.server().await];
    let agent = world.agent(&[&servers[0], &servers[1]]).await;
    register(&agent, &web("web-1")).await;
    let has = |server: &Fake| server.change(|state| state.instances.contains_key("web-1"));
    let first = async {
        loop {
            if let Some(used) = servers.iter().position(has) {
                return used;
            }
            tokio::task::yield_now().await;
        }
    };
    let used = soon("a server", first).await;
    drop(servers.remove(used));
    let other = &servers[0];
    other
        .until("the whole set", |state| {
            state.syncs == 1 && state.instances.contains_key("web-1")
        })
        .await;
    let linked = async {
        while agent.status().server != Some(other.address.to_string()) {
            tokio::task::yield_now().await;
        }
    };
    soon("its word of it", linked).await;
}

#[tokio::test]
async fn a_dead_server_is_left_for_a_live_one() {
    let world = World::new();
    let dead = world.server().await;
    let live = world.server().await;
    let mut options = world.options(&[&live]);
    options.servers.push(dead.address.to_string());
    options.servers.push("127.0.0.1:1".into());
    drop(dead);
    let agent = mesh_agent::Agent::start(options).await.unwrap();
    register(&agent, &web("web-1")).await;
    live.until("the instance", |state| {
        state.instances.contains_key("web-1")
    })
    .await;
    assert_eq!(agent.status().server, Some(live.address.to_string()));
}

#[tokio::test]
async fn what_is_held_is_not_sent_again_unless_it_differs() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    server
        .until("the topics and an ack", |state| {
            state.held.len() == 8 && !state.acks.is_empty()
        })
        .await;
    // The facts are there when one that is sent after them is.
    let version = server.set("endpoints/default/api", "[]").await;
    server
        .until("an ack of the facts", |state| {
            let acked = state.acks.iter().filter_map(|ack| ack.version.as_ref());
            acked.into_iter().any(|acked| *acked == version)
        })
        .await;
    server.change(|state| state.held.clear());
    server.hang_up().await;
    server
        .until("a second stream", |state| state.held.len() == 8)
        .await;
    let held = server.change(|state| std::mem::take(&mut state.held));
    assert!(
        held.iter()
            .all(|it| it.version.is_some() && it.checksum.len() == 32),
        "{held:?}"
    );

    // The periodic comparison finds one that differs.
    let sums = pb::Checksums {
        version: Some(server.change(|state| state.version())),
        topics: vec![
            pb::TopicChecksum {
                topic: "mesh".into(),
                checksum: vec![1; 32],
            },
            pb::TopicChecksum {
                topic: held[0].topic.clone(),
                checksum: held[0].checksum.clone(),
            },
        ],
    };
    server.say(To::Checksums(sums)).await;
    server
        .until("one that is asked for anew", |state| state.held.len() == 1)
        .await;
    let again = server.change(|state| std::mem::take(&mut state.held));
    assert_eq!(
        (again[0].topic.as_str(), &again[0].version),
        ("mesh", &None)
    );

    // Another epoch, which knows nothing of this node: a stream begins as the first did.
    let (hellos, syncs) = server.change(|state| {
        state.epoch = "e2".into();
        state.instances.clear();
        (state.hellos.len(), state.syncs)
    });
    server
        .set("mesh", &server.change(|state| state.facts["mesh"].clone()))
        .await;
    server
        .until("everything, and the catalog whole", |state| {
            state.held.len() >= 7 && state.instances.contains_key("web-1")
        })
        .await;
    let after = server.change(|state| (state.hellos.len(), state.syncs));
    assert_eq!(after, (hellos + 1, syncs + 1));
    assert!(server.change(|state| state.held.iter().all(|it| it.version.is_none())));
    server
        .until("an ack in the new epoch", |state| {
            let last = state.acks.last().and_then(|ack| ack.version.as_ref());
            last.is_some_and(|version| version.epoch == "e2")
        })
        .await;
}

#[tokio::test]
async fn a_fact_that_never_comes_whole_is_asked_for_more_and_more_seldom() {
    let world = World::new();
    let server = world.server().await;
    let topic = "endpoints/default/api";
    server.change(|state| state.damaged = Some(topic.into()));
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let asked = |state: &crate::support::State, times: usize| {
        state.held.iter().filter(|it| it.topic == topic).count() >= times
    };
    server.until("the first", |state| asked(state, 1)).await;
    let begin = std::time::Instant::now();
    server.until("the fifth", |state| asked(state, 5)).await;
    // At least the half of 100, 200, 400 and 800 ms.
    let took = begin.elapsed();
    assert!(took >= std::time::Duration::from_millis(700), "{took:?}");
    // One that is whole at last is taken.
    server.change(|state| state.damaged = None);
    server
        .until("an ack of all", |state| {
            let last = state.acks.last();
            last.is_some_and(|ack| ack.version.is_some() && ack.lagging.is_empty())
        })
        .await;
    assert_eq!(server.change(|state| state.hellos.len()), 1);
}

#[tokio::test]
async fn another_cluster_is_refused_until_told() {
    let world = World::new();
    let one = world.server().await;
    let agent = world.agent(&[&one]).await;
    one.until("the sync", |state| state.syncs == 1).await;
    agent.shutdown().await;
    drop(one);

    let two = Fake::start(&world.cluster, world.mesh.clone(), "cluster-2").await;
    let agent = world.agent(&[&two]).await;
    two.until("a hello", |state| !state.hellos.is_empty()).await;
    assert_eq!(
        two.change(|state| state.hellos[0].cluster_id.clone()),
        "cluster-1"
    );
    let refused = async {
        while !agent
            .status()
            .error
            .is_some_and(|error| error.contains("-rejoin"))
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal", refused).await;
    assert_eq!(two.change(|state| state.syncs), 0);
    agent.shutdown().await;

    let mut options = world.options(&[&two]);
    options.rejoin = true;
    let agent = mesh_agent::Agent::start(options).await.unwrap();
    two.until("the sync", |state| state.syncs == 1).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_server_without_the_clusters_certificate_is_not_spoken_with() {
    let world = World::new();
    let stranger = Fake::start(&crate::support::Ca::new("cluster"), world.mesh.clone(), "x").await;
    let agent = world.agent(&[&stranger]).await;
    let refused = async {
        while agent.status().error.is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal", refused).await;
    assert!(stranger.change(|state| state.hellos.is_empty()));
    let error = agent.status().error.unwrap();
    assert!(error.contains("not signed by"), "{error}");
}

/// As an agent beside servers that Nomad runs.
#[tokio::test]
async fn a_server_that_nomad_names_later_is_found() {
    let world = World::new();
    let server = world.server().await;
    let known = Arc::new(Mutex::new(json!([])));
    let shown = known.clone();
    let answer = move || std::future::ready(shown.lock().unwrap().to_string());
    let router = axum::Router::new().route("/v1/service/mesh-server", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = world.options(&[]);
    options.servers.clear();
    options.nomad.address = format!("http://{}", listener.local_addr().unwrap());
    options.nomad.service = Some("mesh-server".to_owned());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let agent = mesh_agent::Agent::start(options).await.unwrap();
    register(&agent, &web("web-1")).await;
    let place = server.address;
    *known.lock().unwrap() = json!([{"Address": place.ip(), "Port": place.port()}]);
    server
        .until("the instance", |state| {
            state.instances.contains_key("web-1")
        })
        .await;
}

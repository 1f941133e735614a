//! Facts down, catalog and acks up.

use std::time::Duration;

use mesh_model::{Check, Status};
use mesh_proto::fact::CheckChange;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::catalog::Change;
use mesh_proto::servers::v1::to_agent::Message as To;
use mesh_tls::Role;
use serde_json::json;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::agent::{Agent, client, instance, node};
use super::harness::{ok, one, options, soon, start};

#[tokio::test]
async fn facts_then_a_mark_then_only_what_changes() {
    let (server, client) = one().await;
    ok(&client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    ok(&client
        .put("/v1/intentions/*/web", json!({"action": "deny"}))
        .await);
    let mut agent = Agent::connect(&server, "n1").await;
    assert_eq!(agent.welcome.datacenter, "dc1");
    let registered = agent.put(&instance("n1", "web", "web-1")).await;
    assert!(registered.version.unwrap().index > 0);

    let topics = [
        "mesh",
        "roots",
        "service/default/web",
        "route/default/web",
        "endpoints/default/web",
        "intentions/default/web",
        "endpoints/default/none",
    ];
    agent.subscribe(&topics).await;
    let mut facts = std::collections::BTreeMap::new();
    while facts.len() < topics.len() {
        let fact = agent.fact().await;
        assert_eq!(fact.checksum, Sha256::digest(&fact.body).to_vec());
        facts.insert(fact.topic.clone(), fact);
    }
    let body =
        |topic: &str| -> serde_json::Value { serde_json::from_slice(&facts[topic].body).unwrap() };
    let domain = agent.welcome.trust_domain.clone();
    let mesh = json!({"trust_domain": domain, "datacenter": "dc1", "default_intention": "deny"});
    assert_eq!(body("mesh"), mesh);
    assert_eq!(body("roots")["roots"].as_array().unwrap().len(), 1);
    assert_eq!(body("service/default/web")["protocol"], "http");
    assert_eq!(body("route/default/web"), json!(null));
    assert_eq!(body("intentions/default/web")[0]["action"], "deny");
    assert_eq!(body("endpoints/default/none"), json!([]));
    let endpoint = json!([{"instance": "web-1", "node": "n1", "address": "10.0.0.9", "port": 21000,
        "identity": format!("spiffe://{domain}/ns/default/dc/dc1/svc/web"), "status": "passing",
        "weights": {"passing": 1, "warning": 1}, "tags": ["blue"], "meta": {"version": "v1"}}]);
    assert_eq!(body("endpoints/default/web"), endpoint);
    let marked = agent.mark().await;
    assert!(
        facts
            .values()
            .all(|fact| fact.version.as_ref().unwrap().index <= marked.index)
    );

    // What it did not ask for moves the mark, and nothing else.
    let other = ok(&client.put("/v1/services/other", json!({})).await)["index"]
        .as_u64()
        .unwrap();
    loop {
        match agent.next().await.unwrap() {
            To::Mark(mark) if mark.version.as_ref().unwrap().index >= other => break,
            To::Fact(fact) => panic!("{} came again", fact.topic),
            _ => {}
        }
    }
    // A pattern touches every destination that it covers.
    ok(&client
        .put("/v1/intentions/batch/*", json!({"action": "allow"}))
        .await);
    assert_eq!(
        agent
            .body("intentions/default/web")
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    ok(&client
        .put(
            "/v1/routes/web",
            json!({"rules": [{"name": "r", "retries": {"attempts": 1}}]}),
        )
        .await);
    let route = agent.fact().await;
    assert_eq!(
        (route.topic.as_str(), route.needs),
        ("route/default/web", vec!["retries".to_owned()])
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_the_agent_holds_is_not_sent_again() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.subscribe(&["mesh"]).await;
    let first = agent.fact().await;
    let held = |version: Option<wire::Version>, checksum: &[u8]| {
        vec![wire::Held {
            topic: "mesh".into(),
            version,
            checksum: checksum.to_vec(),
        }]
    };
    agent
        .hold(held(first.version.clone(), &first.checksum))
        .await;
    let again = agent.fact().await;
    assert!(again.unchanged && again.body.is_empty());
    agent.hold(held(first.version.clone(), b"other")).await;
    assert_eq!(agent.fact().await.body, first.body);
    let other = wire::Version {
        epoch: "other".into(),
        index: 1,
    };
    agent.hold(held(Some(other), &first.checksum)).await;
    assert_eq!(agent.fact().await.body, first.body);
    // A change that leaves the fact as it is: only its version is news.
    ok(&client
        .put("/v1/mesh", json!({"default_intention": "deny"}))
        .await);
    let same = agent.fact().await;
    assert!(same.unchanged);
    assert!(same.version.unwrap().index > first.version.unwrap().index);
    server.shutdown().await;
}

#[tokio::test]
async fn a_virtual_address_is_a_fact_both_ways() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    let mut other = Agent::connect(&server, "n2").await;
    let (there, back) = ("virtual/default/web", "address/248.43.58.223");
    agent
        .subscribe(&[
            there,
            "address/fd6d:6573:6876::f82b:3adf",
            "address/240.0.0.1",
        ])
        .await;
    // The answer comes under the IPv4 form, in whichever it was asked for.
    let mut first = std::collections::BTreeMap::new();
    while first.len() < 3 {
        let fact = agent.fact().await;
        first.insert(fact.topic, fact.body);
    }
    let none = b"null".to_vec();
    let expected = [there, back, "address/240.0.0.1"].map(|topic| (topic.to_owned(), none.clone()));
    assert_eq!(first, expected.into());

    // It comes with the first instance, and stays until the last thing goes.
    let addresses = json!({"ip4": "248.43.58.223", "ip6": "fd6d:6573:6876::f82b:3adf"});
    let key = json!({"namespace": "default", "name": "web"});
    other.put(&instance("n2", "web", "web-1")).await;
    let mut got = std::collections::BTreeMap::new();
    while got.len() < 2 {
        let fact = agent.fact().await;
        let body: serde_json::Value = serde_json::from_slice(&fact.body).unwrap();
        got.insert(fact.topic, body);
    }
    let expected = [(there, addresses.clone()), (back, key)];
    assert_eq!(
        got,
        expected.map(|(topic, body)| (topic.into(), body)).into()
    );
    for path in ["/v1/catalog/services", "/v1/services"] {
        assert_eq!(ok(&client.get(path).await)[0]["virtual"], addresses);
    }
    let written = client.put(
        "/v1/services/web",
        json!({"protocol": "http", "virtual": addresses}),
    );
    assert_eq!(ok(&written.await)["row"]["virtual"], addresses);
    other.change(Change::Remove("web-1".into())).await;
    let deleted = ok(&client.delete("/v1/services/web").await);
    let index = deleted["index"].as_u64().unwrap();
    for _ in 0..2 {
        let fact = agent.fact().await;
        assert_eq!(fact.body, none, "{}", fact.topic);
        assert!(fact.version.unwrap().index >= index, "{}", fact.topic);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn an_address_that_is_none_is_no_topic() {
    let (server, _) = one().await;
    for topic in ["address/10.0.0.1", "address/fd00::f000:1", "virtual/web"] {
        let mut agent = Agent::connect(&server, "n1").await;
        agent.subscribe(&[topic]).await;
        let refusal = loop {
            if let Err(refusal) = agent.next().await {
                break refusal;
            }
        };
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert!(refusal.to_string().contains(topic), "{refusal}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn checksums_come_again_and_again() {
    let mut options = options("s1");
    options.timing.resync = Duration::from_millis(50);
    let (server, _) = start(options).await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.subscribe(&["mesh", "service/default/web"]).await;
    let mut sums = std::collections::BTreeMap::new();
    let mut rounds = 0;
    while rounds < 2 {
        match agent.next().await.unwrap() {
            To::Fact(fact) => {
                sums.insert(fact.topic, fact.checksum);
            }
            To::Checksums(checksums) => {
                rounds += 1;
                assert_eq!(checksums.topics.len(), 2);
                for topic in checksums.topics {
                    assert_eq!(sums[&topic.topic], topic.checksum);
                }
            }
            _ => {}
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_catalog_follows_the_agent() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    let mut watcher = Agent::connect(&server, "n2").await;
    watcher.subscribe(&["endpoints/default/web"]).await;
    assert_eq!(watcher.body("endpoints/default/web").await, json!([]));
    let two = [
        instance("n1", "web", "web-1"),
        instance("n1", "web", "web-2"),
    ];
    let sync = agent
        .change(Change::Sync(serde_json::to_vec(&two).unwrap()))
        .await;
    assert_eq!(sync.error, "");
    assert_eq!(
        watcher
            .body("endpoints/default/web")
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let critical = Check {
        name: "alive".into(),
        status: Status::Critical,
    };
    let change = [CheckChange {
        instance: "web-1".into(),
        id: "alive".into(),
        check: critical,
    }];
    agent
        .change(Change::Checks(serde_json::to_vec(&change).unwrap()))
        .await;
    assert_eq!(
        watcher.body("endpoints/default/web").await[0]["status"],
        "critical"
    );
    let counts = ok(&client.get("/v1/services/web").await)["instances"].clone();
    assert_eq!(
        (&counts["passing"], &counts["critical"]),
        (&json!(1), &json!(1))
    );
    let listed = ok(&client.get("/v1/catalog/services/web").await);
    assert_eq!(
        (&listed[0]["id"], &listed[1]["status"]),
        (&json!("web-2"), &json!("critical"))
    );

    agent.change(Change::Remove("web-1".into())).await;
    assert_eq!(
        watcher
            .body("endpoints/default/web")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let nodes = ok(&client.get("/v1/catalog/nodes").await);
    assert_eq!(
        (&nodes[0]["id"], &nodes[0]["instances"]),
        (&json!("n1"), &json!(1))
    );
    let detail = ok(&client.get("/v1/catalog/nodes/n1").await);
    assert_eq!(detail["instances"][0]["id"], "web-2");

    // Force leave: gone, until the agent, if it lives, begins anew.
    let left = ok(&client.delete("/v1/catalog/nodes/n1").await);
    assert_eq!(left["change"], "deleted");
    assert_eq!(watcher.body("endpoints/default/web").await, json!([]));
    assert_eq!(end(&mut agent).await, Code::Aborted);
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&two[0]).await;
    assert_eq!(
        watcher
            .body("endpoints/default/web")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_node_only() {
    let (server, _) = one().await;
    let foreign = Agent::open(&server, "n1", &node("n2"), "").await;
    assert_eq!(foreign.err().unwrap().code(), Code::PermissionDenied);
    let mut agent = Agent::connect(&server, "n1").await;
    let foreign = serde_json::to_vec(&instance("n2", "web", "web-1")).unwrap();
    let refused = agent.change(Change::Put(foreign)).await;
    assert!(
        refused.error.contains("n2") && !refused.retry,
        "{refused:?}"
    );
    let malformed = agent.change(Change::Put(b"{".to_vec())).await;
    assert!(!malformed.error.is_empty() && !malformed.retry);

    // A server's certificate is not an agent's, and the other way round.
    let mut server_as_agent = client(&server, Role::Server, "s9");
    let refused = server_as_agent
        .sign(wire::SignRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let channel = super::agent::channel(&server, Role::Agent, "n1");
    let mut peers = wire::peers_client::PeersClient::new(channel);
    let refused = peers.identify(wire::IdentifyRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Raft is for servers only: whoever speaks it can write anything.
    for (role, code) in [
        (Role::Agent, Code::PermissionDenied),
        // Let in, and its request of no format refused.
        (Role::Server, Code::FailedPrecondition),
    ] {
        let channel = super::agent::channel(&server, role, "n1");
        let mut raft = tonic::client::Grpc::new(channel);
        soon(raft.ready()).await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/mesh.raft.v1.Raft/Call");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let refused = soon(raft.unary(tonic::Request::new(()), path, codec)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{role}");
    }
    // And an operator's is neither.
    let mut cli = client(&server, Role::Cli, "me");
    assert!(cli.sign(wire::SignRequest::default()).await.is_err());
    server.shutdown().await;
}

#[tokio::test]
async fn streams_that_may_not_be_are_ended() {
    let (server, _) = one().await;
    let other = Agent::open(&server, "n1", &node("n1"), "another-cluster").await;
    let refused = other.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("-rejoin"), "{refused}");

    let mut older = Agent::connect(&server, "n1").await;
    let own = older.welcome.cluster_id.clone();
    let _newer = Agent::open(&server, "n1", &node("n1"), &own).await.unwrap();
    assert_eq!(end(&mut older).await, Code::Aborted);

    let mut strange = Agent::connect(&server, "n2").await;
    strange.subscribe(&["secrets/default/web"]).await;
    assert_eq!(end(&mut strange).await, Code::InvalidArgument);

    let mut greedy = Agent::connect(&server, "n3").await;
    let topics: Vec<String> = (0..=crate::feed::MAX_TOPICS)
        .map(|number| format!("service/default/s{number}"))
        .collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    greedy.subscribe(&topics).await;
    assert_eq!(end(&mut greedy).await, Code::ResourceExhausted);

    let mut left = Agent::connect(&server, "n4").await;
    let stopping = tokio::spawn(server.shutdown());
    assert_eq!(end(&mut left).await, Code::Unavailable);
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn a_removed_node_that_lives_begins_anew() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    ok(&client.delete("/v1/catalog/nodes/n1").await);
    assert_eq!(end(&mut agent).await, Code::Aborted);
    let mut agent = Agent::connect(&server, "n1").await;
    let all = serde_json::to_vec(&[instance("n1", "web", "web-1")]).unwrap();
    assert_eq!(agent.change(Change::Sync(all)).await.error, "");
    let node = ok(&client.get("/v1/catalog/nodes/n1").await);
    assert!(node.to_string().contains("web-1"), "{node}");
}

#[tokio::test]
async fn the_largest_catalog_that_an_agent_may_have_is_taken() {
    let (server, _) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    let mut all = Vec::new();
    let mut bytes = 2;
    for number in 0.. {
        let mut one = instance("n1", "web", &format!("web-{number}"));
        one.meta.insert("filler".into(), "x".repeat(20_000));
        let more = serde_json::to_vec(&one).unwrap().len() + 1;
        if bytes + more > mesh_proto::servers::MAX_CATALOG {
            break;
        }
        bytes += more;
        all.push(one);
    }
    let sync = Change::Sync(serde_json::to_vec(&all).unwrap());
    assert_eq!(agent.change(sync).await.error, "");
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
async fn a_change_is_live_when_it_is_acked() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    agent.subscribe(&["intentions/default/web"]).await;
    let proxy = wire::ProxyStatus {
        proxy: "web-1-sidecar-proxy".into(),
        namespace: "default".into(),
        service: "web".into(),
        instance: "web-1".into(),
        connected: true,
        ..wire::ProxyStatus::default()
    };
    agent.report(vec![proxy]).await;
    agent.mark().await;
    let wrote = ok(&client
        .put("/v1/intentions/a/web", json!({"action": "deny"}))
        .await);
    let index = wrote["index"].as_u64().unwrap();
    let path = format!("/v1/proxies/wait?index={index}&destination=web");
    let late = ok(&client.get(&format!("{path}&timeout=1ms")).await);
    assert_eq!(
        (&late["live"], &late["proxies"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(late["lagging"][0]["proxy"], "web-1-sidecar-proxy");
    assert_eq!(late["lagging"][0]["node"], "n1");

    let waiting = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { client.get(&format!("{path}&timeout=60s")).await }
    });
    agent.ack(index).await;
    let live = ok(&waiting.await.unwrap());
    assert_eq!(
        (&live["live"], &live["lagging"]),
        (&json!(true), &json!([]))
    );

    // One proxy of the agent lags, and is named with its reason.
    let version = wire::Version {
        epoch: wrote["epoch"].as_str().unwrap().into(),
        index,
    };
    let lagging = vec![wire::Lagging {
        proxy: "web-1-sidecar-proxy".into(),
        reason: "it is not connected".into(),
    }];
    let ack = wire::Ack {
        version: Some(version),
        lagging,
    };
    agent.say(wire::from_agent::Message::Ack(ack)).await;
    let lags = loop {
        let answer = ok(&client.get(&format!("{path}&timeout=1ms")).await);
        if answer["live"] == json!(false) {
            break answer;
        }
    };
    assert_eq!(lags["lagging"][0]["reason"], "it is not connected");
    let listed = ok(&client.get("/v1/proxies?service=web").await);
    assert_eq!(listed["proxies"][0]["node"], "n1");
    assert_eq!(
        ok(&client.get("/v1/proxies?service=db").await)["proxies"],
        json!([])
    );
    drop(agent);
    let gone = loop {
        let answer = ok(&client.get(&format!("{path}&timeout=1ms")).await);
        if answer["agents"] == json!(0) {
            break answer;
        }
    };
    assert_eq!(gone["not_connected"], json!(["n1"]));
    server.shutdown().await;
}

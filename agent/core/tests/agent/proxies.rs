//! The feed: who is accepted, and what a proxy gets.

use std::time::Duration;

use mesh_proto::proxies::v1::ack::What;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::LeafKey;
use tonic::Code;

use crate::support::{Ca, Proxy, World, bootstrap, register, spiffe, web};

const WEB: &str = "web-1-sidecar-proxy";

#[tokio::test]
async fn a_proxy_gets_roots_config_and_leaf_and_acks_go_up() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let given = bootstrap(&agent, WEB).await;
    assert_eq!(given.service.name, "web");
    assert_eq!(given.agent.to_string(), agent.addresses().grpc.to_string());

    let key = LeafKey::generate().unwrap();
    let ticket = given.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let (config, read) = proxy.config().await;
    assert_eq!(read.identity, spiffe("web"));
    assert_eq!(read.proxy, WEB);
    assert_eq!(read.outbound[0].service.name, "api");
    proxy.ack(What::Config(config.serial), "").await;
    let leaf = proxy.leaf(key.csr().unwrap()).await;
    assert_eq!((leaf.error.as_str(), leaf.chain.len()), ("", 1));
    proxy.ack(What::LeafNotAfter(1234), "").await;

    server
        .until("the report", |state| {
            state.reports.iter().any(|it| {
                it.proxy == WEB
                    && it.connected
                    && it.leaf_not_after == 1234
                    && it.leaf_root == "ab".repeat(32)
                    && it.roots.len() == 1
                    && it.problem.is_empty()
            })
        })
        .await;
    // A change is acked only when the proxy has acked it.
    let endpoint = r#"[{"instance":"api-1","node":"n2","address":"10.0.0.9","port":21000,
        "identity":"spiffe://test.mesh/ns/default/dc/dc1/svc/api","status":"passing",
        "weights":{"passing":1,"warning":1}}]"#;
    let version = server.set("endpoints/default/api", endpoint).await;
    let (config, read) = proxy.config().await;
    assert!(
        read.clusters
            .values()
            .any(|cluster| cluster.endpoints.len() == 1)
    );
    let (at, named) = (version.clone(), version.clone());
    server
        .until("an ack that names it as lagging", move |state| {
            let mut acks = state.acks.iter();
            acks.any(|ack| ack.version.as_ref() == Some(&named) && ack.lagging.len() == 1)
        })
        .await;
    proxy.ack(What::Config(config.serial), "").await;
    server
        .until("an ack without anyone lagging", move |state| {
            let last = state.acks.last();
            last.is_some_and(|ack| ack.version.as_ref() == Some(&at) && ack.lagging.is_empty())
        })
        .await;
    let reported = server.change(|state| state.reports[0].clone());
    assert_eq!(reported.acked, Some(version));

    // What changes nothing for it is not sent, but acked.
    let version = server.set("route/default/api", "null").await;
    server
        .until("an ack", move |state| {
            state
                .acks
                .iter()
                .any(|ack| ack.version.as_ref() == Some(&version))
        })
        .await;
    agent.shutdown().await;
}

#[tokio::test]
async fn what_a_proxy_does_not_take_is_named() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let (key, ticket) = (
        LeafKey::generate().unwrap(),
        bootstrap(&agent, WEB).await.ticket.unwrap(),
    );
    let mut proxy = Proxy::with_ticket(agent.addresses().grpc, WEB, &key, &ticket)
        .await
        .unwrap();
    let (config, _) = proxy.config().await;
    proxy
        .ack(What::Config(config.serial), "unknown field `new`")
        .await;
    server
        .until("the reason", |state| {
            let last = state.acks.last().and_then(|ack| ack.lagging.first());
            last.is_some_and(|it| it.proxy == WEB && it.reason == "unknown field `new`")
        })
        .await;
    drop(proxy);
    server
        .until("the end of its stream", |state| {
            let last = state.acks.last().and_then(|ack| ack.lagging.first());
            last.is_some_and(|it| it.reason.contains("not open")) && !state.reports[0].connected
        })
        .await;
}

#[tokio::test]
async fn proof_by_ticket_is_for_one_proxy_once_and_in_time() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    register(&agent, &web("web-1")).await;
    register(&agent, &web("web-2")).await;
    let at = agent.addresses().grpc;
    let key = LeafKey::generate().unwrap();
    let stranger = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();

    let refused = async |result: Result<Proxy, tonic::Status>| {
        let status = result.err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(
            !status.message().contains("ticket is"),
            "it says too much: {status}"
        );
    };
    // Another proxy's id.
    refused(Proxy::with_ticket(at, "web-2-sidecar-proxy", &key, &ticket).await).await;
    // A wrong signature does not use it up.
    let mut hello = Proxy::hello(WEB, &key);
    hello.ticket = ticket.as_bytes().to_vec();
    hello.signed_by = Some(&stranger);
    refused(Proxy::open(at, hello).await).await;
    let first = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    // A second use, by another key; and no proof at all.
    refused(Proxy::with_ticket(at, WEB, &stranger, &ticket).await).await;
    refused(Proxy::open(at, Proxy::hello(WEB, &stranger)).await).await;
    // The same key is remembered, with the used ticket or without.
    Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    Proxy::open(at, Proxy::hello(WEB, &key)).await.unwrap();
    drop(first);
    // An expired one.
    let late = bootstrap(&agent, "web-2-sidecar-proxy")
        .await
        .ticket
        .unwrap();
    world.clock.advance(Duration::from_secs(301));
    refused(Proxy::with_ticket(at, "web-2-sidecar-proxy", &key, &late).await).await;
    // One that is not registered may be too early.
    let early = Proxy::with_ticket(at, "nobody", &key, &late)
        .await
        .err()
        .unwrap();
    assert_eq!(early.code(), Code::Unavailable);
}

#[tokio::test]
async fn proof_by_leaf_where_no_key_is_remembered() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    server
        .until("the subscription", |state| {
            state.subscribed.contains("roots")
        })
        .await;
    let at = agent.addresses().grpc;
    let (key, other) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let foreign = Ca::new("mesh");
    let leaf_of =
        |ca: &Ca, key: &LeafKey, service: &str| vec![ca.leaf(&key.public_key(), &spiffe(service))];
    let open = async |leaf: Vec<Vec<u8>>| {
        loop {
            let mut hello = Proxy::hello(WEB, &key);
            hello.leaf = leaf.clone();
            match Proxy::open(at, hello).await {
                // The roots may not have come yet.
                Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    for (what, leaf) in [
        ("another service's", leaf_of(&world.mesh, &key, "api")),
        ("another CA's", leaf_of(&foreign, &key, "web")),
        ("another key's", leaf_of(&world.mesh, &other, "web")),
        ("not a certificate", vec![b"nonsense".to_vec()]),
    ] {
        let status = open(leaf)
            .await
            .err()
            .unwrap_or_else(|| panic!("{what} leaf was taken"));
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
    }
    world.clock.advance(Duration::from_secs(7200));
    let expired = open(leaf_of(&world.mesh, &key, "web")).await.err().unwrap();
    assert_eq!(expired.code(), Code::Unauthenticated);
    // Back in time, by a new world of the same CA: simpler than a clock that goes back.
    let good = World {
        clock: World::new().clock,
        folder: tempfile::tempdir().unwrap(),
        ..world
    };
    let agent = good.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let at = agent.addresses().grpc;
    let leaf = leaf_of(&good.mesh, &key, "web");
    let proxy = loop {
        let mut hello = Proxy::hello(WEB, &key);
        hello.leaf = leaf.clone();
        // It began with a ticket, which no agent knows any more.
        hello.ticket = vec![7; 32];
        match Proxy::open(at, hello).await {
            Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    // From then on its key is known, and another's good leaf does not override it.
    Proxy::open(at, Proxy::hello(WEB, &key)).await.unwrap();
    let mut hello = Proxy::hello(WEB, &other);
    hello.leaf = leaf_of(&good.mesh, &other, "web");
    let status = Proxy::open(at, hello).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    drop(proxy);
}

#[tokio::test]
async fn a_newer_stream_replaces_and_a_new_ticket_does_not() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let at = agent.addresses().grpc;
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let mut first = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    first.config().await;
    let next = bootstrap(&agent, WEB).await.ticket.unwrap();
    // The running proxy goes on.
    let leaf = first.leaf(key.csr().unwrap()).await;
    assert_eq!(leaf.error, "");
    // The proxy is started again: another key, the new ticket.
    let other = LeafKey::generate().unwrap();
    let mut second = Proxy::with_ticket(at, WEB, &other, &next).await.unwrap();
    assert_eq!(first.end().await.code(), Code::Aborted);
    second.config().await;
    // The key of the one before is no longer the proxy's.
    let status = Proxy::open(at, Proxy::hello(WEB, &key))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    // And it ends with its registration.
    let url = "/v1/agent/service/deregister/web-1";
    crate::support::request(agent.addresses().http, "PUT", url, &[], String::new()).await;
    assert_eq!(second.end().await.code(), Code::NotFound);
}

#[tokio::test]
async fn wishes_for_a_leaf_wait_are_checked_and_limited() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let (key, ticket) = (
        LeafKey::generate().unwrap(),
        bootstrap(&agent, WEB).await.ticket.unwrap(),
    );
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    // What may pass is tried again without the proxy.
    server.change(|state| {
        state.refuse_signs = [
            tonic::Status::unavailable("no leader"),
            tonic::Status::not_found("not yet"),
        ]
        .into();
    });
    assert_eq!(proxy.leaf(key.csr().unwrap()).await.error, "");
    assert!(server.change(|state| state.signs) >= 3);
    // What will not is said.
    server.change(|state| state.refuse_signs = [tonic::Status::invalid_argument("bad")].into());
    assert_eq!(proxy.leaf(key.csr().unwrap()).await.error, "bad");
    let error = proxy.leaf(b"nonsense".to_vec()).await.error;
    assert!(error.starts_with("certificate request:"), "{error}");
    // A key that the proxy got a leaf for is its key from then on.
    let renewed = LeafKey::generate().unwrap();
    assert_eq!(proxy.leaf(renewed.csr().unwrap()).await.error, "");
    Proxy::open(at, Proxy::hello(WEB, &renewed)).await.unwrap();
    let mut proxy = Proxy::open(at, Proxy::hello(WEB, &key)).await.unwrap();
    let mut refused = 0;
    for _ in 0..30 {
        let error = proxy.leaf(b"nonsense".to_vec()).await.error;
        refused += u32::from(error.starts_with("too many"));
    }
    assert!(refused >= 2, "{refused}");
}

#[tokio::test]
async fn without_facts_there_is_no_config() {
    let world = World::new();
    let server = world.server().await;
    server.change(|state| state.facts.remove("endpoints/default/api"));
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let (key, ticket) = (
        LeafKey::generate().unwrap(),
        bootstrap(&agent, WEB).await.ticket.unwrap(),
    );
    let mut proxy = Proxy::with_ticket(agent.addresses().grpc, WEB, &key, &ticket)
        .await
        .unwrap();
    let roots = loop {
        match proxy.next().await.unwrap() {
            Some(To::Revocations(_)) => {}
            Some(To::Roots(roots)) => break roots,
            other => panic!("roots come before a config: {other:?}"),
        }
    };
    assert_eq!(
        (roots.trust_domain.as_str(), roots.roots.len()),
        ("test.mesh", 1)
    );
    server
        .until("the reason", |state| {
            let problem = state.reports.first().map(|it| it.problem.as_str());
            problem == Some("the servers have not said yet: endpoints/default/api")
        })
        .await;
    server.set("endpoints/default/api", "[]").await;
    proxy.config().await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_does_not_burn_the_ticket() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    register(&agent, &web("web-1")).await;
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let key = LeafKey::generate().unwrap();
    let at = agent.addresses().grpc;
    // Where the proxies' keys are to be kept stands a file.
    let folder = world.data().join("data/proxies");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    let refused = Proxy::with_ticket(at, WEB, &key, &ticket).await;
    assert_eq!(
        refused.err().unwrap().code(),
        Code::Unavailable,
        "come again"
    );
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let other = LeafKey::generate().unwrap();
    let used = Proxy::with_ticket(at, WEB, &other, &ticket).await;
    assert_eq!(
        used.err().unwrap().code(),
        Code::Unauthenticated,
        "and used up then"
    );
}

#[tokio::test]
async fn streams_that_prove_nothing_are_few() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let at = agent.addresses().grpc;
    let mut held = Vec::new();
    let refused = loop {
        match Proxy::silent(at).await {
            Ok(stream) => held.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(held.len(), 256);
    // One that goes leaves its place to the next.
    held.pop();
    let next = async {
        while Proxy::silent(at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    crate::support::soon("a place", next).await;
}

#[tokio::test]
async fn connections_of_proxies_are_as_many_as_allowed() {
    let world = World::new();
    let mut options = world.options(&[]);
    options.limits.proxies = 1;
    let agent = mesh_agent::Agent::start(options).await.unwrap();
    register(&agent, &web("web-1")).await;
    let at = agent.addresses().grpc;
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let first = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let second = Proxy::open(at, Proxy::hello(WEB, &key));
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(early.is_err(), "there is one place");
    drop(first);
    second.await.unwrap();
}

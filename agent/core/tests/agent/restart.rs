//! A restart of the agent is not felt, with the servers away or not.

use std::time::Duration;

use mesh_agent::{Agent, AgentError};
use mesh_proto::proxies::v1::ack::What;
use mesh_tls::LeafKey;
use serde_json::json;

use crate::support::{Proxy, World, bootstrap, register, request, soon, web};

const WEB: &str = "web-1-sidecar-proxy";

#[tokio::test]
async fn it_answers_from_its_disk_at_once() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let at = agent.addresses().clone();
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let mut proxy = Proxy::with_ticket(at.grpc, WEB, &key, &ticket)
        .await
        .unwrap();
    let (before, config) = proxy.config().await;
    proxy.ack(What::Config(before.serial), "").await;
    let get = async |at, path| request(at, "GET", path, &[], String::new()).await.json();
    let services = get(at.http, "/v1/agent/services").await;
    let checks = get(at.http, "/v1/agent/checks").await;
    assert_eq!(checks["service:web-1"]["Status"], "passing");
    let datacenter = &get(at.http, "/v1/agent/self").await["Config"]["Datacenter"];
    assert_eq!(*datacenter, "dc1");

    agent.shutdown().await;
    assert_eq!(proxy.end().await.code(), tonic::Code::Unavailable);
    drop(server);

    let agent = world.agent(&[]).await;
    let at = agent.addresses().clone();
    assert_eq!(get(at.http, "/v1/agent/services").await, services);
    let again = get(at.http, "/v1/agent/checks").await;
    assert_eq!(again["service:web-1"]["Status"], "passing");
    // The proxy proves itself by its key, and gets the same config.
    let mut proxy = Proxy::open(at.grpc, Proxy::hello(WEB, &key)).await.unwrap();
    let (after, same) = proxy.config().await;
    assert_eq!(
        (same, after.config, after.version),
        (config, before.config, before.version)
    );
    // A bootstrap, too, needs no server.
    bootstrap(&agent, WEB).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn an_ack_waits_for_the_disk() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    server.until("an ack", |state| !state.acks.is_empty()).await;
    // Where the agent would write its facts stands something else.
    let obstacle = world.data().join("data/facts.json.tmp");
    let placed = async {
        // Not while a write is under way.
        while std::fs::create_dir(&obstacle).is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("a pause of the writes", placed).await;
    let deny = json!([{"namespace": "default", "name": "web", "source": {"name": "api"}, "action": "deny"}]);
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let (first, _) = proxy.config().await;
    proxy.ack(What::Config(first.serial), "").await;
    let version = server
        .set("intentions/default/web", &deny.to_string())
        .await;
    let (config, read) = proxy.config().await;
    assert_eq!(read.policy.intentions.len(), 1, "the proxy has it at once");
    proxy.ack(What::Config(config.serial), "").await;
    let is_acked = |state: &crate::support::State| {
        let last = state.acks.last().unwrap();
        last.version == Some(version.clone()) && last.lagging.is_empty()
    };
    let early = server.until("its ack", is_acked);
    let early = tokio::time::timeout(Duration::from_millis(500), early).await;
    assert!(early.is_err(), "acked, and not on disk");
    std::fs::remove_dir(&obstacle).unwrap();
    server.until("its ack", is_acked).await;
    let kept = std::fs::read_to_string(world.data().join("data/facts.json")).unwrap();
    assert!(kept.contains("deny"), "{kept}");
}

#[tokio::test]
async fn two_agents_on_the_same_data_are_refused() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let mut options = world.options(&[]);
    options.socket = None;
    let error = Agent::start(options).await.unwrap_err();
    assert!(matches!(error, AgentError::Locked(_)), "{error}");
    agent.shutdown().await;
    world.agent(&[]).await.shutdown().await;
}

#[tokio::test]
async fn a_bad_instance_file_keeps_a_first_start_and_not_a_restart() {
    let world = World::new();
    let files = world.data().join("instances.d");
    std::fs::create_dir(&files).unwrap();
    let write = |text: &str| std::fs::write(files.join("a.hcl"), text).unwrap();
    let options = || {
        let mut options = world.options(&[]);
        options.instance_dir = Some(files.clone());
        options
    };
    write("instance \"web\" {\n  prot = 80\n}\n");
    let error = Agent::start(options()).await.unwrap_err();
    assert!(error.to_string().contains("a.hcl:2"), "{error}");
    write("instance \"web\" {\n  port = 80\n}\n");
    let agent = Agent::start(options()).await.unwrap();
    assert_eq!(agent.status().instances, 1);
    write("instance \"web\" {\n  port = 81\n}\n\ninstance \"api\" {\n  port = 82\n}\n");
    assert_eq!(agent.reload().await.unwrap(), 2);
    write("nonsense");
    assert!(agent.reload().await.is_err());
    assert_eq!(agent.status().instances, 2);
    agent.shutdown().await;

    let agent = Agent::start(options()).await.unwrap();
    assert_eq!(agent.status().instances, 2);
    let ready = request(agent.addresses().http, "GET", "/ready", &[], String::new())
        .await
        .json();
    assert!(
        ready["instance_files_error"]
            .as_str()
            .unwrap()
            .contains("a.hcl")
    );
    let metrics = request(
        agent.addresses().http,
        "GET",
        "/metrics",
        &[],
        String::new(),
    )
    .await;
    assert!(
        metrics.body.contains("mesh_agent_instance_files_ok 0"),
        "{}",
        metrics.body
    );
    write("");
    assert_eq!(agent.reload().await.unwrap(), 0);
    assert_eq!(
        request(agent.addresses().http, "GET", "/ready", &[], String::new())
            .await
            .json()["instance_files_error"],
        json!(null)
    );
    agent.shutdown().await;
}

#[tokio::test]
async fn without_its_folder_what_files_registered_is_gone() {
    let world = World::new();
    let files = world.data().join("instances.d");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.hcl"), "instance \"api\" {\n  port = 82\n}\n").unwrap();
    let mut options = world.options(&[]);
    options.instance_dir = Some(files);
    let agent = Agent::start(options).await.unwrap();
    register(&agent, &web("web-1")).await;
    assert_eq!(agent.status().instances, 2);
    agent.shutdown().await;
    for _ in 0..2 {
        let agent = world.agent(&[]).await;
        let get = request(
            agent.addresses().http,
            "GET",
            "/v1/agent/services",
            &[],
            String::new(),
        );
        let services = get.await.json();
        assert!(
            services.get("api").is_none() && services.get("web-1").is_some(),
            "{services}"
        );
        agent.shutdown().await;
    }
}

#[tokio::test]
async fn damaged_files_are_set_aside() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    register(&agent, &web("web-1")).await;
    register(&agent, &web("web-2")).await;
    agent.shutdown().await;
    let data = world.data().join("data");
    for name in ["facts.json", "checks.json", "cluster.json"] {
        std::fs::write(data.join(name), "{\"").unwrap();
    }
    let mut instances: Vec<_> = std::fs::read_dir(data.join("instances"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    instances.sort();
    std::fs::write(&instances[0], "[]").unwrap();
    let agent = world.agent(&[]).await;
    assert_eq!(agent.status().instances, 1);
    assert!(data.join("facts.json.damaged").exists());
    agent.shutdown().await;
}

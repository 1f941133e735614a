//! Certificates for native instances: who gets one with its key, and when another one.

use std::time::Duration;

use mesh_agent::Agent;
use mesh_model::config::Attestation;
use mesh_tls::{Credential, Trust};
use serde_json::{Value, json};
use tonic::Status;

use crate::doors::Other;
use crate::support::{Answer, Fake, Nomad, World, soon, spiffe, web};
use crate::workloads::{ALLOC, NOMADS_OWN, OTHER_ALLOC, REGISTER, ask, id, login, options};

const LEAF: &str = "/v1/agent/connect/ca/leaf/web";

fn native(id: &str) -> Value {
    json!({"ID": id, "Name": "web", "Port": 8443, "Connect": {"Native": true}})
}

async fn start(world: &World, nomad: &Nomad, server: &Fake) -> Agent {
    let mut options = options(world, nomad, Attestation::Node);
    options.servers = vec![server.address.to_string()];
    let agent = Agent::start(options).await.unwrap();
    server.until("the stream", |state| state.syncs > 0).await;
    agent
}

async fn leaf(agent: &Agent, query: &str, token: &str) -> Answer {
    let path = format!("{LEAF}{query}");
    ask(agent, "GET", &path, token, String::new()).await
}

async fn register(agent: &Agent, body: &Value, token: &str) -> Answer {
    ask(agent, "PUT", REGISTER, token, body.to_string()).await
}

#[tokio::test]
async fn a_native_workload_gets_a_certificate_and_its_key() {
    let world = World::new();
    let (nomad, server) = (Nomad::start().await, world.server().await);
    let agent = start(&world, &nomad, &server).await;
    let token = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    // It may ask before Nomad has registered it.
    let (asked, registered) = tokio::join!(leaf(&agent, "", &token), async {
        tokio::task::yield_now().await;
        register(&agent, &native(&id(ALLOC)), &token).await
    });
    assert_eq!(registered.status, 200, "{}", registered.body);
    assert_eq!(asked.status, 200, "{}", asked.body);
    let got = asked.json();
    assert_eq!(got["Service"], "web");
    assert_eq!(got["ServiceURI"], spiffe("web"));
    let text = |field: &str| got[field].as_str().unwrap().as_bytes();
    // They fit each other, and the certificate is of the mesh.
    let credential = Credential::from_pem("leaf", text("CertPEM"), text("PrivateKeyPEM"));
    let chain = credential.unwrap().leaf().chain.clone();
    let domain = "test.mesh".parse().unwrap();
    let trust = Trust::from_pem(domain, "roots", world.mesh.pem.as_bytes()).unwrap();
    let proved = trust.verify(&chain, std::time::SystemTime::now()).unwrap();
    assert_eq!(proved.as_str(), spiffe("web"));
    let serial = got["SerialNumber"].as_str().unwrap();
    assert!(serial.split(':').all(|byte| byte.len() == 2), "{serial}");
    assert!(got["ValidAfter"].as_str().unwrap() < got["ValidBefore"].as_str().unwrap());

    // All who ask have the same; and what stands on disk is no key.
    let signs = server.change(|state| state.signs);
    assert_eq!(leaf(&agent, "", &token).await.json(), got);
    assert_eq!(server.change(|state| state.signs), signs);
    let shown = server.change(|state| state.instances[&id(ALLOC)].clone());
    assert!(shown.proxy.is_some_and(|it| it.native && it.port == 8443));
    let key = got["PrivateKeyPEM"]
        .as_str()
        .unwrap()
        .lines()
        .nth(1)
        .unwrap();
    for entry in walk(world.data()) {
        let bytes = std::fs::read(&entry).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(key), "a key stands in {}", entry.display());
    }
    agent.shutdown().await;

    // After a restart there is another, and who knows the old index gets it at once.
    world.clock.advance(Duration::from_secs(1));
    let agent = start(&world, &nomad, &server).await;
    let query = format!("?index={}&wait=60s", got["ModifyIndex"]);
    let again = soon("the next", leaf(&agent, &query, &token)).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_ne!(again.json()["PrivateKeyPEM"], got["PrivateKeyPEM"]);
    assert_ne!(again.json()["ModifyIndex"], got["ModifyIndex"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => all.extend(walk(&path)),
            (_, true) => all.push(path),
            _ => {}
        }
    }
    all
}

#[tokio::test]
async fn nobody_else_gets_anything() {
    let world = World::new();
    let (nomad, server) = (Nomad::start().await, world.server().await);
    let agent = start(&world, &nomad, &server).await;
    let own = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let api = login(&agent, &nomad.identity(&world, ALLOC, "api")).await;
    let ended = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let logout = ask(&agent, "POST", "/v1/acl/logout", &ended, String::new()).await;
    assert_eq!(logout.status, 200);
    let registered = register(&agent, &native(&id(ALLOC)), &own).await;
    assert_eq!(registered.status, 200, "{}", registered.body);

    for (token, reason) in [
        ("", "no token came"),
        (NOMADS_OWN, "not one that this agent gave"),
        ("meshworkload1.x.y", "not one that this agent gave"),
        (&api, "the token is that of api"),
        (&ended, "logged out"),
    ] {
        let refused = leaf(&agent, "", token).await;
        assert_eq!(refused.status, 403, "{token}: {}", refused.body);
        assert!(refused.body.contains(reason), "{token}: {}", refused.body);
        assert!(!refused.body.contains("PRIVATE"));
    }
    // Its own service's token, for another service.
    let path = "/v1/agent/connect/ca/leaf/api";
    let refused = ask(&agent, "GET", path, &own, String::new()).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    // A sidecar's key never leaves it.
    let sidecar = login(&agent, &nomad.identity(&world, OTHER_ALLOC, "web")).await;
    let registered = register(&agent, &web(&id(OTHER_ALLOC)), &sidecar).await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let refused = leaf(&agent, "", &sidecar).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("is not native"), "{}", refused.body);
    assert_eq!(server.change(|state| state.signs), 0, "nothing was signed");

    // A user of the machine is no workload.
    let http = agent.addresses().http.to_string();
    if let Some(other) = Other::new(&world) {
        let refused = other.ask(&http, "GET", LEAF, "", "").await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    // Who waits for the next one is given nothing once its login has ended.
    let second = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let got = leaf(&agent, "", &own).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let query = format!("?index={}&wait=600s", got.json()["ModifyIndex"]);
    let (waited, ()) = tokio::join!(leaf(&agent, &query, &own), async {
        let ended = ask(&agent, "POST", "/v1/acl/logout", &own, String::new()).await;
        assert_eq!(ended.status, 200);
        world.clock.advance(Duration::from_secs(3600 * 6 / 10));
        let next = leaf(&agent, "", &second).await;
        assert_eq!(next.status, 200, "{}", next.body);
        assert_ne!(next.json()["ModifyIndex"], got.json()["ModifyIndex"]);
    });
    assert_eq!(waited.status, 403, "{}", waited.body);
    assert!(!waited.body.contains("PRIVATE"));
}

#[tokio::test]
async fn it_is_renewed_in_time_and_kept_where_that_fails() {
    let world = World::new();
    let (nomad, server) = (Nomad::start().await, world.server().await);
    let agent = start(&world, &nomad, &server).await;
    let token = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let registered = register(&agent, &native(&id(ALLOC)), &token).await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let first = leaf(&agent, "", &token).await.json();

    // The leaf has an hour: at 0.45 to 0.55 of it another one is made.
    world.clock.advance(Duration::from_secs(3600 * 44 / 100));
    assert_eq!(leaf(&agent, "", &token).await.json(), first);
    world.clock.advance(Duration::from_secs(3600 * 12 / 100));
    server.change(|state| {
        let refused = Status::failed_precondition("the CA is away");
        state.refuse_signs.push_back(refused);
    });
    assert_eq!(leaf(&agent, "", &token).await.json(), first, "still good");
    let query = format!("?index={}&wait=60s", first["ModifyIndex"]);
    let second = soon("the next", leaf(&agent, &query, &token)).await.json();
    assert_ne!(second["SerialNumber"], first["SerialNumber"]);
    assert_ne!(second["PrivateKeyPEM"], first["PrivateKeyPEM"]);
    assert_eq!(leaf(&agent, "", &token).await.json(), second);

    // One that is deregistered has none any more, and its key is forgotten.
    let away = format!("/v1/agent/service/deregister/{}", id(ALLOC));
    let gone = ask(&agent, "PUT", &away, &token, String::new()).await;
    assert_eq!(gone.status, 200, "{}", gone.body);
    server
        .until("its end", |state| state.instances.is_empty())
        .await;
    let registered = register(&agent, &native(&id(ALLOC)), &token).await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let third = leaf(&agent, "", &token).await.json();
    assert_ne!(third["PrivateKeyPEM"], second["PrivateKeyPEM"]);
}

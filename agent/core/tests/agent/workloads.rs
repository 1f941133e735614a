//! Workload identity: a login with Nomad's word, and what the token of it lets pass.

use std::path::{Path, PathBuf};

use mesh_agent::{Agent, AgentOptions};
use mesh_model::config::Attestation;
use mesh_proto::bootstrap::Bootstrap;
use mesh_tls::LeafKey;
use serde_json::{Value, json};

use crate::doors::Other;
use crate::support::{Answer, Nomad, Proxy, World, request, request_unix, web};

pub const ALLOC: &str = "6f3b1a2c-0000-4000-8000-000000000001";
pub const OTHER_ALLOC: &str = "6f3b1a2c-0000-4000-8000-000000000002";
pub const REGISTER: &str = "/v1/agent/service/register";
/// What an operator writes as `consul.token` of a Nomad client.
pub const NOMADS_OWN: &str = "00000000-1111-2222-3333-444444444444";

pub fn options(world: &World, nomad: &Nomad, attestation: Attestation) -> AgentOptions {
    let mut options = world.options(&[]);
    options.nomad.address = nomad.address.clone();
    options.attestation = attestation;
    options
}

/// The id that Nomad gives to the service web of an allocation.
pub fn id(allocation: &str) -> String {
    format!("_nomad-task-{allocation}-group-shop-web-http")
}

pub async fn ask(agent: &Agent, method: &str, path: &str, token: &str, body: String) -> Answer {
    let headers: &[_] = &[("x-consul-token", token)];
    let headers = if token.is_empty() { &[] } else { headers };
    request(agent.addresses().http, method, path, headers, body).await
}

fn login_body(jwt: &str) -> String {
    json!({"AuthMethod": "nomad-workloads", "BearerToken": jwt,
           "Meta": {"requested_by": "nomad_service_web"}})
    .to_string()
}

/// The token of a service's login.
pub async fn login(agent: &Agent, jwt: &str) -> String {
    let answer = ask(agent, "POST", "/v1/acl/login", "", login_body(jwt)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = answer.json();
    assert_eq!(token["AuthMethod"], "nomad-workloads");
    token["SecretID"].as_str().unwrap().to_owned()
}

async fn bootstrap(agent: &Agent, allocation: &str, token: Option<&str>) -> Answer {
    let socket = agent.addresses().socket.clone().unwrap();
    let body = json!({"proxy_id": format!("{}-sidecar-proxy", id(allocation)), "token": token});
    request_unix(&socket, "POST", "/v1/proxy/bootstrap", body.to_string()).await
}

#[tokio::test]
async fn a_login_lives_until_its_logout() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let options = || options(&world, &nomad, Attestation::Node);
    let agent = Agent::start(options()).await.unwrap();
    let token = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let own = "/v1/acl/token/self?stale=";
    let shown = ask(&agent, "GET", own, &token, String::new()).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    assert_eq!(shown.json()["SecretID"], json!(token));
    assert_eq!(shown.json()["ServiceIdentities"][0]["ServiceName"], "web");
    for foreign in ["", NOMADS_OWN, &format!("{token}x")] {
        let refused = ask(&agent, "GET", own, foreign, String::new()).await;
        assert_eq!(
            (refused.status, refused.body.as_str()),
            (403, "ACL not found")
        );
    }
    agent.shutdown().await;

    // Nomad logs in once: neither the JWT's end nor a restart ends the token.
    world.clock.advance(std::time::Duration::from_secs(7200));
    let agent = Agent::start(options()).await.unwrap();
    assert_eq!(
        ask(&agent, "GET", own, &token, String::new()).await.status,
        200
    );
    for status in [200, 403] {
        let logout = ask(&agent, "POST", "/v1/acl/logout", &token, String::new()).await;
        assert_eq!(logout.status, status);
    }
    assert_eq!(
        ask(&agent, "GET", own, &token, String::new()).await.status,
        403
    );
    let ended = ask(&agent, "PUT", REGISTER, &token, web(&id(ALLOC)).to_string()).await;
    assert_eq!(ended.status, 403, "{}", ended.body);
    assert!(ended.body.contains("logged out"), "{}", ended.body);
}

#[tokio::test]
async fn a_login_needs_nomads_word() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let stranger = Nomad::start().await;
    let agent = Agent::start(options(&world, &nomad, Attestation::Node));
    let agent = agent.await.unwrap();
    for (body, status, reason) in [
        ("{".to_owned(), 400, "the body is not JSON"),
        ("{}".to_owned(), 400, "BearerToken: missing"),
        (login_body("x"), 403, "BearerToken: not a JWT"),
        (
            login_body(&stranger.identity(&world, ALLOC, "web")),
            403,
            "BearerToken: the signature is not that of Nomad's key",
        ),
        (
            login_body(&nomad.sign(&json!({"aud": "consul.io", "sub": "node:x"}))),
            403,
            "BearerToken: it is a node's",
        ),
    ] {
        let answer = ask(&agent, "POST", "/v1/acl/login", "", body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.starts_with(reason), "{}", answer.body);
    }
    agent.shutdown().await;
    // Whether it is a workload cannot be told while Nomad's keys cannot be read.
    let mut options = options(&world, &nomad, Attestation::Node);
    options.nomad.address = "http://127.0.0.1:1".into();
    let agent = Agent::start(options).await.unwrap();
    let body = login_body(&nomad.identity(&world, ALLOC, "web"));
    let answer = ask(&agent, "POST", "/v1/acl/login", "", body).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.starts_with("Nomad's keys: "), "{}", answer.body);
}

/// By the node alone a token is not needed, but one that comes must fit.
#[tokio::test]
async fn a_token_that_comes_must_fit() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let agent = Agent::start(options(&world, &nomad, Attestation::Node));
    let agent = agent.await.unwrap();
    let own = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let api = login(&agent, &nomad.identity(&world, ALLOC, "api")).await;
    let elsewhere = login(&agent, &nomad.identity(&world, OTHER_ALLOC, "web")).await;
    let body = web(&id(ALLOC)).to_string();
    let check = json!({"ID": "c", "Name": "c", "ServiceID": id(ALLOC), "TTL": "1h"}).to_string();
    for (token, status) in [
        (own.as_str(), 200),
        ("", 200),
        (NOMADS_OWN, 200),
        (&api, 403),
        (&elsewhere, 403),
    ] {
        for (method, path, body) in [
            ("PUT", REGISTER, &body),
            ("PUT", "/v1/agent/check/register", &check),
            ("PUT", "/v1/agent/check/pass/c", &String::new()),
        ] {
            let answer = ask(&agent, method, path, token, body.clone()).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        }
        let sent = Some(token).filter(|token| !token.is_empty());
        let answer = bootstrap(&agent, ALLOC, sent).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(token.is_empty() || !answer.body.contains(token));
    }
    let away = format!("/v1/agent/service/deregister/{}", id(ALLOC));
    for (token, status) in [(&api, 403), (&elsewhere, 403), (&own, 200)] {
        let answer = ask(&agent, "PUT", &away, token, String::new()).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

/// With `attestation = "workload"` root itself gets nothing that Nomad did not place.
#[tokio::test]
async fn under_attestation_a_sidecar_needs_its_own_token() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let agent = Agent::start(options(&world, &nomad, Attestation::Workload));
    let agent = agent.await.unwrap();
    let own = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let other_service = login(&agent, &nomad.identity(&world, ALLOC, "api")).await;
    let other_alloc = login(&agent, &nomad.identity(&world, OTHER_ALLOC, "web")).await;
    let body = web(&id(ALLOC)).to_string();
    let wrong = [
        "",
        NOMADS_OWN,
        "meshworkload1.x.y",
        &other_service,
        &other_alloc,
    ];
    for token in wrong {
        let refused = ask(&agent, "PUT", REGISTER, token, body.clone()).await;
        assert_eq!(refused.status, 403, "{token}: {}", refused.body);
    }
    let services = ask(&agent, "GET", "/v1/agent/services", "", String::new()).await;
    assert_eq!(services.json(), json!({}));
    let refused = ask(&agent, "PUT", REGISTER, NOMADS_OWN, body.clone()).await;
    for word in ["service_identity", "consul { token"] {
        assert!(refused.body.contains(word), "{}", refused.body);
    }
    // What has no sidecar gets no leaf, and needs no token.
    let plain = json!({"Name": "nomad-client", "Port": 4646}).to_string();
    assert_eq!(
        ask(&agent, "PUT", REGISTER, NOMADS_OWN, plain).await.status,
        200
    );
    let done = ask(&agent, "PUT", REGISTER, &own, body).await;
    assert_eq!(done.status, 200, "{}", done.body);

    for token in wrong {
        let refused = bootstrap(&agent, ALLOC, Some(token)).await;
        assert_eq!(refused.status, 403, "{token}: {}", refused.body);
        assert!(!refused.body.contains("ticket"), "{}", refused.body);
    }
    assert_eq!(bootstrap(&agent, ALLOC, None).await.status, 403);
    let given = bootstrap(&agent, ALLOC, Some(&own)).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert!(
        !given.body.contains(&own),
        "the token stands in the bootstrap"
    );
    for file in files(&world.data().join("data")) {
        let text = std::fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.contains(&own),
            "the token stands in {}",
            file.display()
        );
    }
    let ticket = Bootstrap::parse(&given.body).unwrap().ticket.unwrap();
    let proxy = format!("{}-sidecar-proxy", id(ALLOC));
    let key = LeafKey::generate().unwrap();
    let at = agent.addresses().grpc;
    assert!(Proxy::with_ticket(at, &proxy, &key, &ticket).await.is_ok());
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

/// A token does not make another user one who may register, nor gives it a ticket.
#[tokio::test]
async fn a_token_does_not_stand_for_a_uid() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let agent = Agent::start(options(&world, &nomad, Attestation::Workload));
    let agent = agent.await.unwrap();
    let Some(other) = Other::new(&world) else {
        return;
    };
    let own = login(&agent, &nomad.identity(&world, ALLOC, "web")).await;
    let http = agent.addresses().http.to_string();
    let socket = agent.addresses().socket.clone().unwrap();
    let socket = socket.to_str().unwrap();
    let body = web(&id(ALLOC)).to_string();
    for token in ["", NOMADS_OWN, &own] {
        for at in [http.as_str(), socket] {
            let refused = other.ask(at, "PUT", REGISTER, token, &body).await;
            assert_eq!(refused.status, 403, "{}", refused.body);
        }
    }
    let done = ask(&agent, "PUT", REGISTER, &own, body).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let proxy = format!("{}-sidecar-proxy", id(ALLOC));
    for token in [Value::Null, json!(NOMADS_OWN), json!(own)] {
        let body = json!({"proxy_id": proxy, "token": token}).to_string();
        let path = "/v1/proxy/bootstrap";
        let refused = other.ask(socket, "POST", path, "", &body).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    let leaf = other.ask(&http, "GET", "/v1/agent/connect/ca/leaf/web", "", "");
    assert_ne!(leaf.await.status, 200);
}

/// Instance files are the administrator's own: no allocation stands behind them.
#[tokio::test]
async fn an_instance_file_needs_no_token() {
    let world = World::new();
    let nomad = Nomad::start().await;
    let mut options = options(&world, &nomad, Attestation::Workload);
    let folder = world.data().join("instances");
    std::fs::create_dir(&folder).unwrap();
    let file = "instance \"web\" {\n  port = 80\n  connect {\n    sidecar_service {}\n  }\n}\n";
    std::fs::write(folder.join("web.hcl"), file).unwrap();
    options.instance_dir = Some(folder);
    let agent = Agent::start(options).await.unwrap();
    let socket = agent.addresses().socket.clone().unwrap();
    let body = json!({"sidecar_for": "web"}).to_string();
    let given = request_unix(&socket, "POST", "/v1/proxy/bootstrap", body).await;
    assert_eq!(given.status, 200, "{}", given.body);
}

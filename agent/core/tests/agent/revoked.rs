//! What is revoked: every proxy hears it first, and a key whose leaf was revoked is no proof.

use mesh_proto::proxies::v1::ack::What;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::LeafKey;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Proxy, World, bootstrap, register, request, soon, spiffe, web};

const WEB: &str = "web-1-sidecar-proxy";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A list with the leaf of a key.
fn of_key(key: &LeafKey) -> Value {
    let key = hex(&mesh_tls::fingerprint(&key.public_key()));
    json!({"leaves": [{"serial": "0a", "key": key}]})
}

#[tokio::test]
async fn a_proxy_hears_it_first_and_its_ack_is_waited_for() {
    let world = World::new();
    let server = world.server().await;
    // Passed on as it is, also what this agent does not understand.
    let text = r#"{"identities":["spiffe://test.mesh/x"],"planets":["mars"]}"#;
    server.change(|state| state.facts.insert("revocations".into(), text.into()));
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let Some(To::Revocations(list)) = proxy.next().await.unwrap() else {
        panic!("something came first");
    };
    assert_eq!(list.list, text.as_bytes());
    let (config, _) = proxy.config().await;
    proxy.ack(What::Config(config.serial), "").await;
    let lags = |why: &'static str| {
        let reason = move |reason: &str| reason.contains(why);
        move |state: &crate::support::State| {
            let last = state.acks.last().and_then(|ack| ack.lagging.first());
            last.is_some_and(|it| reason(&it.reason))
        }
    };
    server
        .until("that it lags", lags("not acked what is revoked"))
        .await;
    proxy
        .ack(What::Revocations(list.serial), "revocations: `planets`")
        .await;
    server.until("why", lags("`planets`")).await;
    let version = server.set("revocations", "{}").await;
    let list = loop {
        match proxy.next().await.unwrap() {
            Some(To::Revocations(list)) => break list,
            Some(_) => {}
            None => panic!("it ended"),
        }
    };
    proxy.ack(What::Revocations(list.serial), "").await;
    server
        .until("that all is live", move |state| {
            let last = state.acks.last();
            last.is_some_and(|ack| ack.version.as_ref() == Some(&version) && ack.lagging.is_empty())
        })
        .await;
}

#[tokio::test]
async fn nothing_is_sent_before_it_is_known_who_is_revoked() {
    let world = World::new();
    let server = world.server().await;
    server.change(|state| state.facts.remove("revocations"));
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let key = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    server
        .until("what is missing", |state| {
            let reported = state.reports.first();
            reported.is_some_and(|it| it.problem.contains("revocations"))
        })
        .await;
    server.set("revocations", "{}").await;
    loop {
        match proxy.next().await.unwrap() {
            Some(To::Roots(_)) => {}
            Some(To::Revocations(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    proxy.config().await;
}

#[tokio::test]
async fn a_revoked_key_opens_no_stream_and_the_next_one_does() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let (stolen, next) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &stolen, &ticket).await.unwrap();
    proxy.config().await;
    let leaf = proxy.leaf(stolen.csr().unwrap()).await;
    assert_eq!(leaf.error, "");

    let revoked = |proxy: Result<Proxy, tonic::Status>| {
        let status = proxy.err().expect("it is refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    };
    server
        .set("revocations", &of_key(&stolen).to_string())
        .await;
    soon("the list", async {
        while !matches!(proxy.next().await.unwrap(), Some(To::Revocations(_))) {}
    })
    .await;
    // Neither as a remembered key, nor by its leaf, nor with a new ticket.
    revoked(Proxy::open(at, Proxy::hello(WEB, &stolen)).await);
    let mut hello = Proxy::hello(WEB, &stolen);
    hello.leaf.clone_from(&leaf.chain);
    revoked(Proxy::open(at, hello).await);
    let another = bootstrap(&agent, WEB).await.ticket.unwrap();
    revoked(Proxy::with_ticket(at, WEB, &stolen, &another).await);
    // Who has not the key hears nothing of it.
    let mut hello = Proxy::hello(WEB, &stolen);
    hello.signed_by = Some(&next);
    let status = Proxy::open(at, hello).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);

    // The stream that is open goes on, and gets a leaf for another key.
    let leaf = proxy.leaf(next.csr().unwrap()).await;
    assert_eq!(leaf.error, "");
    Proxy::open(at, Proxy::hello(WEB, &next)).await.unwrap();
    // Long after the leaf has ended, and nobody speaks of it any more: it is no key.
    server.set("revocations", "{}").await;
    soon("a refusal", async {
        let status = Proxy::open(at, Proxy::hello(WEB, &stolen)).await.err();
        assert!(status.is_some_and(
            |it| it.code() == Code::Unauthenticated || it.code() == Code::PermissionDenied
        ));
    })
    .await;
}

#[tokio::test]
async fn a_key_that_never_came_back_stays_barred_after_a_restart() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let stolen = LeafKey::generate().unwrap();
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &stolen, &ticket).await.unwrap();
    proxy.config().await;
    server
        .set("revocations", &of_key(&stolen).to_string())
        .await;
    let refused = async { while Proxy::open(at, Proxy::hello(WEB, &stolen)).await.is_ok() {} };
    soon("the refusal", refused).await;
    server.set("revocations", "{}").await;
    drop(proxy);
    agent.shutdown().await;
    let agent = world.agent(&[&server]).await;
    let at = agent.addresses().grpc;
    let status = Proxy::open(at, Proxy::hello(WEB, &stolen)).await.err();
    assert_eq!(status.map(|it| it.code()), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn a_native_service_is_told_whom_to_refuse() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let ask = async |uri: &str, serial: &str| {
        let body = json!({"Target": "web", "ClientCertURI": uri, "ClientCertSerial": serial});
        let path = "/v1/agent/connect/authorize";
        let http = agent.addresses().http;
        let answer = request(http, "POST", path, &[], body.to_string()).await;
        let answer = answer.json();
        let reason = answer["Reason"].as_str().unwrap().to_owned();
        (answer["Authorized"].as_bool().unwrap(), reason)
    };
    let until = async |uri: &str, serial: &str, yes: bool| {
        let wait = async {
            loop {
                let (now, reason) = ask(uri, serial).await;
                if now == yes {
                    return reason;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("the answer", wait).await
    };
    let api = spiffe("api");
    until(&api, "00:aB:01", true).await;
    let list = json!({"leaves": [{"serial": "ab01"}]});
    server.set("revocations", &list.to_string()).await;
    let reason = until(&api, "00:aB:01", false).await;
    assert!(reason.contains("this leaf of api is revoked"), "{reason}");
    assert!(ask(&api, "ab:02").await.0);
    let list = json!({"identities": [api]});
    server.set("revocations", &list.to_string()).await;
    let reason = until(&api, "ab:02", false).await;
    assert!(reason.contains("identity of api is revoked"), "{reason}");
    server.set("revocations", r#"{"planets":["mars"]}"#).await;
    until(&spiffe("shop"), "01", false).await;
    server.set("revocations", "{}").await;
    until(&api, "ab:02", true).await;
}

//! Transparent sidecars: what they were asked for is answered at once, and their DNS passed on.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_model::Key;
use mesh_proto::config::{Bind, ProxyConfig};
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::from_proxy::Message as From;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_proto::proxies::v1::want::What;
use mesh_tls::LeafKey;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tonic::Code;

use crate::support::{Fake, Proxy, World, bootstrap, register, request, web};

const WEB: &str = "web-1-sidecar-proxy";

/// The service web, whose sidecar takes calls to any address.
fn transparent() -> Value {
    let mut web = web("web-1");
    web["Connect"]["SidecarService"]["Proxy"] = json!({"Mode": "transparent"});
    web
}

/// The service api with an address, as the server knows it.
fn knows_api(server: &Fake) {
    server.change(|state| {
        let both = r#"{"ip4":"240.0.0.7","ip6":"fd6d:6573:6876::f000:7"}"#;
        state
            .facts
            .insert("virtual/default/api".into(), both.into());
        let key = r#"{"namespace":"default","name":"api"}"#;
        state.facts.insert("address/240.0.0.7".into(), key.into());
        state
            .facts
            .insert("virtual/default/ghost".into(), "null".into());
        for topic in ["service", "route"] {
            state
                .facts
                .insert(format!("{topic}/default/ghost"), "null".into());
        }
        state
            .facts
            .insert("endpoints/default/ghost".into(), "[]".into());
        state
            .facts
            .insert("address/240.0.0.9".into(), "null".into());
    });
}

fn wants(all: &[&str]) -> From {
    let wants = all.iter().map(|text| pb::Want {
        what: Some(match text.contains('/') {
            true => What::Service((*text).to_owned()),
            false => What::Address((*text).to_owned()),
        }),
    });
    From::Wants(pb::Wants {
        wants: wants.collect(),
    })
}

/// The next config in which this holds.
async fn until(proxy: &mut Proxy, is: impl Fn(&ProxyConfig) -> bool) -> ProxyConfig {
    loop {
        let (config, read) = proxy.config().await;
        proxy.ack(pb::ack::What::Config(config.serial), "").await;
        if is(&read) {
            return read;
        }
    }
}

fn called(config: &ProxyConfig) -> Vec<&str> {
    let outbound = config.outbound.iter();
    outbound
        .filter(|it| matches!(it.bind, Bind::Virtual { .. }))
        .map(|it| it.service.name.as_str())
        .collect()
}

fn answers(config: &ProxyConfig) -> usize {
    let transparent = config.transparent.as_ref().unwrap();
    transparent.names.len() + transparent.absent.len()
}

#[tokio::test]
async fn what_is_asked_for_is_answered_in_one_turn() {
    let world = World::new();
    let server = world.server().await;
    knows_api(&server);
    let agent = world.agent(&[&server]).await;
    register(&agent, &transparent()).await;
    let given = bootstrap(&agent, WEB).await;
    let (key, ticket) = (LeafKey::generate().unwrap(), given.ticket.unwrap());
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let first = until(&mut proxy, |_| true).await;
    assert_eq!((answers(&first), called(&first)), (0, vec![]));
    let before = server.change(|state| state.held.len());

    proxy.send(wants(&["default/api"])).await;
    let then = until(&mut proxy, |it| answers(it) > 0).await;
    let names = &then.transparent.as_ref().unwrap().names;
    assert_eq!(names[0].service, Key::of("api"));
    assert_eq!(names[0].address.unwrap().to_string(), "240.0.0.7");
    assert_eq!(called(&then), ["api"]);
    // All was asked for together.
    let mut asked = server.change(|state| state.held[before..].to_vec());
    asked.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topics: Vec<&str> = asked.iter().map(|it| it.topic.as_str()).collect();
    let all = ["endpoints", "route", "service", "virtual"];
    assert_eq!(topics, all.map(|it| format!("{it}/default/api")));

    // One that there is not, by name and by address, beside one by address.
    proxy
        .send(wants(&["default/ghost", "240.0.0.9", "240.0.0.7"]))
        .await;
    let then = until(&mut proxy, |it| answers(it) == 2 && called(it) == ["api"]).await;
    let transparent = then.transparent.unwrap();
    assert_eq!(transparent.names[0].address, None);
    assert_eq!(transparent.absent[0].to_string(), "240.0.0.9");
    // No more, and nothing is wired.
    proxy.send(wants(&[])).await;
    until(&mut proxy, |it| answers(it) == 0 && called(it).is_empty()).await;

    // What cannot be wanted ends the stream.
    proxy.send(wants(&["default/*"])).await;
    assert_eq!(proxy.end().await.code(), Code::InvalidArgument);
}

/// The time from a want to its answer, with a server that answers at once: no timer of seconds may
/// be in between. Generous for a busy machine; what it takes is printed.
#[tokio::test]
async fn an_answer_takes_no_timers_turn() {
    let world = World::new();
    let server = world.server().await;
    knows_api(&server);
    let agent = world.agent(&[&server]).await;
    register(&agent, &transparent()).await;
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let key = LeafKey::generate().unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    until(&mut proxy, |_| true).await;
    let begin = std::time::Instant::now();
    proxy.send(wants(&["default/api"])).await;
    until(&mut proxy, |it| answers(it) == 1).await;
    let took = begin.elapsed();
    println!("a want was answered in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn wants_hold_over_a_new_stream_and_over_a_new_agent() {
    let world = World::new();
    let server = world.server().await;
    knows_api(&server);
    let agent = world.agent(&[&server]).await;
    register(&agent, &transparent()).await;
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let key = LeafKey::generate().unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
    let leaf = proxy.leaf(key.csr().unwrap()).await.chain;
    proxy.send(wants(&["default/api"])).await;
    until(&mut proxy, |it| called(it) == ["api"]).await;
    drop(proxy);

    // The first config of the next stream has it, before the proxy says anything.
    let hello = || {
        let mut hello = Proxy::hello(WEB, &key);
        hello.leaf = leaf.clone();
        hello
    };
    let mut proxy = Proxy::open(at, hello()).await.unwrap();
    assert_eq!(called(&proxy.config().await.1), ["api"]);
    drop(proxy);
    agent.shutdown().await;

    // An agent that knows nothing of it waits for the proxy's word, and has its answer on disk.
    drop(server);
    let agent = world.agent(&[]).await;
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::open(at, hello()).await.unwrap();
    proxy.send(wants(&["default/api"])).await;
    assert_eq!(called(&proxy.config().await.1), ["api"]);
    drop(proxy);
    agent.shutdown().await;

    // One that says nothing gets its config nevertheless.
    let agent = world.agent(&[]).await;
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::open(at, hello()).await.unwrap();
    assert_eq!(called(&proxy.config().await.1), [""; 0]);
}

#[tokio::test]
async fn who_is_not_transparent_may_not_ask() {
    let world = World::new();
    let server = world.server().await;
    let agent = world.agent(&[&server]).await;
    register(&agent, &web("web-1")).await;
    let at = agent.addresses().grpc;
    let key = LeafKey::generate().unwrap();
    let question = pb::DnsQuestion {
        id: 1,
        message: Vec::new(),
    };
    for message in [wants(&["default/api"]), From::Dns(question)] {
        let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
        let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();
        proxy.send(message).await;
        assert_eq!(proxy.end().await.code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn other_questions_go_to_the_name_servers() {
    let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let world = World::new();
    let mut options = world.options(&[]);
    options.dns.recursors = vec![names.local_addr().unwrap()];
    options.dns.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    let agent = mesh_agent::Agent::start(options).await.unwrap();
    register(&agent, &transparent()).await;
    let ticket = bootstrap(&agent, WEB).await.ticket.unwrap();
    let key = LeafKey::generate().unwrap();
    let at = agent.addresses().grpc;
    let mut proxy = Proxy::with_ticket(at, WEB, &key, &ticket).await.unwrap();

    let mut asked = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    asked.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = names.recv_from(&mut buffer).await.unwrap();
        buffer[2] |= 0x80;
        names.send_to(&buffer[..length], from).await.unwrap();
    });
    for (id, message) in [(40, asked.clone()), (41, vec![1, 2, 3])] {
        proxy.send(From::Dns(pb::DnsQuestion { id, message })).await;
        let answer = loop {
            if let Some(To::Dns(answer)) = proxy.next().await.unwrap() {
                break answer;
            }
        };
        assert_eq!(answer.id, id);
        match id {
            40 => {
                asked[2] |= 0x80;
                assert_eq!((&answer.message, answer.error.as_str()), (&asked, ""));
            }
            _ => assert!(answer.message.is_empty() && answer.error.contains("not a DNS query")),
        }
    }

    // Where it answers itself is what Nomad is told.
    let dns = agent.addresses().dns.unwrap();
    let http = agent.addresses().http;
    let shown = request(http, "GET", "/v1/agent/self", &[], String::new()).await;
    let shown: Value = serde_json::from_str(&shown.body).unwrap();
    assert_eq!(shown["DebugConfig"]["DNSPort"], dns.port());
    assert_eq!(
        shown["DebugConfig"]["DNSAddrs"],
        json!([format!("udp://{dns}"), format!("tcp://{dns}")])
    );
}

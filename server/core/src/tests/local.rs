//! What is registered with a server itself: who keeps it is played here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mesh_model::{Instance, Status};
use mesh_tls::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::agent::{Agent, instance};
use super::harness::{Client, ok, one, options, pki, soon, start};
use crate::{ApiListener, Listen, Local, LocalChange, ManualClock};

/// Keeps the instances that a test sets, and what it was told.
#[derive(Debug)]
struct Kept {
    instances: Mutex<Vec<Instance>>,
    told: Mutex<Vec<LocalChange>>,
    changed: watch::Sender<u64>,
}

impl Kept {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            instances: Mutex::default(),
            told: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    fn set(&self, instances: Vec<Instance>) {
        *self.instances.lock().unwrap() = instances;
        self.changed.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Local for Kept {
    fn services(&self, datacenter: &str) -> Value {
        json!({"one": {"Datacenter": datacenter}})
    }

    fn checks(&self, node: &str) -> Value {
        json!({"check": {"Node": node}})
    }

    fn instances(&self, node: &str, address: &str) -> Vec<Instance> {
        let kept = self.instances.lock().unwrap().clone();
        let here = |one| Instance {
            node: node.to_owned(),
            address: address.to_owned(),
            ..one
        };
        kept.into_iter().map(here).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn change(&self, change: LocalChange) -> Result<(), (u16, String)> {
        self.told.lock().unwrap().push(change.clone());
        match change {
            LocalChange::Deregister { id } if id == "strange" => Err((404, "no".to_owned())),
            _ => Ok(()),
        }
    }
}

fn nomad(status: Status) -> Instance {
    let mut one = instance("", "nomad", "_nomad-server-x");
    one.proxy = None;
    one.checks.get_mut("alive").unwrap().status = status;
    one
}

/// Asks until the answer is as it should be.
async fn until(client: &Client, path: &str, good: impl Fn(&Value) -> bool) -> Value {
    soon(async {
        loop {
            let answer = client.get(path).await;
            if answer.status == 200 && good(&answer.json()) {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_is_registered_here_is_in_the_catalog_until_it_goes() {
    let kept = Kept::new();
    let mut options = options("s1");
    options.local = Some(kept.clone());
    let (server, client) = start(options).await;
    assert_eq!(ok(&client.get("/v1/catalog/nodes").await), json!([]));

    kept.set(vec![nomad(Status::Passing)]);
    let path = "/v1/catalog/service/nomad";
    let found = until(&client, path, |found| found[0].is_object()).await;
    assert_eq!(found[0]["ServiceID"], "_nomad-server-x");
    assert_eq!(
        (&found[0]["Node"], &found[0]["Address"]),
        (&json!("s1"), &json!("127.0.0.1"))
    );
    // As Nomad asks.
    let asked = "?tag=blue&dc=dc1&stale=&near=_agent&wait=2000ms";
    assert_eq!(ok(&client.get(&format!("{path}{asked}")).await), found);
    assert_eq!(ok(&client.get(&format!("{path}?tag=red")).await), json!([]));
    let other = client.get(&format!("{path}?dc=dc2")).await;
    assert_eq!(other.status, 400, "{}", other.text);

    // Only a change is written.
    let index = server.core.store.state().version().index;
    kept.set(vec![nomad(Status::Passing)]);
    kept.set(vec![nomad(Status::Critical)]);
    let all = "/v1/catalog/services/nomad";
    until(&client, all, |found| found[0]["status"] == "critical").await;
    assert_eq!(server.core.store.state().version().index, index + 1);

    // Who is removed while he is here comes again.
    let node = format!("server:{}", server.id());
    ok(&client.delete(&format!("/v1/catalog/nodes/{node}")).await);
    until(&client, all, |found| found[0]["status"] == "critical").await;

    kept.set(Vec::new());
    until(&client, "/v1/catalog/nodes", |nodes| *nodes == json!([])).await;
    server.shutdown().await;
}

#[tokio::test]
async fn nothing_of_it_is_a_part_of_the_mesh() {
    let kept = Kept::new();
    let mut options = options("s1");
    options.local = Some(kept.clone());
    let (server, client) = start(options).await;
    kept.set(vec![instance("", "web", "web-1"), nomad(Status::Passing)]);
    until(&client, "/v1/catalog/services/nomad", |found| {
        found[0].is_object()
    })
    .await;
    let web = ok(&client.get("/v1/catalog/services/web").await);
    assert_eq!(web, json!([]), "it has a proxy");
    server.shutdown().await;
}

#[tokio::test]
async fn it_is_heard_as_long_as_its_server_is() {
    let clock = ManualClock::default();
    let kept = Kept::new();
    let mut options = options("s1");
    options.clock = Arc::new(clock.clone());
    options.local = Some(kept.clone());
    let (server, client) = start(options).await;
    kept.set(vec![nomad(Status::Passing)]);
    let path = "/v1/catalog/nodes";
    until(&client, path, |nodes| nodes[0].is_object()).await;
    // Another node beside it, which says nothing, shows that leases end meanwhile.
    let silent = Agent::connect(&server, "n1").await;
    soon(async {
        loop {
            let nodes = ok(&client.get(path).await);
            let states: Vec<&Value> = (0..2).map(|place| &nodes[place]["state"]).collect();
            assert_eq!(states[1], "alive", "{nodes}");
            if states[0] == "silent" {
                return;
            }
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(silent);
    server.shutdown().await;
}

#[tokio::test]
async fn consuls_calls_reach_who_keeps_it() {
    let kept = Kept::new();
    let mut options = options("s1");
    options.local = Some(kept.clone());
    let (server, client) = start(options).await;
    assert_eq!(
        ok(&client.get("/v1/agent/services").await),
        json!({"one": {"Datacenter": "dc1"}})
    );
    assert_eq!(
        ok(&client.get("/v1/agent/checks").await),
        json!({"check": {"Node": "s1"}})
    );
    assert_eq!(
        ok(&client.get("/v1/catalog/datacenters").await),
        json!(["dc1"])
    );
    let leader = ok(&client.get("/v1/status/leader").await);
    assert_eq!(leader, server.addresses().cluster.to_string());

    let body = json!({"ID": "a"});
    for path in [
        "/v1/agent/service/register?replace-existing-checks=true",
        "/v1/agent/check/register",
        "/v1/agent/check/update/c",
    ] {
        ok(&client.put(path, body.clone()).await);
    }
    for path in [
        "/v1/agent/service/deregister/a",
        "/v1/agent/check/deregister/c",
    ] {
        ok(&client.send(client.request(Method::PUT, path)).await);
    }
    let (id, check) = ("a".to_owned(), "c".to_owned());
    assert_eq!(
        *kept.told.lock().unwrap(),
        [
            LocalChange::Register {
                body: body.clone(),
                replace_checks: true
            },
            LocalChange::AddCheck { body: body.clone() },
            LocalChange::UpdateCheck {
                id: check.clone(),
                body
            },
            LocalChange::Deregister { id },
            LocalChange::RemoveCheck { id: check },
        ]
    );
    let strange = client.request(Method::PUT, "/v1/agent/service/deregister/strange");
    let refused = client.send(strange).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (404, "not_found")
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_registers_nothing_with_a_server() {
    let kept = Kept::new();
    let mut options = options("s1");
    options.local = Some(kept.clone());
    options.api = vec![ApiListener {
        listen: Listen::Address(([127, 0, 0, 1], 0).into()),
        tls: true,
    }];
    let (server, _) = start(options).await;
    let (address, _) = server.addresses().api[0];
    for (role, status) in [(Role::Agent, 403), (Role::Cli, 200), (Role::Server, 200)] {
        let client = Client::tls(address, &pki().tls(role, "x"));
        let path = "/v1/agent/service/register";
        assert_eq!(client.put(path, json!({})).await.status, status, "{role}");
        assert_eq!(client.get("/v1/agent/services").await.status, 200, "{role}");
    }
    let nobody = Client::tls(address, &pki().trusting());
    assert_eq!(nobody.get("/v1/agent/services").await.status, 403);
    assert_eq!(kept.told.lock().unwrap().len(), 2);
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_keeps_nothing_says_what_to_do() {
    let (server, client) = one().await;
    assert_eq!(ok(&client.get("/v1/agent/services").await), json!({}));
    let refused = client.put("/v1/agent/service/register", json!({})).await;
    assert!(refused.text.contains("auto_advertise"), "{}", refused.text);
    server.shutdown().await;
}

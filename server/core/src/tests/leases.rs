//! Silence and its end, by a clock that the test turns.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::NodeState;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::from_agent::Message as From;
use serde_json::{Value, json};

use super::agent::{Agent, instance};
use super::harness::{Client, ok, options, soon, start, together};
use crate::{ManualClock, Server, ServerOptions, lease};

struct Turned {
    clock: ManualClock,
    server: Server,
    client: Client,
}

async fn turned() -> Turned {
    let clock = ManualClock::default();
    let mut options: ServerOptions = options("s1");
    options.clock = Arc::new(clock.clone());
    let (server, client) = start(options).await;
    Turned {
        clock,
        server,
        client,
    }
}

impl Turned {
    /// Turns the clock by a second at a time while the agents are heard, until
    /// the nodes' states are these.
    async fn until(&self, heard: &[&Agent], wanted: Value) {
        super::harness::soon(async {
            while self.states().await != wanted {
                for agent in heard {
                    agent.say(From::Heartbeat(wire::Heartbeat {})).await;
                }
                self.clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn states(&self) -> Value {
        let nodes = ok(&self.client.get("/v1/catalog/nodes").await);
        nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["state"].clone())
            .collect()
    }
}

#[tokio::test]
async fn a_silent_node_is_unknown_and_comes_back() {
    let turned = turned().await;
    let mut first = Agent::connect(&turned.server, "n1").await;
    let mut second = Agent::connect(&turned.server, "n2").await;
    first.put(&instance("n1", "web", "web-1")).await;
    second.subscribe(&["endpoints/default/web"]).await;
    assert_eq!(
        second.body("endpoints/default/web").await[0].get("silent"),
        None
    );
    turned.until(&[&second], json!(["silent", "alive"])).await;
    assert_eq!(
        second.body("endpoints/default/web").await[0]["silent"],
        true
    );
    let counts = ok(&turned.client.get("/v1/services/web").await)["instances"].clone();
    assert_eq!(
        (&counts["silent"], &counts["passing"]),
        (&json!(1), &json!(0))
    );
    let detail = ok(&turned.client.get("/v1/catalog/nodes/n1").await);
    assert!(detail["silent_since"].as_u64().unwrap() >= 1_800_000_000);

    turned
        .until(&[&first, &second], json!(["alive", "alive"]))
        .await;
    assert_eq!(
        second.body("endpoints/default/web").await[0].get("silent"),
        None
    );
    turned.server.shutdown().await;
}

#[tokio::test]
async fn when_many_fall_silent_together_nothing_changes() {
    let turned = turned().await;
    let mut agents = Vec::new();
    for number in 1..=4 {
        agents.push(Agent::connect(&turned.server, &format!("n{number}")).await);
    }
    let alive = json!(["alive", "alive", "alive", "alive"]);
    // Two of four are not heard for a minute.
    for _ in 0..60 {
        for agent in agents.iter().skip(2) {
            agent.say(From::Heartbeat(wire::Heartbeat {})).await;
        }
        turned.clock.advance(Duration::from_secs(1));
        assert_eq!(turned.states().await, alive);
    }
    // With one of four it is that one.
    let heard: Vec<&Agent> = agents.iter().skip(1).collect();
    turned
        .until(&heard, json!(["silent", "alive", "alive", "alive"]))
        .await;
    turned.server.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_silent_for_days_is_gone() {
    let turned = turned().await;
    let mut first = Agent::connect(&turned.server, "n1").await;
    first.put(&instance("n1", "web", "web-1")).await;
    turned.until(&[], json!(["silent"])).await;
    turned.clock.advance(Duration::from_secs(72 * 3600));
    turned.until(&[], json!([])).await;
    assert_eq!(
        ok(&turned.client.get("/v1/catalog/services").await),
        json!([])
    );
    turned.server.shutdown().await;
}

#[tokio::test]
async fn the_next_leader_gives_every_node_a_whole_lease() {
    let clock = ManualClock::default();
    let mut options = together(3);
    for one in &mut options {
        one.clock = Arc::new(clock.clone());
    }
    let mut servers = futures::future::join_all(options.into_iter().map(start)).await;
    let leads = async |servers: &[(Server, Client)]| loop {
        let leads = |(server, _): &(Server, Client)| server.core.leases.leads();
        if let Some(place) = servers.iter().position(leads) {
            return place;
        }
        for (server, _) in servers {
            lease::tick(&server.core).await;
        }
        tokio::task::yield_now().await;
    };
    let seconds = async |servers: &[(Server, Client)], count: u32| {
        for _ in 0..count {
            clock.advance(Duration::from_secs(1));
            for (server, _) in servers {
                lease::tick(&server.core).await;
            }
        }
    };
    let state = |servers: &[(Server, Client)]| {
        let (server, _) = &servers[0];
        server.core.store.state().node("n1").unwrap().value.state
    };
    drop(Agent::connect(&servers[0].0, "n1").await);
    let first = soon(leads(&servers)).await;
    seconds(&servers, 10).await;
    assert_eq!(state(&servers), NodeState::Alive);
    let (ended, _) = servers.remove(first);
    ended.shutdown().await;
    soon(leads(&servers)).await;
    // 24 s since it was heard, 14 s of its new lease.
    seconds(&servers, 14).await;
    assert_eq!(state(&servers), NodeState::Alive);
    soon(async {
        while state(&servers) == NodeState::Alive {
            seconds(&servers, 1).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    for (server, _) in servers {
        server.shutdown().await;
    }
}

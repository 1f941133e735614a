//! Reads of the API over an agent's connection: what an agent may read, as it is over HTTPS.

use mesh_proto::servers::v1 as wire;
use mesh_tls::Role;
use serde_json::{Value, json};
use tonic::Code;

use super::agent::{Agent, client, instance};
use super::harness::{ok, one, soon};
use crate::Server;

async fn read(server: &Server, role: Role, target: &str) -> Result<wire::ReadResponse, Code> {
    let mut client = client(server, role, "n1");
    let request = wire::ReadRequest {
        target: target.to_owned(),
    };
    let answer = soon(client.read(request)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| status.code())
}

fn body(answer: &wire::ReadResponse) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn an_agent_reads_what_it_may() {
    let (server, api) = one().await;
    ok(&api
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    let answer = read(&server, Role::Agent, "/v1/services/web")
        .await
        .unwrap();
    assert_eq!(
        (answer.status, body(&answer)["protocol"].as_str()),
        (200, Some("http"))
    );
    assert!(answer.index > 0 && answer.known_leader && !answer.epoch.is_empty());

    for (target, status) in [
        ("/v1/services/web?nonsense", 400),
        ("/v1/nothing", 404),
        // Operators' own, and what a GET is not for.
        ("/v1/snapshot", 403),
        ("/v1/apply", 405),
    ] {
        let answer = read(&server, Role::Agent, target).await.unwrap();
        assert_eq!(u64::from(answer.status), status, "{target}");
    }
    for target in [
        "",
        "/metrics",
        "http://other/v1/services",
        "v1/services",
        &"/v1/".repeat(9999),
    ] {
        assert_eq!(
            read(&server, Role::Agent, target).await,
            Err(Code::InvalidArgument),
            "{target}"
        );
    }
    // Whoever has the API itself asks there.
    let other = read(&server, Role::Server, "/v1/services").await;
    assert_eq!(other, Err(Code::PermissionDenied));
    server.shutdown().await;
}

#[tokio::test]
async fn a_change_is_waited_for() {
    let (server, _) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    let target = "/v1/catalog/services/web";
    let first = read(&server, Role::Agent, target).await.unwrap();
    assert_eq!(body(&first), json!([]));
    let target = format!("{target}?index={}&wait=60s", first.index);
    let put = async {
        while server.core.store.watch_count() == 0 {
            tokio::task::yield_now().await;
        }
        agent.put(&instance("n1", "web", "web-1")).await;
    };
    let (second, ()) = tokio::join!(read(&server, Role::Agent, &target), put);
    let second = second.unwrap();
    assert_eq!(body(&second)[0]["id"], "web-1");
    assert!(second.index > first.index);
    server.shutdown().await;
}

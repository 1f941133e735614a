//! Leaves are recorded, and what is revoked is not signed for.

use mesh_proto::servers::v1 as wire;
use mesh_tls::{Leaf, LeafKey, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::Code;

use super::agent::{Agent, client, instance};
use super::harness::{Client, cluster, one, soon};

const WEB: &str = "web-1-sidecar-proxy";

fn request(key: &LeafKey) -> wire::SignRequest {
    wire::SignRequest {
        proxy: WEB.to_owned(),
        csr: key.csr().unwrap(),
    }
}

fn serial(signed: wire::SignResponse) -> String {
    let chain = signed.chain.into_iter().map(Into::into).collect();
    let serial = Leaf::parse("leaf", chain).unwrap().serial;
    mesh_model::serial_number(&serial).unwrap()
}

async fn ask(api: &Client, path: &str, body: Value) -> super::harness::Answer {
    api.send(api.request(Method::POST, path).json(&body)).await
}

/// The leaves of `web`, once there are so many.
async fn leaves(api: &Client, count: usize) -> Vec<Value> {
    soon(async {
        loop {
            let shown = api.get("/v1/ca/leaves?service=web").await.json();
            let shown = shown.as_array().unwrap().clone();
            if shown.len() == count {
                return shown;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_leaf_is_recorded_revoked_and_its_key_not_signed_again() {
    let (server, api) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    agent.subscribe(&["revocations"]).await;
    assert_eq!(agent.body("revocations").await, json!({}));
    let (stolen, next) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let first = serial(
        agent
            .client
            .sign(request(&stolen))
            .await
            .unwrap()
            .into_inner(),
    );
    let second = serial(
        agent
            .client
            .sign(request(&stolen))
            .await
            .unwrap()
            .into_inner(),
    );
    let before = api.get("/v1/ca/revocations").await;
    assert_eq!(before.json(), json!([]));

    let shown = leaves(&api, 2).await;
    let one = shown.iter().find(|leaf| leaf["serial"] == first.as_str());
    let one = one.unwrap();
    assert_eq!(
        (&one["node"], &one["proxy"], &one["revoked"]),
        (&json!("n1"), &json!(WEB), &json!(false))
    );
    assert_eq!(api.get("/v1/ca/leaves?service=db").await.json(), json!([]));
    assert_eq!(api.get("/v1/ca/leaves?node=n2").await.json(), json!([]));

    // In any spelling; and both leaves of the key go.
    let written = format!("00:{}", first.to_uppercase());
    let body = json!({"serial": written, "reason": "stolen"});
    let answer = ask(&api, "/v1/ca/revoke", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["warnings"], json!([]));
    let rows = api.get("/v1/ca/revocations").await.json();
    let mut found: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(
                (&row["kind"], &row["reason"]),
                (&json!("leaf"), &json!("stolen"))
            );
            row["serial"].as_str().unwrap()
        })
        .collect();
    found.sort_unstable();
    let mut both = [first.as_str(), second.as_str()];
    both.sort_unstable();
    assert_eq!(found, both);
    let fact = agent.body("revocations").await;
    assert_eq!(fact["leaves"].as_array().unwrap().len(), 2, "{fact}");
    assert!(
        leaves(&api, 2)
            .await
            .iter()
            .all(|leaf| leaf["revoked"] == true)
    );

    let refused = agent.client.sign(request(&stolen)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("with another key"), "{refused}");
    agent.client.sign(request(&next)).await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_service_gets_no_leaf_until_it_is_good_again() {
    let servers = cluster(3).await;
    let (server, api) = &servers[0];
    let mut agent = Agent::connect(server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    agent.subscribe(&["revocations"]).await;
    let key = LeafKey::generate().unwrap();
    agent.client.sign(request(&key)).await.unwrap();
    let body = json!({"service": {"name": "web"}, "reason": "odd calls"});
    let index = ask(api, "/v1/ca/revoke", body).await.index();
    for (server, _) in &servers {
        // A follower may hear of it a moment later.
        soon(async {
            loop {
                let mut elsewhere = client(server, Role::Agent, "n1");
                match elsewhere.sign(request(&key)).await {
                    Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    Err(refused) => {
                        assert_eq!(refused.code(), Code::FailedPrecondition);
                        let text = refused.message();
                        assert!(
                            text.contains("service web is revoked (odd calls)"),
                            "{text}"
                        );
                        assert!(text.contains("meshctl ca unrevoke -service web"), "{text}");
                        return;
                    }
                }
            }
        })
        .await;
    }
    let domain = agent.welcome.trust_domain.clone();
    let web = format!("spiffe://{domain}/ns/default/dc/dc1/svc/web");
    soon(async { while agent.body("revocations").await != json!({"identities": [web]}) {} }).await;
    let body = json!({"service": {"name": "web"}});
    let answer = ask(api, "/v1/ca/unrevoke", body.clone()).await;
    assert!(answer.index() > index);
    // Its "no" is never final: a follower asks before it refuses.
    for (server, _) in &servers {
        let mut elsewhere = client(server, Role::Agent, "n1");
        elsewhere.sign(request(&key)).await.unwrap();
    }
    let again = ask(api, "/v1/ca/unrevoke", body).await;
    assert_eq!((again.status, again.code()), (404, "not_found".to_owned()));
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_what_is_not_known_said() {
    let (server, api) = one().await;
    for (body, why) in [
        (json!({}), "either a service or a serial"),
        (
            json!({"service": {"name": "web"}, "serial": "0a"}),
            "either a service or a serial",
        ),
        (json!({"serial": "web"}), "is no serial number"),
        (json!({"service": {"name": "*"}}), "service"),
        (json!({"serial": "0a", "until": 7}), "unknown field"),
        (json!({"serial": "0a", "reason": "x".repeat(600)}), "512"),
    ] {
        let answer = ask(&api, "/v1/ca/revoke", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(why), "{}", answer.text);
    }
    let answer = ask(&api, "/v1/ca/revoke", json!({"serial": "0a"})).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text.contains("no server has recorded"),
        "{}",
        answer.text
    );
    let answer = ask(&api, "/v1/ca/revoke", json!({"service": {"name": "wbe"}})).await;
    assert!(answer.text.contains("no instance"), "{}", answer.text);
    server.shutdown().await;
}

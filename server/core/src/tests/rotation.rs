//! A change of the root: every proxy trusts the new one before it signs, and the old one goes last.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_ca::CaState;
use mesh_proto::servers::v1 as wire;
use mesh_tls::LeafKey;
use reqwest::Method;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::agent::{Agent, instance};
use super::harness::{Answer, Client, ok, one, options, soon, start};
use crate::clock::{Clock as _, ManualClock};

async fn ask(client: &Client, method: Method, path: &str) -> Answer {
    client.send(client.request(method, path)).await
}

async fn write(client: &Client, query: &str, body: Value) -> Answer {
    let request = client.request(Method::PUT, &format!("/v1/ca/config{query}"));
    client.send(request.json(&body)).await
}

/// The ids of the roots, by state.
async fn roots(client: &Client, state: &str) -> Vec<String> {
    let status = ok(&client.get("/v1/ca/status").await);
    let rows = status["roots"].as_array().unwrap().clone();
    let of = rows.iter().filter(|row| row["state"] == state);
    of.map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The chain of a leaf for web.
async fn leaf(agent: &mut Agent) -> Vec<CertificateDer<'static>> {
    let wish = wire::SignRequest {
        proxy: "web-1-sidecar-proxy".into(),
        csr: LeafKey::generate().unwrap().csr().unwrap(),
    };
    let signed = agent.client.sign(wish).await.unwrap().into_inner();
    signed.chain.into_iter().map(Into::into).collect()
}

async fn until<F: Future<Output = bool>>(mut probe: impl FnMut() -> F) {
    soon(async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn settings_are_the_clusters_and_a_dry_run_writes_nothing() {
    let (server, client) = one().await;
    let before = ok(&client.get("/v1/ca/config").await);
    assert_eq!(before["provider"], "built_in");
    assert_eq!(before["leaf_ttl"], "24h");
    let wanted = json!({"provider": "built_in", "leaf_ttl": "12h"});
    let plan = ok(&write(&client, "?dry_run=true", wanted.clone()).await);
    assert_eq!(plan["changes"], json!(["leaf_ttl: 24h -> 12h"]));
    assert_eq!(
        (&plan["rotates"], &plan["index"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(ok(&client.get("/v1/ca/config").await), before);
    assert_eq!(
        write(&client, "?cas=1", wanted.clone()).await.code(),
        "conflict"
    );
    ok(&write(&client, "", wanted.clone()).await);
    assert_eq!(ok(&client.get("/v1/ca/config").await)["leaf_ttl"], "12h");
    // Again it is nothing, and the server's own file does not bring the old one back.
    assert_eq!(ok(&write(&client, "", wanted).await)["changes"], json!([]));
    let status = ok(&client.get("/v1/ca/status").await);
    assert_eq!(
        status["configured_otherwise"],
        json!(["leaf_ttl: 12h -> 24h"])
    );

    for (wrong, words) in [
        (json!({"leaf_ttl": "10s"}), "at least 5m"),
        (json!({"leaf_ttl": "2161h"}), "at most 2160h"),
        (
            json!({"leaf_ttl": "24h", "intermediate_ttl": "1h"}),
            "must be less",
        ),
        (json!({"provider": "vault"}), "vault: is missing"),
        (json!({"provider": "aws_pca"}), "aws_pca: is missing"),
        (
            json!({"provider": "aws_pca", "aws_pca": {"existing_arn": "arn:aws:s3:::b"}}),
            "existing_arn",
        ),
        (json!({"tokn": "x"}), "tokn"),
        (
            json!({"provider": "vault",
                "vault": {"root_pki_path": "../sys", "intermediate_pki_path": "b"}}),
            "root_pki_path",
        ),
    ] {
        let refused = write(&client, "", wrong).await;
        assert_eq!(refused.code(), "invalid", "{}", refused.text);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
    // A server that does not know how Vault is reached makes no CA there.
    let place = json!({"root_pki_path": "a", "intermediate_pki_path": "b"});
    let refused = write(&client, "", json!({"provider": "vault", "vault": place})).await;
    assert_eq!(refused.code(), "conflict");
    assert!(refused.text.contains("does not say how it is reached"));
    // Nor does one below a CA in AWS that is built without it.
    #[cfg(not(feature = "aws"))]
    {
        let arn = "arn:aws:acm-pca:eu-west-1:1:certificate-authority/a";
        let wanted = json!({"provider": "aws_pca", "aws_pca": {"existing_arn": arn}});
        let refused = write(&client, "", wanted).await;
        assert_eq!(refused.code(), "conflict");
        assert!(refused.text.contains("--features aws"), "{}", refused.text);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_new_root_signs_when_every_proxy_trusts_it_and_the_old_goes_when_its_leaves_have() {
    let clock = ManualClock::default();
    let mut options = options("s1");
    options.clock = Arc::new(clock.clone());
    // No node falls silent while the clock is turned.
    options.timing.lease = Duration::from_secs(1000 * 3600);
    let (server, client) = start(options).await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    agent.subscribe(&["roots"]).await;
    let old = roots(&client, "active").await;
    let says = |trusts: &[&String], leaf: &str| wire::ProxyStatus {
        proxy: "web-1-sidecar-proxy".into(),
        connected: true,
        roots: trusts.iter().map(|id| (*id).clone()).collect(),
        leaf_root: leaf.to_owned(),
        ..wire::ProxyStatus::default()
    };
    agent.report(vec![says(&[&old[0]], &old[0])]).await;

    let dry = ok(&ask(&client, Method::POST, "/v1/ca/rotate?dry_run=true").await);
    let plan = ok(&ask(&client, Method::POST, "/v1/ca/rotate").await);
    let cross = json!({"by": old[0], "made": true, "reason": null});
    assert_eq!(
        (&dry["cross_signature"], &plan["cross_signature"]),
        (&cross, &cross)
    );
    let new = plan["root"].as_str().unwrap().to_owned();
    let index = plan["index"].as_u64().unwrap();
    let again = ask(&client, Method::POST, "/v1/ca/rotate").await;
    assert_eq!(again.code(), "conflict");
    assert!(again.text.contains("is under way"), "{}", again.text);
    assert_eq!(roots(&client, "next").await, vec![new.clone()]);
    let waits = async |words: &str| {
        until(async || {
            clock.advance(Duration::from_millis(300));
            let status = ok(&client.get("/v1/ca/status").await);
            status["rotation"]["waiting"][0]["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(words))
        })
        .await;
        assert_eq!(roots(&client, "active").await, old);
    };
    // Its agent has acked nothing of it; then only the agent has it.
    waits("its agent does not have the newest roots yet").await;
    agent.ack(index).await;
    waits("it does not trust the new root yet").await;
    agent.report(vec![says(&[&old[0], &new], &old[0])]).await;
    let turned = async |wanted: &'static str, expected: Vec<String>| {
        until(async || {
            clock.advance(Duration::from_millis(300));
            roots(&client, wanted).await == expected
        })
        .await;
    };
    turned("active", vec![new.clone()]).await;
    assert_eq!(roots(&client, "retiring").await, old);
    // Who trusts only the old one takes what the new one signs; as long as the old one is trusted.
    let status = ok(&client.get("/v1/ca/status").await);
    assert_eq!(status["roots"][1]["cross_signature"], cross);
    let row = server.core.store.state().ca().unwrap().value.clone();
    let both: CaState = serde_json::from_value(row).unwrap();
    let only = |at: usize| CaState {
        roots: vec![both.roots[at].clone()],
        ..both.clone()
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock.unix_millis());
    let chain = leaf(&mut agent).await;
    assert_eq!(chain.len(), 3);
    for at in [0, 1] {
        only(at).trust().unwrap().verify(&chain, now).unwrap();
    }

    // The old one's time is over, but a leaf of it is shown.
    let index = server.core.store.state().ca().unwrap().modify_index;
    agent.ack(index).await;
    clock.advance(Duration::from_secs(25 * 3600));
    until(async || {
        let status = ok(&client.get("/v1/ca/status").await);
        status["roots"][0]["leaves"] == json!(1)
    })
    .await;
    agent.report(vec![says(&[&old[0], &new], &new)]).await;
    turned("retiring", Vec::new()).await;
    assert_eq!(leaf(&mut agent).await.len(), 2);
    assert_eq!(roots(&client, "active").await, [new]);
    server.shutdown().await;
}

#[tokio::test]
async fn what_has_begun_is_undone() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let refused = ask(&client, Method::DELETE, "/v1/ca/rotation").await;
    assert_eq!(refused.code(), "conflict");
    let old = roots(&client, "active").await;
    ok(&ask(&client, Method::POST, "/v1/ca/rotate").await);
    assert_eq!(roots(&client, "next").await.len(), 1);
    ok(&ask(&client, Method::DELETE, "/v1/ca/rotation").await);
    assert_eq!(roots(&client, "active").await, old);
    assert!(roots(&client, "next").await.is_empty());
    server.shutdown().await;
}

//! What an application asks that is in the mesh by itself: health, and whether a caller may come in.

use mesh_agent::Agent;
use serde_json::{Value, json};

use crate::support::{Answer, World, register, request, soon, spiffe, web};

async fn get(agent: &Agent, path: &str) -> Answer {
    request(agent.addresses().http, "GET", path, &[], String::new()).await
}

#[tokio::test]
async fn health_is_told_by_the_status() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let mut body = web("web-1");
    body["Connect"]["SidecarService"]["Checks"] = json!([
        {"CheckID": "sidecar", "TTL": "1h", "Status": "warning"}]);
    register(&agent, &body).await;
    for (path, status, text) in [
        ("id/web-1", 200, "passing"),
        ("name/web", 200, "passing"),
        ("id/web-1-sidecar-proxy", 429, "warning"),
        ("name/web-sidecar-proxy", 429, "warning"),
        ("id/nobody", 404, "ServiceId nobody not found"),
        ("name/nobody", 404, "ServiceName nobody Not Found"),
    ] {
        let path = format!("/v1/agent/health/service/{path}");
        let answer = get(&agent, &format!("{path}?format=text")).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, text),
            "{path}"
        );
        assert_eq!(get(&agent, &path).await.status, status);
    }
    let one = get(&agent, "/v1/agent/health/service/id/web-1")
        .await
        .json();
    assert_eq!(one["AggregatedStatus"], "passing");
    assert_eq!(one["Service"]["ID"], "web-1");
    assert_eq!(one["Checks"][0]["CheckID"], "service:web-1");

    // A second instance that is worse decides for the name.
    let mut worse = web("web-2");
    worse["Check"]["Status"] = json!("critical");
    register(&agent, &worse).await;
    let all = get(&agent, "/v1/agent/health/service/name/web").await;
    assert_eq!(all.status, 503);
    assert_eq!(all.json().as_array().unwrap().len(), 2);
    let path = "/v1/agent/health/service/id/web-1?format=xml";
    assert_eq!(get(&agent, path).await.status, 400);
}

#[tokio::test]
async fn a_caller_is_authorized_by_the_intentions() {
    let world = World::new();
    let server = world.server().await;
    let intention = |source: &str, rule: Value| {
        let mut it = json!({"source": {"name": source}, "destination": {"name": "web"}});
        it.as_object_mut()
            .unwrap()
            .extend(rule.as_object().unwrap().clone());
        it
    };
    let intentions = json!([
        intention("bad", json!({"action": "deny"})),
        intention(
            "shop",
            json!({"permissions": [{"action": "allow", "path_prefix": "/a"}]})
        ),
        intention("new", json!({"action": "allow", "only_at_full_moon": true})),
    ]);
    server.change(|state| {
        state
            .facts
            .insert("intentions/default/web".into(), intentions.to_string())
    });
    let agent = world.agent(&[&server]).await;
    let ask = async |target: &str, uri: &str| {
        let body = json!({"Target": target, "ClientCertURI": uri, "ClientCertSerial": "1"});
        let path = "/v1/agent/connect/authorize";
        let http = agent.addresses().http;
        let answer = request(http, "POST", path, &[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        let reason = answer["Reason"].as_str().unwrap().to_owned();
        (answer["Authorized"].as_bool().unwrap(), reason)
    };
    let unknown = ask("web", &spiffe("api")).await;
    assert_eq!(
        unknown,
        (false, "service web is not registered on this node".into())
    );
    register(&agent, &web("web-1")).await;
    let known = async {
        while !ask("web", &spiffe("api")).await.0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the intentions", known).await;

    for (uri, yes, reason) in [
        (
            spiffe("api"),
            true,
            "no intention matches; the mesh's default is allow",
        ),
        (spiffe("bad"), false, "intention bad => web (deny)"),
        (spiffe("shop"), false, "decides request by request"),
        (
            spiffe("new"),
            false,
            "a condition that this version does not know",
        ),
        (
            spiffe("api").replace("test.mesh", "other.mesh"),
            false,
            "is not of this mesh",
        ),
        (
            spiffe("api").replace("dc1", "dc2"),
            false,
            "is not of this mesh",
        ),
        ("https://api".into(), false, "ClientCertURI"),
    ] {
        let (answer, why) = ask("web", &uri).await;
        assert_eq!(answer, yes, "{uri}: {why}");
        assert!(why.contains(reason), "{uri}: {why}");
    }
    let other = ask("api", &spiffe("web")).await;
    assert!(!other.0, "not registered here: {}", other.1);
}

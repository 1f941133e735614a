//! What the API does and refuses.

use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{Client, ok, one, options, pki, start};
use crate::{ApiListener, Listen, Server, ServerError};
use mesh_tls::Role;

#[tokio::test]
async fn check_and_set_holds() {
    let (server, client) = one().await;
    let path = "/v1/intentions/web/db";
    let allow = json!({"action": "allow"});
    let made = ok(&client.put(&format!("{path}?cas=0"), allow.clone()).await);
    assert_eq!(made["change"], "created");
    let index = made["index"].as_u64().unwrap();
    assert_eq!(made["row"]["modify_index"], index);

    let again = client
        .put(&format!("{path}?cas=0"), json!({"action": "deny"}))
        .await;
    assert_eq!((again.status, again.code().as_str()), (409, "conflict"));
    assert_eq!(again.json()["error"]["actual"], index);

    let same = ok(&client.put(path, allow).await);
    assert_eq!(
        (&same["change"], same["index"].as_u64()),
        (&json!("unchanged"), Some(index))
    );
    let stale = client.delete(&format!("{path}?cas={}", index + 1)).await;
    assert_eq!(stale.code(), "conflict");
    let gone = ok(&client.delete(&format!("{path}?cas={index}")).await);
    assert_eq!(gone["change"], "deleted");
    assert_eq!(client.delete(path).await.code(), "not_found");
    assert_eq!(client.get(path).await.status, 404);
    server.shutdown().await;
}

#[tokio::test]
async fn rows_belong_to_who_wrote_them() {
    let (server, client) = one().await;
    let path = "/v1/services/web";
    let by = |owner: &str, path: &str| {
        let request = client
            .request(Method::PUT, path)
            .header("X-Meshctl-Owner", owner);
        client.send(request.json(&json!({"protocol": "http"})))
    };
    assert_eq!(
        ok(&by("terraform", path).await)["row"]["owner"],
        "terraform"
    );
    let other = by("cli", path).await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (409, "owned_by_another")
    );
    assert_eq!(other.json()["error"]["owner"], "terraform");
    let forced = ok(&by("cli", "/v1/services/web?force=true").await);
    assert_eq!(forced["row"]["owner"], "cli");
    assert_eq!(by("not good!", path).await.code(), "invalid_request");
    server.shutdown().await;
}

#[tokio::test]
async fn apply_is_all_or_nothing() {
    let (server, client) = one().await;
    let service = json!({"put": {"kind": "service", "value": {"name": "web", "protocol": "http",
        "subsets": {"v1": {"meta": {"version": "v1"}}}}}, "cas": 0});
    let route = |subset: &str| {
        json!({"put": {"kind": "route", "value": {"name": "web", "rules": [
            {"name": "all", "to": [{"subset": subset}]}]}}})
    };
    let bad = client
        .post("/v1/apply", json!({"ops": [service, route("v9")]}))
        .await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "invalid"));
    assert!(bad.text.contains("v9"), "{}", bad.text);
    assert_eq!(client.get("/v1/services/web").await.status, 404);

    // The order does not matter, and a dry run changes nothing.
    let ops = json!({"ops": [route("v1"), service]});
    let tried = ok(&client.post("/v1/apply?dry_run=true", ops.clone()).await);
    assert_eq!(tried["dry_run"], true);
    assert_eq!(tried["results"][1]["change"], "created");
    assert_eq!(client.get("/v1/services/web").await.status, 404);
    let done = ok(&client.post("/v1/apply", ops.clone()).await);
    assert_eq!(done["results"].as_array().unwrap().len(), 2);
    assert_eq!(client.post("/v1/apply", ops).await.code(), "conflict");

    let require = json!({"ops": [{"require": {"service": {"name": "web"}}, "cas": 0},
        {"delete": {"route": {"name": "web"}}}]});
    assert_eq!(client.post("/v1/apply", require).await.code(), "conflict");
    assert_eq!(client.get("/v1/routes/web").await.status, 200);
    let both = json!({"ops": [{"delete": {"service": {"name": "web"}}},
        {"delete": {"route": {"name": "web"}}}]});
    let gone = ok(&client.post("/v1/apply", both).await);
    assert_eq!(gone["results"][0]["change"], "deleted");
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_referred_to_stays() {
    let (server, client) = one().await;
    let subset = json!({"v1": {"meta": {"version": "v1"}}});
    ok(&client
        .put(
            "/v1/services/web",
            json!({"protocol": "http", "subsets": subset}),
        )
        .await);
    let rules = json!({"rules": [{"name": "all", "to": [{"subset": "v1"}]}]});
    ok(&client.put("/v1/routes/web", rules).await);
    let refused = client.delete("/v1/services/web").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "dangling_reference")
    );
    let route = json!({"route": {"namespace": "default", "name": "web"}});
    assert_eq!(refused.json()["error"]["references"], json!([route]));
    assert_eq!(client.get("/v1/services/web").await.status, 200);
    server.shutdown().await;
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let (server, client) = one().await;
    let raw = |body: &'static str, media: &'static str| {
        let request = client.request(Method::PUT, "/v1/services/web");
        client.send(request.header("content-type", media).body(body))
    };
    let json_type = "application/json; charset=utf-8";
    for (body, media, status, code) in [
        ("{", json_type, 400, "invalid_json"),
        ("", json_type, 400, "invalid_json"),
        ("[]", json_type, 400, "invalid"),
        ("{\"protocol\": \"telepathy\"}", json_type, 400, "invalid"),
        ("{}", "text/plain", 415, "unsupported_media_type"),
        ("{\"protocol\": \"http\"}", json_type, 200, ""),
    ] {
        let answer = raw(body, media).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "{body}");
        }
    }
    let error = raw("{\n \"name\": }", json_type).await;
    assert!(error.text.contains("line 2 column"), "{}", error.text);

    let big = json!({"meta": {"x": "y".repeat(1 << 20)}});
    assert_eq!(
        client.put("/v1/services/web", big).await.code(),
        "too_large"
    );
    for path in [
        "/v1/services/we%20b",
        "/v1/services/*",
        "/v1/services/a%2Fb%2Fc",
        "/v1/services/%ff",
    ] {
        assert_eq!(client.get(path).await.code(), "invalid_request", "{path}");
    }
    let twice = client.get("/v1/services?consistent&stale").await;
    assert_eq!(twice.code(), "invalid_request");
    assert_eq!(
        client
            .request(Method::PATCH, "/v1/mesh")
            .send()
            .await
            .unwrap()
            .status(),
        405
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_answer_says_of_what_it_is() {
    let (server, client) = one().await;
    let request = client.request(Method::GET, "/v1/intentions?consistent");
    let answer = client.send(request.header("x-request-id", "abc-1")).await;
    assert_eq!(answer.header("x-request-id"), "abc-1");
    assert_eq!(answer.header("x-meshctl-consistency"), "consistent");
    assert_eq!(answer.header("x-meshctl-known-leader"), "true");
    assert!(answer.index() >= 1);
    assert!(!answer.header("x-meshctl-epoch").is_empty());
    assert!(
        answer
            .header("x-meshctl-last-contact")
            .parse::<u64>()
            .is_ok()
    );
    let strange = client.request(Method::GET, "/v1/intentions");
    let strange = client.send(strange.header("x-request-id", "a b\"")).await;
    assert_eq!(strange.header("x-request-id").len(), 36);

    let status = ok(&client.get("/v1/status").await);
    assert_eq!(status["state"], "leader");
    assert_eq!(status["health"]["status"], "ok");
    assert_eq!(
        ok(&client.get("/v1/status/ready").await),
        json!({"ready": true})
    );
    let peers = ok(&client.get("/v1/operator/raft/peers").await);
    assert_eq!(peers[0]["id"], server.id().to_string());
    let last = client
        .delete(&format!("/v1/operator/raft/peers/{}", server.id()))
        .await;
    assert_eq!(last.code(), "conflict");
    assert_eq!(
        client.delete("/v1/operator/raft/peers/nobody").await.code(),
        "not_found"
    );

    let metrics = client.get("/metrics").await;
    for name in [
        "api_requests_total",
        "raft_is_leader 1",
        "healthy 1",
        "write_seconds_count",
    ] {
        assert!(
            metrics.text.contains(&format!("meshctl_server_{name}")),
            "{name}"
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_ca_is_shown_without_its_keys() {
    let (server, client) = one().await;
    let roots = ok(&client.get("/v1/ca/roots").await);
    assert_eq!(roots["roots"].as_array().unwrap().len(), 1);
    assert_eq!(roots["active_root"], roots["roots"][0]["id"]);
    let pem = client.get("/v1/ca/roots?pem=true").await;
    assert_eq!(
        pem.header("content-type"),
        "application/pem-certificate-chain"
    );
    assert_eq!(pem.text, roots["roots"][0]["pem"].as_str().unwrap());
    let status = ok(&client.get("/v1/ca/status").await);
    assert_eq!(
        (&status["ready"], &status["leaf_ttl"]),
        (&json!(true), &json!("24h"))
    );
    for text in [pem.text, roots.to_string(), status.to_string()] {
        assert!(
            !text.contains("PRIVATE") && !text.contains("ciphertext"),
            "{text}"
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn by_certificate() {
    let mut options = options("s1");
    options.api = vec![ApiListener {
        listen: Listen::Address(([127, 0, 0, 1], 0).into()),
        tls: true,
    }];
    let (server, _) = start(options).await;
    let (address, tls) = server.addresses().api[0];
    assert!(tls);
    let with = |role| Client::tls(address, &pki().tls(role, "someone"));
    let codes = async |client: &Client| {
        let open = client.get("/v1/ca/roots").await.status;
        let read = client.get("/v1/services").await.status;
        let write = client.put("/v1/services/web", json!({})).await.status;
        (open, read, write)
    };
    assert_eq!(codes(&with(Role::Cli)).await, (200, 200, 200));
    assert_eq!(codes(&with(Role::Server)).await, (200, 200, 200));
    assert_eq!(codes(&with(Role::Agent)).await, (200, 200, 403));
    let nobody = Client::tls(address, &pki().trusting());
    assert_eq!(codes(&nobody).await, (200, 403, 403));
    assert_eq!(nobody.get("/v1/services").await.code(), "forbidden");
    server.shutdown().await;
}

#[tokio::test]
async fn plaintext_stays_on_this_machine() {
    let mut options = options("s1");
    options.api = vec![ApiListener {
        listen: Listen::Address(([0, 0, 0, 0], 0).into()),
        tls: false,
    }];
    let error = Server::start(options).await.unwrap_err();
    assert!(matches!(error, ServerError::Plaintext(_)), "{error}");

    let (server, client) = one().await;
    let request = client.request(Method::GET, "/v1/services");
    let answer = client.send(request.header("host", "evil.example")).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    server.shutdown().await;
}

#[tokio::test]
async fn counts_of_an_empty_catalog() {
    let (server, client) = one().await;
    for path in [
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/instances",
        "/v1/catalog/services/web",
    ] {
        assert_eq!(
            ok(&client.get(path).await),
            Value::Array(Vec::new()),
            "{path}"
        );
    }
    assert_eq!(client.get("/v1/catalog/nodes/n1").await.code(), "not_found");
    let waited = ok(&client.get("/v1/proxies/wait?index=1").await);
    assert_eq!(
        (&waited["live"], &waited["agents"]),
        (&json!(true), &json!(0))
    );
    server.shutdown().await;
}

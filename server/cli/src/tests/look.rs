//! What is there: catalog, proxies, CA, status, members; and servers that
//! answer badly or not at all.

use serde_json::json;

use super::{Transcript, assert_fits, fake::Fake};

const LONG: &str = "_nomad-task-5f3c2f64-3c3d-4c1f-8a6e-1b2c3d4e5f60-group-api-user-service-9001";

#[tokio::test]
async fn catalog() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let nodes = json!([
        {"id": "5f3c2f64-3c3d-4c1f-8a6e-1b2c3d4e5f60", "name": "client-1", "address": "10.0.0.11",
         "version": "0.1.0", "state": "alive", "silent_since": null, "instances": 3},
        {"id": "n2", "name": "a-client-with-a-name-that-is-long", "address": "2001:db8:85a3::8a2e:370:7334",
         "version": "0.1.0", "state": "silent", "silent_since": 1_789_990_000, "instances": 1}]);
    let services = json!([
        {"namespace": "default", "name": "user-service", "tags": ["v1", "canary", "eu", "public", "blue"],
         "instances": {"total": 4, "passing": 2, "warning": 0, "critical": 1, "silent": 1}},
        {"namespace": "team", "name": "db", "tags": [], "instances": {"total": 0}}]);
    let instances = json!([
        {"id": LONG, "service": "user-service", "node": "5f3c2f64-3c3d-4c1f-8a6e-1b2c3d4e5f60",
         "node_name": "client-1", "node_state": "alive", "address": "10.0.0.11", "port": 20312,
         "tags": ["v1"], "status": "critical", "proxy": {"id": "x", "address": "", "port": 1},
         "checks": {"a": {"name": "GET /healthz", "status": "critical"}, "b": {"name": "", "status": "warning"}}},
        {"id": "user-2", "node": "n2", "node_name": "", "node_address": "10.0.0.12",
         "node_state": "silent", "address": "", "port": 80, "status": "passing", "proxy": null}]);
    fake.on("GET /v1/catalog/nodes", nodes)
        .on("GET /v1/catalog/services", services)
        .on("GET /v1/catalog/services/user-service", instances)
        .on("GET /v1/catalog/services/team%2Fdb", json!([]))
        .on(
            "DELETE /v1/catalog/nodes/5f3c2f64-3c3d-4c1f-8a6e-1b2c3d4e5f60",
            json!({}),
        );
    for (line, code) in [
        (&["catalog", "nodes"][..], 0),
        (&["catalog", "services"], 0),
        (&["catalog", "instances", "user-service"], 0),
        (&["catalog", "instances", "-namespace", "team", "db"], 0),
        (&["catalog", "force-leave", "5f3c"], 0),
        (&["catalog", "force-leave", "n9"], 1),
    ] {
        let ran = all.run(&fake, line).await;
        assert_eq!(ran.code, code, "{line:?}");
        assert_fits(&ran.out);
    }
    let ran = super::run(
        &fake,
        &["catalog", "instances", "user-service", "-verbose"],
        None,
    )
    .await;
    assert!(ran.out.contains(LONG), "{}", ran.out);
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn proxies() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let version = |index: u64| json!({"epoch": "e", "index": index});
    let proxy = |id: &str, more: serde_json::Value| {
        let mut one = json!({"proxy": id, "namespace": "default", "service": "user-service",
            "node": "client-1", "server": "s1", "connected": true, "in_sync": true,
            "acked": version(42), "sent": version(42), "leaf_not_after": 1_790_080_000,
            "problem": "", "not_understood": []});
        one.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        one
    };
    fake.on(
        "GET /v1/proxies",
        json!({"version": version(42), "unreachable_servers": ["s3"], "proxies": [
            proxy(LONG, json!({})),
            proxy("web-1", json!({"in_sync": false, "acked": version(41)})),
            proxy("web-2", json!({"in_sync": false, "acked": null})),
            proxy("web-3", json!({"in_sync": false, "acked": null, "sent": null, "leaf_not_after": null})),
            proxy("web-4", json!({"connected": false, "leaf_not_after": 1})),
            proxy("web-5", json!({"not_understood": ["permissions"], "problem":
                "it needs permissions to know them, and denies what they cover"}))]}),
    )
    .on(
        "GET /v1/proxies?service=team%2Fdb&node=n1",
        json!({"version": version(1), "proxies": [], "unreachable_servers": []}),
    );
    let ran = all.run(&fake, &["proxy", "status"]).await;
    assert_fits(&ran.out);
    all.run(
        &fake,
        &["proxy", "status", "-service", "team/db", "-node=n1"],
    )
    .await;
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn ca_status_and_members() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let status = json!({"server": {"id": "17350012345678", "name": "s1", "version": "0.1.0",
            "address": "10.0.0.1:8701"},
        "cluster": {"id": "c1", "trust_domain": "c1.mesh", "datacenter": "dc1", "level": 1},
        "state": "leader", "leader": {"id": "17350012345678", "name": "s1", "address": "10.0.0.1:8701"},
        "term": 3, "index": 42, "epoch": "5f0c", "last_contact_ms": 0,
        "health": {"status": "ok", "reason": null}, "agents": 3});
    let alone = json!({"server": {"id": "18", "name": "s2", "version": "0.1.0", "address": "10.0.0.2:8701"},
        "cluster": null, "state": "candidate", "leader": null, "term": 4, "index": 1, "epoch": "",
        "last_contact_ms": null, "health": {"status": "failed", "reason": "the disk is full"}, "agents": 0});
    fake.on("GET /v1/status", status)
        .on("GET /v1/status", alone)
        .on("GET /v1/ca/roots", json!({"trust_domain": "c1.mesh", "active_root":
            "aa11", "roots": [{"id": "aa11bb22cc33dd44ee55ff6600112233445566778899", "pem": "…",
            "not_before": "2026-11-22T00:00:00Z", "not_after": "2036-11-22T00:00:00Z", "active": true}]}))
        .raw("GET /v1/ca/roots?pem=true", 200, b"-----BEGIN CERTIFICATE-----\n".to_vec())
        .on("GET /v1/ca/status", json!({"provider": "built_in", "ready": false, "problem":
            "the sealing key does not open the intermediate's key", "leaf_ttl": "24h",
            "root_not_after": "2036-11-22T00:00:00Z", "intermediate_not_after": "2027-11-22T00:00:00Z"}))
        .on("GET /v1/ca/status", json!({"provider": "vault", "ready": true, "problem": null,
            "warnings": ["the root ends in 53d: `meshctl ca rotate` makes another"],
            "configured_otherwise": ["leaf_ttl: 12h -> 24h"], "leaf_ttl": "12h",
            "leaf_signing": "vault", "root_key": "vault", "vault": {"address": "https://vault:8200/", "state": "sealed",
                "reason": "Vault is sealed", "since": "2026-11-26T00:00:00Z"},
            "root_not_after": "2036-11-22T00:00:00Z", "intermediate_not_after": "2027-11-22T00:00:00Z",
            "roots": [{"id": "aa11bb22cc33dd44ee55ff6600112233445566778899", "state": "active",
                "key_type": "EC P-256", "leaves": 2, "retires": null},
                {"id": "bb11bb22cc33dd44ee55ff6600112233445566778899", "state": "next",
                "key_type": "RSA 2048", "leaves": 0, "retires": null, "cross_signature": {"made": true,
                "by": "aa11bb22cc33dd44ee55ff6600112233445566778899", "reason": null}}],
            "rotation": {"to": "bb11bb22cc33dd44ee55ff6600112233445566778899", "proxies": 2, "trusting": 1,
                "waits": 1, "waiting": [{"node": "n1", "proxy": "web-sidecar-proxy",
                "reason": "it does not trust the new root yet"}]}}))
        .on("GET /v1/ca/config", json!({"provider": "vault", "leaf_ttl": "12h", "intermediate_ttl": "8760h",
            "key_type": "ec-p256",
            "root_ttl": "87600h", "vault": {"root_pki_path": "pki_root", "intermediate_pki_path": "pki_mesh",
            "leaf_signing": "vault"}}))
        .on("POST /v1/ca/rotate?dry_run=true", json!({"changes": ["another root is made"], "rotates": true,
            "root": null, "index": 0, "cross_signature": {"made": true, "reason": null,
            "by": "aa11bb22cc33dd44ee55ff6600112233445566778899"}}))
        .on("POST /v1/ca/rotate", json!({"changes": ["another root is made"], "rotates": true,
            "root": "bb11bb22cc33dd44ee55ff6600112233445566778899", "index": 9, "cross_signature": {
            "made": false, "by": "aa11bb22cc33dd44ee55ff6600112233445566778899",
            "reason": "ca: root aa11bb22cc33dd44: its key is not here, so it certifies no other"}}))
        .on("DELETE /v1/ca/rotation", json!({"changes": ["the rotation is undone"], "rotates": false,
            "root": null, "index": 10}))
        .on("GET /v1/operator/raft/peers", json!([
            {"id": "17350012345678", "name": "s1", "address": "10.0.0.1:8701", "voter": true,
             "leader": true, "self": true},
            {"id": "18446744073709551615", "name": "s2", "address": "10.0.0.2:8701", "voter": false,
             "leader": false, "self": false}]))
        .on("DELETE /v1/operator/raft/peers/s2", json!({"index": 9}));
    for (line, code) in [
        (&["status"][..], 0),
        (&["status"], 1),
        (&["ca", "roots"], 0),
        (&["ca", "roots", "-pem"], 0),
        (&["ca", "status"], 1),
        (&["ca", "status"], 0),
        (&["ca", "config", "read"], 0),
        (&["ca", "rotate", "-dry-run"], 0),
        (&["ca", "rotate"], 0),
        (&["ca", "rotate", "-abort"], 0),
        (&["operator", "raft", "list-peers"], 0),
        (&["operator", "raft", "remove-peer", "-id", "s2"], 0),
    ] {
        let ran = all.run(&fake, line).await;
        assert_eq!(ran.code, code, "{line:?}");
        assert_fits(&ran.out);
    }
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn leaves_and_revocations() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let leaf = json!({"serial": "5f0a3b9c1d2e4f60718293a4b5c6d7e8", "namespace": "default",
        "service": "web", "node": "n1", "proxy": "web-1-sidecar-proxy",
        "signed": "2026-11-25T12:00:00Z", "not_after": "2026-11-26T12:00:00Z", "revoked": true});
    let other = |serial: &str, signed: &str, until: &str| {
        let mut other = leaf.clone();
        other["serial"] = serial.into();
        other["signed"] = signed.into();
        other["not_after"] = until.into();
        other["revoked"] = false.into();
        other
    };
    // The sidecar shows one; of two that end together the later. Who is not connected shows none.
    let shown = "2026-11-26T12:30:00Z";
    let older = other(
        "5f0a3b9c1d2e4f60718293a4b5c6d7e9",
        "2026-11-25T12:10:00Z",
        shown,
    );
    let newer = other(
        "5f0a3b9c1d2e4f60718293a4b5c6d7ea",
        "2026-11-25T12:20:00Z",
        shown,
    );
    let mut away = newer.clone();
    away["proxy"] = "web-2-sidecar-proxy".into();
    let proxy = |id: &str, connected: bool| {
        json!({"proxy": id, "namespace": "default", "service": "web", "node": "n1",
            "connected": connected, "leaf_not_after": 1_795_696_200})
    };
    let proxies = json!({"proxies": [proxy("web-1-sidecar-proxy", true),
        proxy("web-2-sidecar-proxy", false)]});
    fake.on("GET /v1/ca/leaves?service=web", json!([leaf, newer, older, away]))
        .on("GET /v1/proxies?service=web", proxies)
        .on("GET /v1/proxies?service=team%2Fdb", json!({"proxies": []}))
        .on("GET /v1/ca/leaves?service=team%2Fdb", json!([]))
        .on("GET /v1/ca/revocations", json!([
            {"kind": "service", "namespace": "team", "service": "db", "reason": "odd calls",
             "created_at": "2026-11-25T13:00:00.000Z"},
            {"kind": "leaf", "serial": "5f0a3b9c1d2e4f60718293a4b5c6d7e8", "namespace": "default",
             "service": "web", "proxy": "web-1-sidecar-proxy", "reason": "",
             "until": "2026-11-26T12:00:30Z", "created_at": "2026-11-25T13:00:00.000Z"}]))
        .on("POST /v1/ca/revoke", json!({"change": "created", "index": 7, "epoch": "e", "warnings": []}))
        .on("POST /v1/ca/revoke", json!({"change": "created", "index": 8, "epoch": "e", "warnings": [
            {"key": null, "message": "service team/db: no instance of it is registered; is the name right?"}]}))
        .fails("POST /v1/ca/revoke", 400, json!({"code": "invalid", "message":
            "revocation of service x: 1024 revocations stand already"}))
        .on("POST /v1/ca/unrevoke", json!({"change": "deleted", "index": 9, "epoch": "e", "warnings": []}))
        .on("GET /v1/proxies/wait?index=7&timeout=30s", json!({"live": true, "index": 7, "agents": 2,
            "proxies": 5, "lagging": [], "not_connected": [], "unreachable_servers": []}));
    for (line, code) in [
        (&["ca", "leaves", "web"][..], 0),
        (&["ca", "leaves", "db", "-namespace", "team"], 0),
        (&["ca", "leaves", "web", "-o", "json"], 0),
        (&["ca", "revocations"], 0),
        (
            &[
                "ca", "revoke", "-serial", "5F:0A:3B", "-reason", "stolen", "-wait",
            ],
            0,
        ),
        (&["ca", "revoke", "-service", "team/db"], 0),
        (&["ca", "revoke", "-service", "x"], 1),
        (&["ca", "revoke", "-serial", "web"], 1),
        (&["ca", "revoke", "-service", "*"], 1),
        (
            &["ca", "unrevoke", "-service", "db", "-namespace", "team"],
            0,
        ),
    ] {
        let ran = all.run(&fake, line).await;
        assert_eq!(ran.code, code, "{line:?}: {} {}", ran.out, ran.err);
    }
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn servers_that_answer_badly() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    fake.raw("GET /v1/intentions", 200, b"<html>".to_vec())
        .raw("GET /v1/intentions", 502, b"bad gateway".to_vec())
        .fails(
            "GET /v1/intentions",
            503,
            json!({"code": "no_leader", "message":
            "there is no leader; ?stale answers with what this server has"}),
        )
        .fails(
            "GET /v1/intentions",
            403,
            json!({"code": "forbidden", "message":
            "a certificate of role cli is needed"}),
        )
        .raw("GET /v1/intentions", 200, b"[{\"source\": 1}]".to_vec());
    for _ in 0..5 {
        assert_eq!(all.run(&fake, &["intention", "list"]).await.code, 1);
    }
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let fake = Fake::start().await;
    // A port that was free a moment ago, and that nobody is told of.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let address = format!("http://127.0.0.1:{port}");
    let ran = super::run(&fake, &["status", "-http-addr", &address], None).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .starts_with(&format!("Error: cannot reach the server at {address}: ")),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("MESHCTL_HTTP_ADDR"), "{}", ran.err);
}

#[tokio::test]
async fn a_native_instance_is_said_to_be_one() {
    let fake = Fake::start().await;
    let rows = json!([
        {"id": "pay-1", "node": "n1", "node_state": "alive", "address": "10.0.0.1", "port": 8443,
         "status": "passing", "proxy": {"id": "pay-1", "address": "10.0.0.1", "port": 8443, "native": true}}]);
    fake.on("GET /v1/catalog/services/pay", rows);
    let ran = super::run(&fake, &["catalog", "instances", "pay"], None).await;
    assert!(ran.out.contains(" native "), "{}", ran.out);
}

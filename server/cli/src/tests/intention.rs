//! `meshctl intention`: the outputs and exit codes that scripts rely on.

use serde_json::{Value, json};

use super::{Transcript, assert_fits, fake::Fake};

fn key(name: &str) -> Value {
    json!({"namespace": "default", "name": name})
}

fn row(source: &str, destination: &str, action: &str, precedence: u32) -> Value {
    json!({"source": key(source), "destination": key(destination), "action": action,
           "precedence": precedence, "owner": "cli", "create_index": 7, "modify_index": 8,
           "created_at": "2026-03-01T09:30:00.250Z", "modified_at": "2026-03-02T00:00:00.000Z"})
}

fn permissions(source: &str, destination: &str) -> Value {
    json!({"source": key(source), "destination": key(destination), "precedence": 9,
           "owner": "apply", "create_index": 7, "modify_index": 8,
           "created_at": "2026-03-01T09:30:00.250Z", "modified_at": "2026-03-02T00:00:00.000Z",
           "description": "Public pages",
           "meta": {"team": "web", "ticket": "A-1"},
           "permissions": [
               {"action": "deny", "path_prefix": "/public/secret"},
               {"action": "allow", "methods": ["GET"], "path_prefix": "/public/", "later": true}]})
}

fn applied(pairs: &[(&str, &str, &str)]) -> Value {
    let results: Vec<Value> = pairs
        .iter()
        .map(|(source, destination, change)| {
            json!({"key": {"intention": {"source": key(source), "destination": key(destination)}},
                   "change": change, "index": 42})
        })
        .collect();
    json!({"index": 42, "epoch": "e1", "dry_run": false, "warnings": [], "results": results})
}

#[tokio::test]
async fn create() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let mut warned = applied(&[("web", "db", "created")]);
    warned["warnings"] = json!([{"key": null, "message": "service db: has no instances"}]);
    fake.on("POST /v1/apply", warned)
        .on("POST /v1/apply", applied(&[("web", "db", "updated")]))
        .on("POST /v1/apply", applied(&[("web", "api", "created")]))
        .fails(
            "POST /v1/apply",
            409,
            json!({"code": "conflict", "message": "intention web => db: has changed",
                   "key": {"intention": {"source": key("web"), "destination": key("db")}},
                   "expected": 0, "actual": 8}),
        )
        .on("GET /v1/intentions/web/db", row("web", "db", "deny", 9));
    all.run(&fake, &["intention", "create", "-allow", "web", "db"])
        .await;
    all.run(
        &fake,
        &["intention", "create", "-deny", "-replace", "web", "db"],
    )
    .await;
    let line = [
        "intention",
        "create",
        "-namespace",
        "team",
        "-meta",
        "a=b=c",
        "-description",
        "-why-",
        "-owner=ci",
        "web",
        "other/api",
    ];
    all.run(&fake, &line).await;
    let ran = all.run(&fake, &["intention", "create", "web", "db"]).await;
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn create_from_files() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let hcl = file(
        "a.hcl",
        "intention \"web\" \"api\" {\n  permission {\n    action = \"allow\"\n    path_prefix = \
         \"/\"\n  }\n}\n",
    );
    let json = file(
        "b.json",
        r#"{"SourceName":"web","DestinationName":"db","Action":"deny"}"#,
    );
    fake.on(
        "POST /v1/apply",
        applied(&[("web", "db", "created"), ("web", "api", "created")]),
    );
    let ran = super::run(&fake, &["intention", "create", "-file", &hcl, &json], None).await;
    assert_eq!(
        ran.out, "Created: web => api (1 permission)\nCreated: web => db (deny)\n",
        "in the order of the command line"
    );
    let odd = "intention web => api: permission 1: is odd";
    let pair = json!({"intention": {"source": key("web"), "destination": key("api")}});
    let failing = Fake::start().await;
    failing.fails(
        "POST /v1/apply",
        400,
        json!({"code": "invalid", "message": odd, "findings": [{"key": pair, "message": odd},
            {"key": {"intention": {"source": key("web"), "destination": key("db")}},
             "message": "intention web => db: is odd"}]}),
    );
    let ran = super::run(
        &failing,
        &["intention", "create", "-file", &hcl, &json],
        None,
    )
    .await;
    let wanted =
        format!("Error: {hcl}:2:3: {odd}\n       {json}:1:1: intention web => db: is odd\n");
    assert!(ran.err.starts_with(&wanted), "{}", ran.err);
    let other = file("c.hcl", "service \"web\" {\n}\n");
    let ran = super::run(&fake, &["intention", "create", "-file", &other], None).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("c.hcl:1:1: service web is not an intention"),
        "{}",
        ran.err
    );
    fake.take();
    let typed = "intention \"a\" \"b\" {\n  action = \"allow\"\n}\n";
    all.run_with(&fake, &["intention", "create", "-file", "-"], Some(typed))
        .await;
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn check() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let explain = json!([
        {"source": key("*"), "destination": key("db"), "precedence": 8, "says": "permissions",
         "governs": true, "permissions": [
            {"number": 1, "action": "allow", "matches": false,
             "note": "method POST is not one of GET"},
            {"number": 2, "action": "deny", "matches": true, "note": "matches"},
            {"number": 3, "action": "allow", "matches": true,
             "note": "matches, but an earlier one decided"}]},
        {"source": key("*"), "destination": key("*"), "precedence": 5, "says": "allow",
         "governs": false}]);
    let denied = json!({"allowed": false, "decided_by_request": false, "permissions": 3,
        "reason": "intention * => db, permission 2 (deny)", "default_intention": "deny",
        "protocol": "http", "explain": explain, "permission": 2});
    let depends = json!({"allowed": false, "decided_by_request": true, "permissions": 2,
        "reason": "depends on the request: 2 permissions", "default_intention": "deny",
        "protocol": "http", "explain": []});
    let allowed = json!({"allowed": true, "decided_by_request": false, "permissions": 0,
        "reason": "intention web => db (allow)", "default_intention": "deny", "protocol": "tcp",
        "explain": [{"source": key("web"), "destination": key("db"), "precedence": 9,
                     "says": "allow", "governs": true}]});
    let default = json!({"allowed": false, "decided_by_request": false, "permissions": 0,
        "reason": "no intention matches; the mesh's default is deny", "default_intention": "deny",
        "protocol": "tcp", "explain": []});
    for answer in [
        &allowed, &allowed, &default, &default, &depends, &denied, &denied,
    ] {
        fake.on("POST /v1/intentions/check", answer.clone());
    }
    fake.fails(
        "POST /v1/intentions/check",
        400,
        json!({"code": "invalid_request", "message": "path: has a NUL in it"}),
    );
    fake.on("POST /v1/intentions/check?stale=true", allowed.clone());
    for (line, code) in [
        (&["intention", "check", "web", "db"][..], 0),
        (&["intention", "check", "-stale", "web", "db"], 0),
        (&["intention", "check", "-explain", "web", "db"], 0),
        (&["intention", "check", "web", "db"], 1),
        (&["intention", "check", "web", "db", "-explain"], 1),
        (&["intention", "check", "web", "db"], 1),
        (
            &[
                "intention",
                "check",
                "web",
                "db",
                "-method",
                "POST",
                "-path",
                "/a?x=1",
                "-header",
                "X-User: joe",
                "-header",
                "x-user:ann",
                "-explain",
            ],
            1,
        ),
        (
            &["intention", "check", "web", "db", "-path", "/", "-json"],
            1,
        ),
        (&["intention", "check", "web", "db", "-path", "/\u{1}"], 2),
        (
            &[
                "intention",
                "check",
                "web",
                "db",
                "-path",
                "/",
                "-header",
                "x",
            ],
            2,
        ),
    ] {
        assert_eq!(all.run(&fake, line).await.code, code, "{line:?}");
    }
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn look_and_delete() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    let rows = json!([
        permissions("web", "api"),
        row(
            "a-service-with-quite-a-long-name",
            "another-service-of-that-length",
            "deny",
            9
        ),
        row("*", "*", "allow", 5)
    ]);
    fake.on("GET /v1/intentions", rows.clone())
        .on("GET /v1/intentions", json!([]))
        .on("GET /v1/intentions?stale=true", json!([row("*", "*", "allow", 5)]))
        .on("GET /v1/intentions/match?by=source&name=web", rows)
        .on("GET /v1/intentions/match?by=destination&name=team%2Fdb", json!([]))
        .on("GET /v1/intentions/web/api", permissions("web", "api"))
        .on("GET /v1/intentions/web/api", permissions("web", "api"))
        .on("GET /v1/intentions/*/team%2Fdb", row("*", "db", "allow", 8))
        .on("DELETE /v1/intentions/web/api", json!({"change": "deleted", "index": 43}))
        .on("DELETE /v1/intentions/web/gone", json!({"change": "absent", "index": 43}))
        .fails(
            "DELETE /v1/intentions/web/tf",
            409,
            json!({"code": "owned_by_another", "owner": "terraform",
                   "message": "intention web => tf: belongs to terraform; change it there, or force"}),
        )
        .on("DELETE /v1/intentions/web/tf?force=true", json!({"change": "deleted", "index": 44}))
        .fails(
            "GET /v1/intentions/web/none",
            404,
            json!({"code": "not_found", "message": "intention web => none: does not exist"}),
        );
    for (line, code) in [
        (&["intention", "list"][..], 0),
        (&["intention", "list"], 0),
        (&["intention", "list", "-stale", "-o", "json"], 0),
        (&["intention", "match", "-source", "web"], 0),
        (&["intention", "match", "team/db"], 0),
        (&["intention", "get", "web", "api"], 0),
        (&["intention", "get", "-verbose", "web", "api"], 0),
        (&["intention", "get", "*", "db", "-namespace=team"], 1),
        (&["intention", "get", "*", "team/db"], 0),
        (&["intention", "get", "web", "none"], 1),
        (&["intention", "delete", "web", "api"], 0),
        (&["intention", "delete", "web", "gone"], 1),
        (&["intention", "delete", "web", "tf"], 1),
        (&["intention", "delete", "-force", "web", "tf"], 0),
    ] {
        let ran = all.run(&fake, line).await;
        assert_eq!(ran.code, code, "{line:?}");
        // Consul's table, in which programs look for names: it is as wide as they are.
        if line != ["intention", "list"] {
            assert_fits(&ran.out);
        }
    }
    insta::assert_snapshot!(all.0);
}

#[tokio::test]
async fn waiting_names_who_lags() {
    let fake = Fake::start().await;
    let mut all = Transcript::default();
    fake.on("POST /v1/apply", applied(&[("web", "db", "created")]))
        .on(
            "GET /v1/proxies/wait?index=42&timeout=30s&destination=db",
            json!({"live": true, "index": 42, "agents": 1, "proxies": 2, "lagging": [],
                   "not_connected": ["n7"], "unreachable_servers": []}),
        )
        .on(
            "GET /v1/proxies/wait?index=42&timeout=2s&destination=db",
            json!({"live": false, "index": 42, "agents": 3, "proxies": 5, "lagging": [
                {"node": "n1", "proxy": "web-1-sidecar-proxy", "reason": "has acked 41"},
                {"node": "n2", "proxy": null, "reason": "the agent has acked 40"}],
                "not_connected": [], "unreachable_servers": ["s3"]}),
        );
    let ran = all
        .run(&fake, &["intention", "create", "-wait", "web", "db"])
        .await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "Created: web => db (allow)\n")
    );
    let ran = all
        .run(&fake, &["intention", "create", "-wait=2s", "web", "db"])
        .await;
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(all.0);
}

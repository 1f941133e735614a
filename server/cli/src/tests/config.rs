//! `meshctl config`, ours and Consul's kinds.

use serde_json::{Value, json};

use super::{Transcript, fake::Fake};

fn key(name: &str) -> Value {
    json!({"namespace": "default", "name": name})
}

const ROUTER: &str = "Kind = \"service-router\"\nName = \"web\"\nRoutes = []\n";

fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file(
        "ours.hcl",
        "service \"web\" {\n  protocol = \"http\"\n}\n\nintention \"a\" \"web\" {\n  action = \
         \"allow\"\n}\n",
    );
    file("one.hcl", "service \"web\" {\n  protocol = \"http\"\n}\n");
    file("router.hcl", ROUTER);
    file(
        "wrong.json",
        r#"{"Kind": "service-defaults", "Name": "web", "Protocl": "http"}"#,
    );
    file("empty.hcl", "# nothing\n");
    file(
        "route.hcl",
        "route \"web\" {\n  rule \"canary\" {\n    to \"v1\" {\n      weight = 90\n    }\n  }\n}\n",
    );
    dir
}

#[tokio::test]
async fn write() {
    let (fake, dir) = (Fake::start().await, files());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut all = Transcript::default();
    let conflict = json!({"code": "conflict", "message": "service web: has changed",
        "key": {"service": key("web")}, "expected": 3, "actual": 4});
    fake.on(
        "POST /v1/apply",
        json!({"index": 9, "results": [], "warnings": [
            {"key": null, "message": "service web: is odd"}]}),
    )
    .fails("POST /v1/apply", 409, conflict.clone())
    .on(
        "PUT /v1/config",
        json!({"change": "created", "index": 10, "kind": "service-router",
            "namespace": "default", "name": "web", "warnings": [], "results": []}),
    )
    .fails("PUT /v1/config?cas=3", 409, conflict);
    for (line, code) in [
        (&["config", "write", "ours.hcl"][..], 0),
        (
            &["config", "write", "-cas", "-modify-index=3", "one.hcl"],
            1,
        ),
        (
            &["config", "write", "-cas", "-modify-index=3", "ours.hcl"],
            1,
        ),
        (&["config", "write", "router.hcl"], 0),
        (
            &[
                "config",
                "write",
                "-cas",
                "-modify-index",
                "3",
                "router.hcl",
            ],
            1,
        ),
        (&["config", "write", "wrong.json"], 1),
        (&["config", "write", "empty.hcl"], 1),
        (&["config", "write", "."], 1),
    ] {
        let line: Vec<String> = line
            .iter()
            .map(
                |word| match word.ends_with(".hcl") || word.ends_with(".json") {
                    true => path(word),
                    false => (*word).to_owned(),
                },
            )
            .collect();
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        assert_eq!(all.run(&fake, &line).await.code, code, "{line:?}");
    }
    insta::assert_snapshot!(all.0.replace(&dir.path().display().to_string(), "DIR"));
}

/// As `apply` does: what the server finds is said with the line that it is of.
#[tokio::test]
async fn findings_name_the_place() {
    let (fake, dir) = (Fake::start().await, files());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let sums = "route web: rule canary: weights sum to 90, not 100";
    let twice = "route web: rule canary: to v1: stands twice";
    let wrong = json!({"code": "invalid", "message": sums, "findings": [
        {"key": {"route": key("web")}, "message": sums},
        {"key": {"route": key("other")}, "message": "route other: is odd"}]});
    fake.fails("POST /v1/apply", 400, wrong).on(
        "POST /v1/apply",
        json!({"index": 9, "results": [], "warnings": [
            {"key": {"route": key("web")}, "message": twice}]}),
    );
    let ran = super::run(&fake, &["config", "write", &path("route.hcl")], None).await;
    assert_eq!(ran.code, 1);
    let place = format!(
        "Error: {}:2:3: {sums}\n       route other: is odd\n",
        path("route.hcl")
    );
    assert!(ran.err.starts_with(&place), "{}", ran.err);
    let ran = super::run(&fake, &["config", "write", &path("route.hcl")], None).await;
    assert_eq!(ran.code, 0);
    let place = format!("WARNING: {}:3:5: {twice}\n", path("route.hcl"));
    assert_eq!(ran.err, place);

    let odd = "route web: rule router-0: is odd";
    let router = dir.path().join("r.hcl");
    std::fs::write(
        &router,
        "Kind = \"service-router\"\nName = \"web\"\nRoutes = [\n  {}\n]\n",
    )
    .unwrap();
    let wrong = json!({"code": "invalid", "message": odd, "findings": [
        {"key": {"route": key("web")}, "message": odd}]});
    fake.fails("PUT /v1/config", 400, wrong);
    let router = router.display().to_string();
    let ran = super::run(&fake, &["config", "write", &router], None).await;
    let place = format!("Error: {router}:4:3: {odd}\n");
    assert!(ran.err.starts_with(&place), "{}", ran.err);
}

/// What a file's one write made, one write takes away.
#[tokio::test]
async fn a_file_is_deleted_as_it_was_written() {
    let (fake, dir) = (Fake::start().await, files());
    let file = dir.path().join("ours.hcl").display().to_string();
    let live = json!({"live": true, "index": 12, "agents": 1, "proxies": 1});
    fake.on("POST /v1/apply", json!({"index": 12, "results": []}))
        .on("GET /v1/proxies/wait?index=12&timeout=2s", live);
    let line = ["config", "delete", "-filename", &file, "-wait=2s"];
    let ran = super::run(&fake, &line, None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out,
        "Config entry deleted: service/web\nConfig entry deleted: intention/a => web\n"
    );
    assert_eq!(ran.err, "Live at index 12: 1 proxy of 1 agent.\n");
    let ops = json!({"ops": [{"delete": {"service": key("web")}},
        {"delete": {"intention": {"source": key("a"), "destination": key("web")}}}]});
    let asked = fake.take();
    assert_eq!(asked[0], format!("POST /v1/apply owner=cli {ops}"));
    let line = [
        "config",
        "delete",
        "-filename",
        &file,
        "-cas",
        "-modify-index=3",
    ];
    assert_eq!(super::run(&fake, &line, None).await.code, 1);
    assert!(fake.take().is_empty());
}

#[tokio::test]
async fn read_list_and_delete() {
    let (fake, dir) = (Fake::start().await, files());
    let mut all = Transcript::default();
    let web = json!({"namespace": "default", "name": "web", "protocol": "http", "defined": true,
        "instances": {"total": 1}, "owner": "cli", "create_index": 3, "modify_index": 4});
    let router = json!({"kind": "service-router", "namespace": "default", "name": "web",
        "text": ROUTER, "rows": [], "owner": "cli", "create_index": 3, "modify_index": 4});
    let conflict = json!({"code": "conflict", "message": "service web: has changed"});
    fake.on("GET /v1/services/web", web.clone())
        .on(
            "GET /v1/services",
            json!([web, {"name": "db", "defined": false}]),
        )
        .on(
            "GET /v1/mesh",
            json!({"defined": true, "default_intention": "deny"}),
        )
        .on(
            "GET /v1/intentions",
            json!([{"source": key("*"), "destination":
            {"namespace": "team", "name": "db"}, "action": "allow"}]),
        )
        .on("GET /v1/config/service-router/web", router.clone())
        .on("GET /v1/config/service-router", json!([router]))
        .on(
            "DELETE /v1/services/web",
            json!({"change": "deleted", "index": 11}),
        )
        .fails("DELETE /v1/services/web?cas=3", 409, conflict)
        .on(
            "DELETE /v1/config/service-router/web",
            json!({"change": "deleted", "index": 12}),
        );
    let router_file = dir.path().join("router.hcl").display().to_string();
    for (line, code) in [
        (
            &["config", "read", "-kind", "service", "-name", "web"][..],
            0,
        ),
        (
            &["config", "read", "-kind", "service", "-name", "web", "-hcl"],
            0,
        ),
        (
            &["config", "read", "-kind", "service-router", "-name", "web"],
            0,
        ),
        (
            &[
                "config",
                "read",
                "-kind",
                "service-router",
                "-name",
                "web",
                "-json",
            ],
            0,
        ),
        (&["config", "list", "-kind", "service"], 0),
        (&["config", "list", "-kind", "mesh"], 0),
        (&["config", "list", "-kind", "intention"], 0),
        (&["config", "list", "-kind", "service-router"], 0),
        (
            &["config", "list", "-kind", "intention", "-namespace", "team"],
            0,
        ),
        (
            &["config", "list", "-kind", "service", "-namespace", "team"],
            0,
        ),
        (&["config", "delete", "-kind", "service", "-name", "web"], 0),
        (
            &[
                "config",
                "delete",
                "-kind=service",
                "-name=web",
                "-cas",
                "-modify-index=3",
            ],
            1,
        ),
        (&["config", "delete", "-filename", &router_file], 0),
    ] {
        assert_eq!(all.run(&fake, line).await.code, code, "{line:?}");
    }
    insta::assert_snapshot!(all.0.replace(&dir.path().display().to_string(), "DIR"));
}

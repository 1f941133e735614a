//! `meshctl apply`: plans, confirmations, refusals, conflicts.

use serde_json::{Value, json};

use super::{Transcript, assert_fits, fake::Fake};

const FILES: &str = r#"mesh {
  default_intention = "deny"
}

service "web" {
  protocol = "http"
  subset "v1" {
    meta = { version = "v1" }
  }
  subset "v2" {
    meta = { version = "v2" }
  }
}

route "web" {
  rule "canary" {
    to "v1" {
      weight = 50
    }
    to "v2" {
      weight = 50
    }
  }
}

intention "frontend" "web" {
  action = "allow"
}
"#;

fn key(name: &str) -> Value {
    json!({"namespace": "default", "name": name})
}

fn route(weight: u32, owner: &str, index: u64) -> Value {
    json!({"namespace": "default", "name": "web", "owner": owner, "create_index": 3,
           "modify_index": index, "rules": [{"name": "canary", "to": [
               {"subset": "v1", "weight": weight}, {"subset": "v2", "weight": 100 - weight}]}]})
}

/// A mesh in which the service stands as written, the route does not.
async fn server() -> (Fake, tempfile::TempDir) {
    let fake = Fake::start().await;
    let service = json!({"namespace": "default", "name": "web", "protocol": "http",
        "subsets": {"v1": {"meta": {"version": "v1"}}, "v2": {"meta": {"version": "v2"}}},
        "defined": true, "instances": {"total": 2}, "owner": "apply", "create_index": 3,
        "modify_index": 5});
    let registered = json!({"namespace": "default", "name": "db", "defined": false});
    let old = |source: &str, owner: &str| {
        json!({"source": key(source), "destination": key("web"), "action": "allow",
               "precedence": 9, "owner": owner, "create_index": 4, "modify_index": 4})
    };
    fake.on(
        "GET /v1/mesh",
        json!({"defined": false, "effective": {"default_intention": "deny"}}),
    )
    .on("GET /v1/services", json!([service, registered]))
    .on("GET /v1/routes", json!([route(90, "apply", 6)]))
    .on("GET /v1/gateways", json!([]))
    .on(
        "GET /v1/intentions",
        json!([old("old", "apply"), old("other", "cli")]),
    )
    .on("GET /v1/config", json!([]));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mesh.hcl"), FILES).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not read").unwrap();
    (fake, dir)
}

fn answered(fake: &Fake, query: &str) {
    let warning = json!({"key": {"service": key("web")}, "message": "service web: is odd"});
    fake.on(
        &format!("POST /v1/apply{query}"),
        json!({"index": 43, "epoch": "e", "dry_run": query.contains("dry"),
               "warnings": [warning], "results": []}),
    );
}

fn shown(transcript: &Transcript, dir: &tempfile::TempDir) -> String {
    transcript
        .0
        .replace(&dir.path().display().to_string(), "DIR")
}

#[tokio::test]
async fn plans_are_shown_and_confirmed() {
    let (fake, dir) = server().await;
    let folder = dir.path().display().to_string();
    let mut all = Transcript::default();
    answered(&fake, "?dry_run=true");
    answered(&fake, "");
    let ran = all
        .run_with(&fake, &["apply", "-f", &folder], Some("yes\n"))
        .await;
    assert_eq!(ran.code, 0);
    assert_fits(&ran.out);
    let ran = all
        .run_with(&fake, &["apply", "-f", &folder, "-prune"], Some("y\n"))
        .await;
    assert_eq!(ran.code, 1, "only `yes` is a yes");
    let ran = all.run(&fake, &["apply", "-f", &folder]).await;
    assert_eq!(ran.code, 1, "nobody is there");
    let ran = all
        .run(&fake, &["apply", "-f", &folder, "-prune", "-auto-approve"])
        .await;
    assert_eq!(ran.code, 0);
    let ran = all.run(&fake, &["apply", "-f", &folder, "-dry-run"]).await;
    assert_eq!(ran.code, 0);
    let ran = all
        .run(&fake, &["apply", "-f", &folder, "-dry-run", "-o", "json"])
        .await;
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(shown(&all, &dir));
}

#[tokio::test]
async fn what_stands_is_left_alone() {
    let (fake, dir) = server().await;
    let file = dir.path().join("one.hcl");
    std::fs::write(
        &file,
        "intention \"other\" \"web\" {\n  action = \"allow\"\n}\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let mut all = Transcript::default();
    let ran = all.run(&fake, &["apply", "-f", &file]).await;
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(shown(&all, &dir));
}

#[tokio::test]
async fn rows_of_config_entries_are_left_to_them() {
    let (fake, dir) = server().await;
    let other = json!([{"kind": "service-intentions", "namespace": "default", "name": "web",
        "rows": [{"intention": {"source": key("old"), "destination": key("web")}},
                 {"of_a_newer_server": 1}]}]);
    // Twice: of several answers the last one is given again.
    fake.on("GET /v1/config", other.clone())
        .on("GET /v1/config", other);
    fake.take();
    let folder = dir.path().display().to_string();
    let first = super::run(&fake, &["apply", "-f", &folder, "-dry-run", "-prune"], None).await;
    assert!(
        first.out.contains("- intention old => web"),
        "{}",
        first.out
    );
    let ran = super::run(&fake, &["apply", "-f", &folder, "-prune"], None).await;
    assert!(!ran.out.contains("old => web"), "{}", ran.out);
    assert!(
        ran.err.contains("Left as it is: 1 row of config entries;"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn waiting_with_nothing_to_do_waits_for_what_stands() {
    let (fake, dir) = server().await;
    let file = dir.path().join("one.hcl");
    let text = "intention \"other\" \"web\" {\n  action = \"allow\"\n}\n";
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let lagging = json!({"live": false, "index": 4, "agents": 1, "proxies": 1, "lagging": [
        {"node": "n1", "proxy": "web-proxy", "reason": "has acked 3"}]});
    fake.on("GET /v1/proxies/wait?index=4&timeout=2s", lagging);
    let ran = super::run(&fake, &["apply", "-f", &file, "-wait=2s"], None).await;
    assert!(ran.out.starts_with("Nothing to do"), "{}", ran.out);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("has acked 3"), "{}", ran.err);
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let (fake, dir) = server().await;
    let folder = dir.path().display().to_string();
    let line = ["apply", "-f", &folder, "-dry-run", "-prune"];
    answered(&fake, "?dry_run=true");
    let plain = super::run(&fake, &line, None).await.out;
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = super::run_at(&fake, &line, None, true).await.out;
    assert!(
        coloured.contains("\u{1b}[33m~ route web\u{1b}[0m"),
        "{coloured}"
    );
    assert!(coloured.contains("\u{1b}[31m- intention"), "{coloured}");
    let mut stripped = coloured;
    for code in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, plain);
}

#[tokio::test]
async fn what_belongs_to_others_is_refused() {
    let (fake, dir) = server().await;
    let folder = dir.path().display().to_string();
    let mut all = Transcript::default();
    let ran = all
        .run(
            &fake,
            &["apply", "-f", &folder, "-owner", "ci", "-auto-approve"],
        )
        .await;
    assert_eq!(ran.code, 1);
    answered(&fake, "?force=true&dry_run=true");
    answered(&fake, "?force=true");
    let line = [
        "apply",
        "-f",
        &folder,
        "-owner",
        "ci",
        "-auto-approve",
        "-force",
    ];
    assert_eq!(all.run(&fake, &line).await.code, 0);
    insta::assert_snapshot!(shown(&all, &dir));
}

#[tokio::test]
async fn refusals_of_the_server_name_the_place() {
    let (fake, dir) = server().await;
    let folder = dir.path().display().to_string();
    let mut all = Transcript::default();
    fake.fails(
        "POST /v1/apply?dry_run=true",
        400,
        json!({"code": "invalid", "message": "route web: rule canary: weights sum to 90, not 100",
               "findings": [
                   {"key": {"route": key("web")},
                    "message": "route web: rule canary: weights sum to 90, not 100"},
                   {"key": null, "message": "something else"}]}),
    );
    assert_eq!(
        all.run(&fake, &["apply", "-f", &folder, "-auto-approve"])
            .await
            .code,
        1
    );
    let (other, _dir) = server().await;
    other.fails(
        "POST /v1/apply?dry_run=true",
        409,
        json!({"code": "dangling_reference", "key": {"service": key("web")},
               "message": "service web: is still referred to by route x; change or delete that \
                           first, or in the same write",
               "references": [{"route": key("x")}]}),
    );
    assert_eq!(
        all.run(&other, &["apply", "-f", &folder, "-auto-approve"])
            .await
            .code,
        1
    );
    insta::assert_snapshot!(shown(&all, &dir));
}

#[tokio::test]
async fn a_conflict_says_what_changed_meanwhile() {
    let (fake, dir) = server().await;
    let folder = dir.path().display().to_string();
    let mut all = Transcript::default();
    answered(&fake, "?dry_run=true");
    fake.fails(
        "POST /v1/apply",
        409,
        json!({"code": "conflict", "message": "route web: has changed",
               "key": {"route": key("web")}, "expected": 6, "actual": 9}),
    )
    .fails(
        "POST /v1/apply",
        409,
        json!({"code": "conflict", "message": "mesh: has changed", "key": "mesh",
               "expected": 0, "actual": 9}),
    )
    .on("GET /v1/routes/web", route(70, "cli", 9));
    for _ in 0..2 {
        let ran = all
            .run(&fake, &["apply", "-f", &folder, "-auto-approve"])
            .await;
        assert_eq!(ran.code, 1);
    }
    insta::assert_snapshot!(shown(&all, &dir));
}

#[tokio::test]
async fn mistakes_in_files_are_found_before_anything_is_asked() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("a.hcl"),
        "service \"web\" {\n  protocl = \"http\"\n}\n",
    )
    .unwrap();
    let folder = dir.path().display().to_string();
    let mut all = Transcript::default();
    assert_eq!(all.run(&fake, &["apply", "-f", &folder]).await.code, 1);
    let json = dir.path().join("x.json");
    let entry = dir.path().join("y.json");
    std::fs::write(&json, "[{\"SourceName\": \"a\"}]").unwrap();
    std::fs::write(&entry, "{\n  \"Kind\": \"service-router\"\n}").unwrap();
    for file in [json, entry] {
        let file = file.display().to_string();
        assert_eq!(all.run(&fake, &["apply", "-f", &file]).await.code, 1);
    }
    let empty = tempfile::tempdir().unwrap();
    let empty_path = empty.path().display().to_string();
    assert_eq!(all.run(&fake, &["apply", "-f", &empty_path]).await.code, 1);
    assert_eq!(
        all.run(&fake, &["apply", "-f", "/nowhere/at-all"])
            .await
            .code,
        1
    );
    let text = shown(&all, &dir).replace(&empty_path, "EMPTY");
    insta::assert_snapshot!(text);
}

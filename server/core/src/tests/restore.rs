//! Snapshots out and in, and what a restart and a lost folder do.

use std::sync::Arc;
use std::time::Duration;

use mesh_state::Command;
use reqwest::Method;
use serde_json::json;

use super::agent::Agent;
use super::harness::{Client, ok, one, options, soon, start};
use crate::{Clock, Formation, ManualClock, Server, ServerOptions};

pub(super) async fn restore(client: &Client, bytes: Vec<u8>) -> super::harness::Answer {
    client
        .send(client.request(Method::PUT, "/v1/snapshot").body(bytes))
        .await
}

#[tokio::test]
async fn a_restore_begins_an_epoch_and_agents_get_everything() {
    let (server, client) = one().await;
    ok(&client
        .put("/v1/intentions/web/db", json!({"action": "allow"}))
        .await);
    let roots = client.get("/v1/ca/roots?pem=true").await.text;
    let saved = client.get("/v1/snapshot").await;
    assert_eq!(saved.header("content-type"), "application/octet-stream");
    let epoch = saved.header("x-meshctl-epoch");
    ok(&client.delete("/v1/intentions/web/db").await);

    let mut agent = Agent::connect(&server, "n1").await;
    agent.subscribe(&["mesh", "intentions/default/db"]).await;
    assert_eq!(agent.body("intentions/default/db").await, json!([]));
    let before = client.get("/v1/intentions").await;
    let waiting = tokio::spawn({
        let client = client.clone();
        let path = format!("/v1/mesh?index={}&epoch={epoch}&wait=60s", before.index());
        async move { client.get(&path).await }
    });
    let restored = ok(&restore(&client, saved.text.clone().into_bytes()).await);
    assert_ne!(restored["epoch"], epoch);
    assert!(restored["index"].as_u64().unwrap() > before.index());

    // Also what is as it was.
    assert_eq!(agent.body("mesh").await["default_intention"], "deny");
    assert_eq!(
        agent.body("intentions/default/db").await[0]["action"],
        "allow"
    );
    let mark = agent.mark().await;
    assert_eq!(mark.epoch, restored["epoch"].as_str().unwrap());
    assert_eq!(waiting.await.unwrap().header("x-meshctl-epoch"), mark.epoch);
    assert_eq!(
        ok(&client.get("/v1/intentions").await)
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(client.get("/v1/ca/roots?pem=true").await.text, roots);

    // Into another cluster: its identity comes along.
    let (other, into) = one().await;
    ok(&restore(&into, saved.text.clone().into_bytes()).await);
    assert_eq!(into.get("/v1/ca/roots?pem=true").await.text, roots);
    assert_eq!(ok(&into.get("/v1/ca/status").await)["ready"], true);
    other.shutdown().await;
    server.shutdown().await;
}

/// The snapshot of a state that makes many pieces.
async fn large(server: &crate::Server) -> String {
    for number in 0..4 {
        let config = mesh_state::ConfigEntry {
            key: mesh_state::ConfigKey {
                kind: "service-defaults".into(),
                key: mesh_model::Key::new("default", format!("s{number}")),
            },
            text: "x".repeat(2 << 20),
            rows: Vec::new(),
        };
        let command = Command::Transaction {
            ops: vec![mesh_state::Op::PutConfig {
                entry: config,
                cas: None,
            }],
            owner: "cli".into(),
            force: false,
        };
        server.core.write(command).await.unwrap();
    }
    let text = server.core.store.state().to_snapshot().unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_restore_that_nobody_waits_for_leaves_nothing() {
    let (server, client) = one().await;
    let text = large(&server).await;
    let epoch = server.core.store.state().version().epoch;
    let staged = || {
        let state = server.core.store.state();
        state.restoring().map_or(0, |(_, pieces)| pieces)
    };
    {
        let mut asked = std::pin::pin!(crate::api::replace(&server.core, text.clone()));
        soon(std::future::poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending(), "it is done already");
            match staged() {
                0 => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(()),
            }
        }))
        .await;
    }
    soon(async {
        while server.core.store.state().restoring().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.core.store.state().version().epoch, epoch);
    // And another one goes as ever.
    ok(&restore(&client, text.into_bytes()).await);
    assert_ne!(server.core.store.state().version().epoch, epoch);
    assert!(server.core.store.state().restoring().is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn the_leader_gives_up_what_does_not_go_on() {
    let clock = ManualClock::default();
    let mut options = options("s1");
    options.clock = Arc::new(clock.clone());
    let (server, _) = start(options).await;
    let text = large(&server).await;
    // As by a server that is gone after its first piece.
    let steps = Command::restore(&text, "r1", "e2").unwrap();
    for step in steps.into_iter().take(2) {
        server.core.write(step).await.unwrap();
    }
    assert_eq!(server.core.store.state().restoring(), Some(("r1", 1)));
    let begin = clock.monotonic();
    soon(async {
        while server.core.store.state().restoring().is_some() {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    })
    .await;
    let after = clock.monotonic() - begin;
    assert!(after > Duration::from_secs(50), "after {after:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_damaged_snapshot_changes_nothing() {
    let (server, client) = one().await;
    ok(&client.put("/v1/services/web", json!({})).await);
    let saved = client.get("/v1/snapshot").await.text;
    let epoch = client.get("/v1/services").await.header("x-meshctl-epoch");
    let half = saved[..saved.len() / 2].to_owned();
    for damaged in [
        String::new(),
        "nothing".to_owned(),
        half,
        saved.replacen("web", "wem", 1),
    ] {
        let answer = restore(&client, damaged.into_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid"));
    }
    let after = client.get("/v1/services").await;
    assert_eq!(after.header("x-meshctl-epoch"), epoch);
    assert_eq!(after.json()[0]["name"], "web");
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_goes_on_with_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let begin = || {
        let mut options = options("s1");
        options.data_dir = Some(dir.path().to_owned());
        options
    };
    let (server, client) = start(begin()).await;
    ok(&client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    let (id, roots) = (server.id(), client.get("/v1/ca/roots").await.text);
    let epoch = client.get("/v1/status").await.json()["epoch"].clone();
    server.shutdown().await;

    // Whatever stands in its configuration.
    let later = ServerOptions {
        formation: Formation::Join,
        retry_join: Vec::new(),
        ..begin()
    };
    let (server, client) = start(later).await;
    assert_eq!(server.id(), id);
    assert_eq!(
        ok(&client.get("/v1/services/web").await)["protocol"],
        "http"
    );
    assert_eq!(client.get("/v1/ca/roots").await.text, roots);
    assert_eq!(client.get("/v1/status").await.json()["epoch"], epoch);
    server.shutdown().await;
}

#[tokio::test]
async fn one_that_is_to_join_nobody_and_has_no_data_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        data_dir: Some(dir.path().to_owned()),
        formation: Formation::Join,
        ..options("s1")
    };
    let error = Server::start(options).await.unwrap_err().to_string();
    assert!(error.contains("retry_join: is empty"), "{error}");
    // The folder is free again.
    let options = ServerOptions {
        data_dir: Some(dir.path().to_owned()),
        ..super::harness::options("s1")
    };
    let (server, _) = start(options).await;
    server.shutdown().await;
}

/// Finds a secret of 32 bytes, in whatever it is packed: raw, as in DER; hex; base64.
fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    // Whole groups of three, wherever in a longer text it begins.
    let base64 = (0..3).map(|skip| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(&secret[skip..skip + 27])
    });
    let mut needles: Vec<Vec<u8>> = base64.map(String::into_bytes).collect();
    needles.extend([secret.to_vec(), hex.to_uppercase().into(), hex.into()]);
    let found = |needle: &Vec<u8>| bytes.windows(needle.len()).any(|at| at == needle);
    needles.iter().any(found)
}

/// The number that is the key, out of its PKCS #8 (RFC 5915: an octet string of 32).
fn scalar(der: &[u8]) -> Vec<u8> {
    let at = der
        .windows(2)
        .position(|head| head == [0x04, 0x20])
        .unwrap();
    der[at + 2..at + 34].to_vec()
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

#[tokio::test]
async fn private_keys_leave_the_process_only_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options("s1");
    options.data_dir = Some(dir.path().to_owned());
    let (server, client) = start(options).await;
    let state = server.core.store.state();
    let ca = crate::ca::read_state(&state.ca().unwrap().value).unwrap();
    let intermediate = ca.intermediate.unwrap();
    let root = ca.roots.iter().find(|root| root.active).unwrap();
    let root_key = ca.root_key.unwrap();
    let sealed = [
        ("root key", &root.id, &root_key),
        (
            "intermediate key",
            &intermediate.id,
            intermediate.key.as_ref().unwrap(),
        ),
    ];
    let secrets = sealed.map(|(purpose, name, sealed)| {
        let der = super::harness::sealing()
            .open(purpose, name, sealed)
            .unwrap();
        let secret = scalar(&der);
        // What is looked for would be found.
        use base64::Engine;
        let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
        assert!(holds(&der, &secret) && holds(base64.as_bytes(), &secret));
        secret
    });
    assert_ne!(secrets[0], secrets[1]);

    server
        .core
        .raft
        .trigger_snapshot(super::harness::SOON)
        .await
        .unwrap();
    let mut looked = Vec::new();
    let document = crate::openapi();
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_some() && !path.contains('{') {
            let answer = client.get(path).await;
            looked.push((path.clone(), answer.text.into_bytes()));
        }
    }
    for file in files(dir.path()) {
        looked.push((file.display().to_string(), std::fs::read(file).unwrap()));
    }
    let names: Vec<&String> = looked.iter().map(|(name, _)| name).collect();
    for expected in ["/v1/snapshot", "/v1/ca/status", "log.redb", ".snap"] {
        let is_there = names.iter().any(|name| name.ends_with(expected));
        assert!(is_there, "{expected} is not among {names:?}");
    }
    for (name, bytes) in &looked {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "a private key is in {name}");
        }
    }
    let (_, snapshot) = looked.iter().find(|one| one.0 == "/v1/snapshot").unwrap();
    let snapshot = String::from_utf8_lossy(snapshot);
    assert!(
        snapshot.contains(&root_key.ciphertext),
        "it has them sealed"
    );
    server.shutdown().await;
}

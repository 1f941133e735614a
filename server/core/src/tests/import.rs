//! A root and an intermediate that somebody has: for a new mesh, and for one that runs.

use std::time::Duration;

use mesh_model::config::CaImport;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::harness::{Client, ok, one, one_with, soon};
use crate::Server;

/// A root, and what of it is wanted.
struct Corp {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Corp {
    fn new() -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), authority("Corp root", 1));
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { root, issuer }
    }

    /// A new intermediate: the chain, and its key.
    fn intermediate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let made = authority("Corp mesh", 0).signed_by(&key, &self.issuer);
        let chain = made.unwrap().pem() + &self.root;
        (chain, key.serialize_pem())
    }
}

fn body((certificates, key): &(String, String)) -> Value {
    json!({"certificates": certificates, "key": key})
}

async fn until_root_of(client: &Client, pem: &str) {
    soon(async {
        loop {
            let roots = ok(&client.get("/v1/ca/roots").await);
            let active = roots["roots"].as_array().unwrap().clone();
            let active = active.iter().find(|root| root["active"] == true).unwrap();
            if active["pem"].as_str().unwrap().trim() == pem.trim() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Neither the state nor what is told has a line of the key.
async fn no_key(server: &Server, client: &Client, key: &str) {
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let state = server.core.store.state();
    let row = state.ca().unwrap().value.to_string();
    let told = client.get("/v1/ca/status").await.text;
    assert!(
        !lines
            .iter()
            .any(|line| row.contains(line) || told.contains(line))
    );
}

#[tokio::test]
async fn a_mesh_that_runs_changes_to_it_and_later_to_its_next_intermediate() {
    let (server, client) = one().await;
    let corp = Corp::new();
    let first = corp.intermediate();
    let plan = ok(&client
        .post("/v1/ca/import?dry_run=true", body(&first))
        .await);
    assert_eq!(
        (&plan["rotates"], &plan["index"]),
        (&json!(true), &json!(0))
    );
    let plan = ok(&client.post("/v1/ca/import", body(&first)).await);
    assert_eq!(
        plan["changes"],
        json!(["the root CN=Corp root is taken over"])
    );
    // Nobody is there who is waited for.
    until_root_of(&client, &corp.root).await;
    let status = ok(&client.get("/v1/ca/status").await);
    assert_eq!(status["root_key"], "elsewhere");
    assert_eq!(
        (&status["ready"], &status["problem"]),
        (&json!(true), &Value::Null)
    );
    no_key(&server, &client, &first.1).await;

    // The next one of the same root is no change of the root; the same again is nothing.
    let second = corp.intermediate();
    let plan = ok(&client.post("/v1/ca/import", body(&second)).await);
    assert_eq!(plan["rotates"], json!(false));
    let again = ok(&client.post("/v1/ca/import", body(&second)).await);
    assert_eq!(
        (&again["changes"], &again["index"]),
        (&json!([]), &json!(0))
    );
    assert_eq!(ok(&client.get("/v1/ca/status").await)["ready"], json!(true));

    // What does not fit changes nothing, and tells nothing of a key.
    let index = server.core.store.state().ca().unwrap().modify_index;
    let swapped = (second.0.clone(), first.1.clone());
    let refused = client.post("/v1/ca/import", body(&swapped)).await;
    assert_eq!(refused.code(), "conflict");
    assert!(
        refused.text.contains("it is not the key of certificate 1"),
        "{}",
        refused.text
    );
    let refused = client
        .post(
            "/v1/ca/import",
            json!({"certificates": second.1, "key": second.0}),
        )
        .await;
    assert_eq!(refused.code(), "invalid");
    assert!(refused.text.contains("swapped"), "{}", refused.text);
    let line = second.1.lines().nth(1).unwrap();
    let refused = client
        .post("/v1/ca/import", json!({"key": {"a": line}}))
        .await;
    assert_eq!(refused.code(), "invalid");
    assert!(!refused.text.contains(line), "{}", refused.text);
    assert_eq!(server.core.store.state().ca().unwrap().modify_index, index);

    // And back to a root of the servers' own.
    ok(&client.post("/v1/ca/rotate", json!(null)).await);
    soon(async {
        while ok(&client.get("/v1/ca/status").await)["root_key"] != "sealed" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_new_mesh_begins_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let corp = Corp::new();
    let (chain, key) = corp.intermediate();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = CaImport {
        cert_file: file("chain.pem", &chain),
        key_file: file("key.pem", &key),
        root_key_file: None,
    };
    let (server, client) = one_with(|options| options.import = Some(files)).await;
    until_root_of(&client, &corp.root).await;
    let roots = ok(&client.get("/v1/ca/roots").await);
    assert_eq!(roots["roots"].as_array().unwrap().len(), 1);
    no_key(&server, &client, &key).await;
    server.shutdown().await;
}

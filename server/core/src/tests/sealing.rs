//! The CA's keys change their sealing key.

use std::sync::Arc;

use mesh_ca::SealingKey;
use serde_json::{Value, json};

use super::harness::{Client, cluster, ok, one, one_with, sealing, start, together};

async fn told(client: &Client) -> Value {
    ok(&client.get("/v1/ca/status").await)["sealing"].clone()
}

#[tokio::test]
async fn to_another_file_of_which_the_old_may_then_go() {
    let new = Arc::new(SealingKey::generate().unwrap());
    let file = new.clone();
    let (server, client) = one_with(|options| options.sealing.files.push(file)).await;
    assert_eq!(told(&client).await["key_id"], sealing().id());
    // The first is the one that seals: nothing changes.
    let same = ok(&client.post("/v1/ca/reseal", json!({"to": "file"})).await);
    assert_eq!((&same["changes"], &same["index"]), (&json!([]), &json!(0)));
    let core = &server.core;
    let state = core.store.state();
    let ca: mesh_ca::CaState = serde_json::from_value(state.ca().unwrap().value.clone()).unwrap();
    let next = mesh_ca::reseal(&ca, &sealing(), &new).unwrap();
    let command = mesh_state::Command::PutCa {
        value: serde_json::to_value(next).unwrap(),
        cas: Some(state.ca().unwrap().modify_index),
    };
    core.write(command).await.unwrap();
    assert_eq!(told(&client).await["key_id"], new.id());
    assert_eq!(ok(&client.get("/v1/ca/status").await)["ready"], true);
    // Back, by the API: conditional, and a dry run writes nothing.
    let back = json!({"to": "file"});
    let dry = ok(&client
        .post("/v1/ca/reseal?dry_run=true", back.clone())
        .await);
    assert_eq!(dry["index"], 0);
    assert_eq!(
        client
            .post("/v1/ca/reseal?cas=1", back.clone())
            .await
            .code(),
        "conflict"
    );
    ok(&client.post("/v1/ca/reseal", back).await);
    assert_eq!(told(&client).await["key_id"], sealing().id());
    let row = server.core.store.state().ca().unwrap().value.to_string();
    assert!(!row.contains(new.id()));
    server.shutdown().await;
}

#[tokio::test]
async fn not_while_a_server_could_not_open_it() {
    let new = Arc::new(SealingKey::generate().unwrap());
    let mut options = together(3);
    // All but the last have both; the new one is first at the one that is asked.
    let old = options[0].sealing.files.clone();
    options[1].sealing.files.push(new.clone());
    let mut starting = Vec::new();
    options[0].sealing.files = vec![old[0].clone(), new.clone()];
    for one in options {
        starting.push(start(one));
    }
    let servers = futures::future::join_all(starting).await;
    // What the API of a server does whose first key is the new one.
    let core = &servers[0].0.core;
    let refused = crate::ca::reseal::all_open(core, &new.sealed_with()).await;
    let words = refused.unwrap_err();
    assert!(
        words.starts_with("server s3: ") && words.contains(new.id()),
        "{words}"
    );
    assert!(
        crate::ca::reseal::all_open(core, &old[0].sealed_with())
            .await
            .is_ok()
    );
    for (server, _) in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (server, client) = one().await;
    let refused = client.post("/v1/ca/reseal", json!({"to": "transit"})).await;
    assert_eq!(refused.code(), "conflict");
    assert!(
        refused.text.contains("sealing { transit"),
        "{}",
        refused.text
    );
    let refused = client.post("/v1/ca/reseal", json!({"to": "paper"})).await;
    assert_eq!(refused.code(), "invalid");
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_cannot_open_serves_all_else_and_says_so() {
    let servers = cluster(1).await;
    let (server, client) = &servers[0];
    let other = SealingKey::generate().unwrap();
    let state = server.core.store.state();
    let ca: mesh_ca::CaState = serde_json::from_value(state.ca().unwrap().value.clone()).unwrap();
    let next = mesh_ca::reseal(&ca, &sealing(), &other).unwrap();
    let command = mesh_state::Command::PutCa {
        value: serde_json::to_value(next).unwrap(),
        cas: None,
    };
    server.core.write(command).await.unwrap();
    let shown = told(client).await;
    assert_eq!(shown["opens"], false);
    assert!(shown["problem"].as_str().unwrap().contains(other.id()));
    assert!(
        client
            .get("/metrics")
            .await
            .text
            .contains("meshctl_server_ca_opens 0")
    );
    ok(&client.get("/v1/ca/roots").await);
    ok(&client.get("/v1/catalog/nodes").await);
    for (server, _) in servers {
        server.shutdown().await;
    }
}

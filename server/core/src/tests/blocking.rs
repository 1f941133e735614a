//! Blocking queries: they end by what they read, and by nothing else.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{ok, one};

#[tokio::test]
async fn only_what_is_read_wakes() {
    let (server, client) = one().await;
    ok(&client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    let first = client.get("/v1/services/web").await;
    let path = format!("/v1/services/web?index={}&wait=60s", first.index());
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.get(&path).await });
    // Others may change as they like.
    while server.core.store.watch_count() == 0 {
        tokio::task::yield_now().await;
    }
    for number in 0..5 {
        ok(&client
            .put(&format!("/v1/services/other{number}"), json!({}))
            .await);
        ok(&client
            .put(
                &format!("/v1/intentions/a{number}/web"),
                json!({"action": "allow"}),
            )
            .await);
    }
    assert_eq!(
        server.core.store.watch_count(),
        1,
        "woken by another's change"
    );
    assert!(!waiting.is_finished());
    let wrote = ok(&client
        .put("/v1/services/web", json!({"protocol": "grpc"}))
        .await);
    let answer = waiting.await.unwrap();
    assert_eq!(ok(&answer)["protocol"], "grpc");
    assert_eq!(answer.index(), wrote["index"].as_u64().unwrap());
    server.shutdown().await;
}

#[tokio::test]
async fn a_deletion_wakes_and_the_index_does_not_go_back() {
    let (server, client) = one().await;
    ok(&client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    ok(&client.put("/v1/routes/web", json!({"rules": []})).await);
    let first = client.get("/v1/routes").await.index();
    let path = format!("/v1/routes/web?index={first}&wait=60s");
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.get(&path).await });
    ok(&client.delete("/v1/routes/web").await);
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 404);
    assert!(client.get("/v1/routes").await.index() > first);
    server.shutdown().await;
}

#[tokio::test]
async fn it_ends_at_its_time() {
    let (server, client) = one().await;
    let index = client.get("/v1/routes").await.index();
    let begin = Instant::now();
    let answer = client
        .get(&format!("/v1/routes?index={index}&wait=200ms"))
        .await;
    assert_eq!(answer.index(), index);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_not_of_this_state_is_answered_at_once() {
    let (server, client) = one().await;
    let ahead = client.get("/v1/routes?index=999999&wait=10m").await;
    assert!(ahead.index() < 999_999);
    let index = ahead.index();
    let other = client
        .get(&format!("/v1/routes?index={index}&epoch=other&wait=10m"))
        .await;
    assert_eq!(other.index(), index);
    server.shutdown().await;
}

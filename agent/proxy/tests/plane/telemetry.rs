//! What the proxy says about what it did.

use std::sync::{Arc, Mutex};

use mesh_model::Protocol;
use mesh_proxy::AccessLog;
use serde_json::Value;

use crate::support::*;

#[tokio::test]
async fn a_line_and_a_count_for_each_request() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut options = options();
    let written = lines.clone();
    options.access_log = AccessLog::To(Arc::new(move |bytes| {
        written.lock().unwrap().extend_from_slice(bytes);
    }));
    let pair = Pair::with(Protocol::Http, telling("api").await, options, |_| {}).await;
    let mut client = Client::h1(pair.address).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut traced = request("POST", "/a/../b?secret=1", "hello");
    traced
        .headers_mut()
        .insert("traceparent", parent.parse().unwrap());
    traced
        .headers_mut()
        .insert("tracestate", "v=1".parse().unwrap());
    let got = read(client.send(traced).await).await;
    let seen = got.json()["headers"]["traceparent"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(seen[..36], parent[..36]);
    assert_ne!(seen[36..52], parent[36..52]);
    assert_eq!(got.json()["headers"]["tracestate"], "v=1");
    pair.api.apply_policy(&policy("deny", &[]));
    assert_eq!(client.get("/b").await.status, 403);
    for plane in [&pair.web, &pair.api] {
        in_time(plane.drain(std::time::Duration::from_millis(200))).await;
    }

    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "{text}");
    for line in &lines {
        assert_eq!(
            (&line["source"], &line["destination"]),
            (&"web".into(), &"api".into())
        );
        assert_eq!(line["path"], "/b");
        assert!(!line["time"].as_str().unwrap().is_empty() && line["duration_ms"].is_number());
    }
    let find = |direction: &str, status: u16| {
        let found = lines
            .iter()
            .find(|line| line["direction"] == direction && line["status"] == status);
        found.unwrap_or_else(|| panic!("{direction} {status}: {text}"))
    };
    let out = find("outbound", 200);
    assert_eq!(out["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(out["instance"], "node/api-0");
    assert_eq!(out["request_bytes"], 5);
    let denied = find("inbound", 403);
    assert!(
        denied["reason"]
            .as_str()
            .unwrap()
            .contains("no intention matches")
    );

    let metrics = pair.api.metrics();
    for series in [
        "mesh_requests_total{direction=\"inbound\",source=\"web\",destination=\"api\",protocol=\"http\",code=\"200\"} 1",
        "mesh_requests_total{direction=\"inbound\",source=\"web\",destination=\"api\",protocol=\"http\",code=\"403\"} 1",
        "mesh_request_bytes_total{direction=\"inbound\",source=\"web\",destination=\"api\",protocol=\"http\"} 5",
        "mesh_denied_total{source=\"web\",destination=\"api\",intention=\"default\"} 1",
        "mesh_request_duration_seconds_count{direction=\"inbound\",source=\"web\",destination=\"api\",protocol=\"http\"} 2",
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
    assert!(metrics.contains("mesh_leaf_expiry_timestamp_seconds "));
}

#[tokio::test]
async fn the_shape_of_a_snapshot() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let snapshot = serde_json::to_value(pair.web.snapshot()).unwrap();
    assert_eq!(snapshot["config"]["service"]["name"], "web");
    assert_eq!(snapshot["listeners"][0]["to"]["upstream"]["name"], "api");
    assert_eq!(
        snapshot["listeners"][0]["address"],
        pair.address.to_string()
    );
    assert_eq!(snapshot["draining"], false);
}

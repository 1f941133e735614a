//! Consul's config entries, and the rows that they are.

use reqwest::Method;
use serde_json::json;

use super::harness::{Answer, Client, ok, one};

async fn write(client: &Client, query: &str, text: &'static str) -> Answer {
    let request = client.request(Method::PUT, &format!("/v1/config{query}"));
    client.send(request.body(text)).await
}

const DEFAULTS: &str = "Kind = \"service-defaults\"\nName = \"web\"\nProtocol = \"http\"\n";
const RESOLVER: &str = r#"{"Kind": "service-resolver", "Name": "web",
  "Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}}}"#;
const ROUTER: &str = r#"{"Kind": "service-router", "Name": "web", "Routes": [
  {"Match": {"HTTP": {"PathPrefix": "/v1/"}}, "Destination": {"ServiceSubset": "v1"}}]}"#;

#[tokio::test]
async fn an_entry_is_kept_word_for_word_beside_its_rows() {
    let (server, client) = one().await;
    let made = ok(&write(&client, "?cas=0", DEFAULTS).await);
    assert_eq!(
        (&made["change"], &made["kind"]),
        (&json!("created"), &json!("service-defaults"))
    );
    assert_eq!(
        client
            .get("/v1/config/service-defaults/web?raw=true")
            .await
            .text,
        DEFAULTS
    );
    let entry = ok(&client.get("/v1/config/service-defaults/web").await);
    let service = json!({"service": {"namespace": "default", "name": "web"}});
    assert_eq!(entry["rows"], json!([service]));
    assert_eq!(
        ok(&client.get("/v1/services/web").await)["protocol"],
        "http"
    );
    assert_eq!(write(&client, "?cas=0", DEFAULTS).await.code(), "conflict");

    // Two entries, one row; and a route.
    ok(&write(&client, "", RESOLVER).await);
    ok(&write(&client, "", ROUTER).await);
    let row = ok(&client.get("/v1/services/web").await);
    assert_eq!(
        (&row["protocol"], row["subsets"].get("v1").is_some()),
        (&json!("http"), true)
    );
    assert_eq!(
        ok(&client.get("/v1/routes/web").await)["rules"][0]["to"][0]["subset"],
        "v1"
    );
    assert_eq!(
        ok(&client.get("/v1/config").await)
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        ok(&client.get("/v1/config/service-router").await)
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // The router needs the subset.
    let refused = client.delete("/v1/config/service-resolver/web").await;
    assert_eq!(refused.code(), "dangling_reference", "{}", refused.text);
    ok(&client.delete("/v1/config/service-router/web").await);
    assert_eq!(client.get("/v1/routes/web").await.status, 404);
    ok(&client.delete("/v1/config/service-resolver/web").await);
    let row = ok(&client.get("/v1/services/web").await);
    assert_eq!(
        (&row["protocol"], row.get("subsets")),
        (&json!("http"), None)
    );
    ok(&client.delete("/v1/config/service-defaults/web").await);
    assert_eq!(client.get("/v1/services/web").await.status, 404);
    server.shutdown().await;
}

#[tokio::test]
async fn what_we_do_not_have_is_refused_by_name() {
    let (server, client) = one().await;
    let strange = r#"{"Kind": "service-defaults", "Name": "web", "MaxInboundConnections": 3}"#;
    let refused = write(&client, "", strange).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid"));
    assert!(
        refused.text.contains("MaxInboundConnections"),
        "{}",
        refused.text
    );
    let later = write(&client, "", r#"{"Kind": "ingress-gateway", "Name": "in"}"#).await;
    assert!(later.text.contains("ingress-gateway"), "{}", later.text);
    assert_eq!(write(&client, "", "{").await.code(), "invalid");
    assert_eq!(
        client.get("/v1/config/ingress-gateway").await.code(),
        "invalid_request"
    );
    assert_eq!(
        client.get("/v1/config/service-router/web").await.code(),
        "not_found"
    );
    server.shutdown().await;
}

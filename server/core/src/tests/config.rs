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
    let later = write(&client, "", r#"{"Kind": "api-gateway", "Name": "in"}"#).await;
    assert!(later.text.contains("api-gateway"), "{}", later.text);
    assert_eq!(write(&client, "", "{").await.code(), "invalid");
    assert_eq!(
        client.get("/v1/config/api-gateway").await.code(),
        "invalid_request"
    );
    assert_eq!(
        client.get("/v1/config/service-router/web").await.code(),
        "not_found"
    );
    server.shutdown().await;
}

const INGRESS: &str = r#"{"Kind":"ingress-gateway","Name":"edge","TLS":{"Enabled":false},"Listeners":
  [{"Port":8080,"Protocol":"tcp","Services":[{"Name":"db","Hosts":null,"TLS":{"SDS":{}}}]}]}"#;

#[tokio::test]
async fn a_gateway_is_an_ingress_or_terminating() {
    let (server, client) = one().await;
    ok(&write(&client, "", INGRESS).await);
    let gateway = ok(&client.get("/v1/gateways/edge").await);
    assert_eq!(gateway["ingress"]["listeners"][0]["port"], 8080);
    assert_eq!(gateway["owner"], "api");
    let other = r#"{"Kind":"terminating-gateway","Name":"edge","Services":[{"Name":"db"}]}"#;
    let refused = write(&client, "", other).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(
        refused
            .text
            .contains("config delete -kind ingress-gateway -name edge")
    );
    // Nomad writes it again with each version of the job.
    assert_eq!(
        ok(&write(&client, "", INGRESS).await)["change"],
        "unchanged"
    );
    ok(&client.delete("/v1/config/ingress-gateway/edge").await);
    assert_eq!(client.get("/v1/gateways/edge").await.status, 404);
    ok(&write(&client, "", other).await);
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_writes_gateways_only_where_the_servers_let_it() {
    use super::agent::client as agent;
    use mesh_proto::servers::v1 as wire;
    for lets in [false, true] {
        let (server, client) = super::harness::one_with(|options| {
            options.agents_write_gateways = lets;
        })
        .await;
        let mut agent = agent(&server, mesh_tls::Role::Agent, "n1");
        let mut put = async |text: &str| {
            let text = text.to_owned();
            let request = wire::WriteConfigRequest { text };
            agent.write_config(request).await.unwrap().into_inner()
        };
        let answer = put(INGRESS).await;
        assert_eq!(answer.status, if lets { 200 } else { 403 });
        let found = client.get("/v1/gateways/edge").await;
        assert_eq!(found.status, if lets { 200 } else { 404 });
        let answer = put(DEFAULTS).await;
        assert_eq!(answer.status, 403, "policy is the operators' alone");
        // One that somebody else wrote stays his.
        let row = json!({"ingress": {"listeners": [{"port": 1, "services": [{"service": {"name": "x"}}]}]}});
        ok(&client.put("/v1/gateways/own", row).await);
        let own = INGRESS.replace("edge", "own");
        assert!(put(&own).await.status >= 400);
        server.shutdown().await;
    }
}

/// What Nomad's servers ask at their own `consul.address` beside writing.
#[tokio::test]
async fn nomads_servers_find_what_they_need() {
    let (server, client) = one().await;
    let own = ok(&client.get("/v1/agent/self").await);
    let all = own.as_object().unwrap();
    assert!(all.values().all(serde_json::Value::is_object), "{own}");
    assert_eq!(own["Config"]["Server"], true);
    server.shutdown().await;
}

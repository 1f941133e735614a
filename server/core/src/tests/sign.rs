//! Leaves: for the proxies of the calling node, with the identity that the state says.

use std::time::SystemTime;

use mesh_proto::servers::v1 as wire;
use mesh_tls::{LeafKey, Role, Trust};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use super::agent::{Agent, client, instance};
use super::harness::{cluster, one};

fn request(proxy: &str) -> wire::SignRequest {
    let key = LeafKey::generate().unwrap();
    wire::SignRequest {
        proxy: proxy.to_owned(),
        csr: key.csr().unwrap(),
    }
}

#[tokio::test]
async fn a_leaf_has_the_identity_of_the_registration() {
    let (server, api) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let signed = agent
        .client
        .sign(request("web-1-sidecar-proxy"))
        .await
        .unwrap();
    let chain: Vec<CertificateDer<'static>> = signed
        .into_inner()
        .chain
        .into_iter()
        .map(Into::into)
        .collect();
    assert_eq!(chain.len(), 2);
    let roots = api.get("/v1/ca/roots?pem=true").await.text;
    let domain = agent.welcome.trust_domain.parse().unwrap();
    let trust = Trust::from_pem(domain, "roots", roots.as_bytes()).unwrap();
    let id = trust.verify(&chain, SystemTime::now()).unwrap();
    let expected = format!(
        "spiffe://{}/ns/default/dc/dc1/svc/web",
        agent.welcome.trust_domain
    );
    assert_eq!(id.as_str(), expected);
    let metrics = api.get("/metrics").await.text;
    assert!(
        metrics.contains("ca_signs_total{outcome=\"ok\"} 1"),
        "{metrics}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn nobody_signs_for_another() {
    let (server, _) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let mut other = client(&server, Role::Agent, "n2");
    let foreign = other
        .sign(request("web-1-sidecar-proxy"))
        .await
        .unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
    let unknown = agent.client.sign(request("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let damaged = wire::SignRequest {
        proxy: "web-1-sidecar-proxy".into(),
        csr: vec![1, 2, 3],
    };
    let damaged = agent.client.sign(damaged).await.unwrap_err();
    assert_eq!(damaged.code(), Code::InvalidArgument);
    server.shutdown().await;
}

#[tokio::test]
async fn any_server_signs_at_once_for_what_another_registered() {
    let servers = cluster(3).await;
    let mut agent = Agent::connect(&servers[0].0, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    for (server, _) in &servers {
        let mut elsewhere = client(server, Role::Agent, "n1");
        let signed = elsewhere
            .sign(request("web-1-sidecar-proxy"))
            .await
            .unwrap();
        assert_eq!(signed.into_inner().chain.len(), 2);
    }
    for (server, _) in servers {
        server.shutdown().await;
    }
}

//! Leaves: for the proxies of the calling node, with the identity that the state says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_ca::{Authority, AuthorityError, AuthorityStatus, IssuedLeaf, LeafRequest, RootEntry};
use mesh_proto::servers::v1 as wire;
use mesh_tls::{LeafKey, Role, Trust, TrustDomain};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use super::agent::{Agent, client, instance};
use super::harness::{cluster, one, soon, start, together};
use crate::Formation;

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

/// Its agents need not know: the others sign.
#[tokio::test]
async fn a_server_that_cannot_open_the_keys_has_another_one_sign() {
    let closed = Arc::new(mesh_ca::SealingKey::generate().unwrap());
    // The first makes the CA; the others have another key.
    let mut servers = Vec::new();
    for (place, mut options) in together(3).into_iter().enumerate() {
        options.formation = match place {
            0 => Formation::Bootstrap,
            _ => Formation::Join,
        };
        if place > 0 {
            options.sealing.files = vec![closed.clone()];
        }
        servers.push(start(options).await);
        soon(async {
            while servers[0].0.core.store.state().ca().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    let (server, api) = servers.pop().unwrap();
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let wish = request("web-1-sidecar-proxy");
    let signed = agent.client.sign(wish).await.unwrap().into_inner();
    let chain: Vec<CertificateDer<'static>> = signed.chain.into_iter().map(Into::into).collect();
    let roots = api.get("/v1/ca/roots?pem=true").await.text;
    let domain = agent.welcome.trust_domain.parse().unwrap();
    let trust = Trust::from_pem(domain, "roots", roots.as_bytes()).unwrap();
    let id = trust.verify(&chain, SystemTime::now()).unwrap();
    assert!(id.as_str().ends_with("/svc/web"), "{id}");
    let metrics = api.get("/metrics").await.text;
    assert!(metrics.contains("ca_signs_total{outcome=\"passed_on\"} 1"));
    // A refusal is as it would be here, and of another node's proxy nothing is signed.
    let unknown = agent.client.sign(request("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut other = client(&server, Role::Agent, "n2");
    let foreign = other.sign(request("web-1-sidecar-proxy")).await;
    assert_eq!(foreign.unwrap_err().code(), Code::NotFound);
    // It says so.
    let status = api.get("/v1/ca/status").await.json();
    assert_eq!(status["ready"], false);
    let told = status["warnings"].to_string();
    assert!(told.contains("passes on to the other servers"), "{told}");
    // Only a server may ask for another node.
    let channel = super::agent::channel(&server, Role::Agent, "n1");
    let mut peers = wire::peers_client::PeersClient::new(channel);
    let wish = wire::SignForRequest {
        node: "n1".into(),
        wish: Some(request("web-1-sidecar-proxy")),
    };
    let refused = peers.sign_for(wish).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Without the one that can, the others say what each of them needs.
    servers.remove(0).0.shutdown().await;
    let refused = agent.client.sign(request("web-1-sidecar-proxy")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let words = refused.message();
    assert!(
        words.contains("server s2: ") && words.contains(closed.id()),
        "{words}"
    );
    server.shutdown().await;
    for (server, _) in servers {
        server.shutdown().await;
    }
}

/// A thousand sidecars that start at once ask for more than a second's worth: they wait their turn.
#[tokio::test]
async fn a_herd_gets_its_leaves() {
    let (server, _) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let herd = (0..1_000).map(|_| {
        let mut client = agent.client.clone();
        async move { client.sign(request("web-1-sidecar-proxy")).await }
    });
    let signed = futures::future::join_all(herd).await;
    let refused: Vec<_> = signed.into_iter().filter_map(Result::err).collect();
    assert!(
        refused.is_empty(),
        "{} of them: {:?}",
        refused.len(),
        refused[0]
    );
    server.shutdown().await;
}

/// By the agent's certificate and the native instance that its node has registered.
#[tokio::test]
async fn a_native_instance_is_signed_for_by_its_own_id() {
    let (server, api) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    let mut native = instance("n1", "web", "web-1");
    native.proxy = Some(mesh_model::ProxyEndpoint {
        id: "web-1".into(),
        address: "10.0.0.9".into(),
        port: 0, // it calls and is not called
        native: true,
    });
    agent.put(&native).await;
    let plain = mesh_model::Instance {
        proxy: None,
        ..instance("n1", "web", "web-2")
    };
    agent.put(&plain).await;
    let signed = agent.client.sign(request("web-1")).await.unwrap();
    assert_eq!(signed.into_inner().chain.len(), 2);
    for (node, id) in [("n1", "web-2"), ("n2", "web-1")] {
        let mut other = client(&server, Role::Agent, node);
        let refused = other.sign(request(id)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{node} {id}");
    }
    let shown = api.get("/v1/catalog/services/web").await.json();
    assert_eq!(shown[0]["proxy"]["native"], true, "{shown}");
    // A sidecar without a port could not be called, and would be in everybody's list.
    let mut wrong = instance("n1", "web", "web-3");
    if let Some(proxy) = &mut wrong.proxy {
        proxy.port = 0;
    }
    let bytes = serde_json::to_vec(&wrong).unwrap();
    let refused = agent.change(wire::catalog::Change::Put(bytes)).await.error;
    assert!(refused.contains("port: it is 0"), "{refused}");
    agent.subscribe(&["endpoints/default/web"]).await;
    let endpoints = agent.body("endpoints/default/web").await;
    assert_eq!(
        endpoints,
        serde_json::json!([]),
        "one has no port, one is not in the mesh"
    );
    if let Some(proxy) = &mut native.proxy {
        proxy.port = 8443;
    }
    agent.put(&native).await;
    let endpoints = agent.body("endpoints/default/web").await;
    assert_eq!(
        (&endpoints[0]["native"], &endpoints[0]["port"]),
        (&true.into(), &8443.into())
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

/// An authority elsewhere that says this to every request; `None`: nothing.
#[derive(Debug)]
struct Says(TrustDomain, Option<AuthorityError>);

#[tonic::async_trait]
impl Authority for Says {
    fn provider(&self) -> &'static str {
        "fake"
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.0
    }

    async fn roots(&self) -> Result<Vec<RootEntry>, AuthorityError> {
        Ok(Vec::new())
    }

    async fn sign_leaf(&self, _: &LeafRequest) -> Result<IssuedLeaf, AuthorityError> {
        match &self.1 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }

    async fn status(&self) -> AuthorityStatus {
        AuthorityStatus {
            provider: "fake".into(),
            healthy: false,
            reason: None,
            active_root: None,
            intermediate_not_after: None,
        }
    }
}

/// The agent must know what to ask again for, and what not.
#[tokio::test]
async fn what_the_authority_says_is_told_apart() {
    let (server, api) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent.put(&instance("n1", "web", "web-1")).await;
    let (provider, reason, retry_after) = ("fake", "because".to_owned(), None);
    let unavailable = AuthorityError::Unavailable {
        provider,
        reason: reason.clone(),
        retry_after,
    };
    let limited = AuthorityError::RateLimited {
        provider,
        reason: reason.clone(),
        retry_after,
    };
    let denied = AuthorityError::Denied {
        provider,
        reason: reason.clone(),
    };
    let invalid = AuthorityError::Invalid { provider, reason };
    let mut failed = 0;
    for (says, code, words) in [
        (Some(unavailable), Code::Unavailable, "because; ask again"),
        (Some(limited), Code::Unavailable, "because; ask again"),
        (None, Code::Unavailable, "did not answer within 10s"),
        (Some(denied), Code::FailedPrecondition, "refused: because"),
        (Some(invalid), Code::InvalidArgument, "because"),
    ] {
        let state = server.core.store.state();
        let domain = agent.welcome.trust_domain.parse().unwrap();
        let authority = Arc::new(Says(domain, says));
        server.core.ca.replace(&state, authority);
        let signing = agent.client.sign(request("web-1-sidecar-proxy"));
        let refused = soon(signing).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
        failed += i32::from(code == Code::Unavailable);
    }
    let metrics = api.get("/metrics").await.text;
    for (outcome, count) in [("failed", failed), ("refused", 2)] {
        let line = format!("ca_signs_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    server.shutdown().await;
}

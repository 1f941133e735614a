//! Nomad's side of workload identity: a key, where it is published, and what is signed with it.

use std::time::UNIX_EPOCH;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_agent::Clock;
use serde_json::{Value, json};

use super::World;

pub struct Nomad {
    key: RsaKeyPair,
    /// Where its API is.
    pub address: String,
}

impl Nomad {
    pub async fn start() -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        // PKCS #1: SEQUENCE { n, e }, with the lengths of a key of 2048 bits.
        let der = key.public_key().as_ref();
        let jwks = json!({"keys": [{
            "kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig",
            "n": URL_SAFE_NO_PAD.encode(&der[9..9 + 256]),
            "e": URL_SAFE_NO_PAD.encode(&der[der.len() - 3..]),
        }]});
        let answer = move || std::future::ready(jwks.to_string());
        let path = "/.well-known/jwks.json";
        let router = axum::Router::new().route(path, axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { key, address }
    }

    /// The identity of a service of an allocation, as Nomad signs it now.
    pub fn identity(&self, world: &World, allocation: &str, service: &str) -> String {
        let now = world.clock.now().duration_since(UNIX_EPOCH).unwrap();
        let now = now.as_secs();
        self.sign(&json!({
            "sub": format!("global:default:job:group:{service}:consul-service_{service}-http"),
            "aud": ["consul.io"], "iat": now, "nbf": now, "exp": now + 3600,
            "nomad_namespace": "default", "nomad_job_id": "job",
            "nomad_allocation_id": allocation, "nomad_service": service,
        }))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "kid": "k1", "typ": "JWT"});
        let said = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        let bytes = said.as_bytes();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
            .unwrap();
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#![allow(clippy::unwrap_used)]
use super::*;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const ALLOC: &str = "6f3b1a2c-0000-4000-8000-000000000001";
const NOW: i64 = 1_800_000_000;

/// Nomad's key, as its JWKS has it and as it signs.
struct Rsa(RsaKeyPair);

impl Rsa {
    fn new(size: KeySize) -> Self {
        Self(RsaKeyPair::generate(size).unwrap())
    }

    /// Of PKCS #1's `SEQUENCE { n, e }`, where the lengths are those of a key of 2048 bits.
    fn key(&self) -> Key {
        let der = self.0.public_key().as_ref();
        Key::Rsa {
            n: der[9..9 + 256].to_vec(),
            e: der[der.len() - 3..].to_vec(),
        }
    }

    fn sign(&self, said: &str) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        let said = said.as_bytes();
        self.0
            .sign(&RSA_PKCS1_SHA256, &random, said, &mut signature)
            .unwrap();
        signature
    }
}

fn said(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn token(said: &str, signature: &[u8]) -> String {
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn rs256() -> Value {
    json!({"alg": "RS256", "kid": "k1", "typ": "JWT"})
}

/// What Nomad says of a service.
fn claims() -> Value {
    json!({"sub": "global:default:countdash:api:count-api:consul-service_count-api-9001",
           "aud": ["consul.io"], "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "jti": "x",
           "nomad_namespace": "default", "nomad_job_id": "countdash",
           "nomad_allocation_id": ALLOC, "nomad_service": "count-api",
           "extra_claims": {"a": "b"}})
}

fn judged(claims: Value, now: i64) -> Result<Workload, String> {
    let claims: Claims = serde_json::from_value(claims).map_err(|e| e.to_string())?;
    claims.workload(&["consul.io".to_owned()], now)
}

#[test]
fn nomads_token_is_read() {
    let rsa = Rsa::new(KeySize::Rsa2048);
    let said = said(&rs256(), &claims());
    let text = token(&said, &rsa.sign(&said));
    let signed = parse(&text).unwrap();
    assert_eq!(signed.kid(), "k1");
    let claims = signed.verify(&rsa.key()).unwrap();
    let workload = claims.workload(&["consul.io".to_owned()], NOW).unwrap();
    let wanted = Workload {
        allocation: ALLOC.into(),
        namespace: "default".into(),
        job: "countdash".into(),
        service: Some("count-api".into()),
        task: None,
    };
    assert_eq!(workload, wanted);
}

#[test]
fn an_old_key_of_nomads_is_ed25519() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = Key::Ed25519(pair.public_key().as_ref().to_vec());
    let said = said(&json!({"alg": "EdDSA", "kid": "k0"}), &claims());
    let text = token(&said, pair.sign(said.as_bytes()).as_ref());
    parse(&text).unwrap().verify(&key).unwrap();
}

#[test]
fn what_nomad_did_not_sign_is_refused() {
    let rsa = Rsa::new(KeySize::Rsa2048);
    let other = Rsa::new(KeySize::Rsa2048);
    let good = said(&rs256(), &claims());
    let signature = rsa.sign(&good);
    let verify = |text: &str| {
        let signed = parse(text)?;
        signed.verify(&rsa.key()).map(drop)
    };
    assert_eq!(verify(&token(&good, &signature)), Ok(()));
    let wrong = "the signature is not that of Nomad's key";
    let mut more = claims();
    more["nomad_service"] = json!("payment");
    let changed = said(&rs256(), &more);
    for (text, reason) in [
        (token(&changed, &signature), wrong),
        (token(&good, &other.sign(&good)), wrong),
        (token(&good, &[]), wrong),
        (token(&good, &signature[..255]), wrong),
    ] {
        assert_eq!(verify(&text).unwrap_err(), reason);
    }

    // The algorithm is the key's: not what a token says of itself.
    let of = |alg: &str| {
        let said = said(&json!({"alg": alg, "kid": "k1"}), &claims());
        let signature = rsa.sign(&said);
        verify(&token(&said, &signature)).unwrap_err()
    };
    for alg in ["none", "HS256", "RS384", "PS256", "ES256", "rs256", ""] {
        assert!(of(alg).contains("only RS256 and EdDSA"), "{alg}");
    }
    assert_eq!(of("EdDSA"), "the algorithm is not that of its key");
    let Key::Rsa { n, .. } = rsa.key() else {
        panic!("not an RSA key");
    };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &n);
    let by_public_key = aws_lc_rs::hmac::sign(&key, good.as_bytes());
    assert_eq!(
        verify(&token(&good, by_public_key.as_ref())).unwrap_err(),
        wrong
    );

    let critical = said(
        &json!({"alg": "RS256", "kid": "k1", "crit": ["b64"]}),
        &claims(),
    );
    let text = token(&critical, &rsa.sign(&critical));
    assert!(verify(&text).unwrap_err().contains("crit"));
}

/// As RFC 8017 is broken by: 1024 bits, which no verifier may take.
#[test]
fn a_short_key_is_refused() {
    // Of a valid form, and too short: what it would verify does not matter.
    let key = Key::Rsa {
        n: vec![0xc3; 128],
        e: vec![1, 0, 1],
    };
    let said = said(&rs256(), &claims());
    let text = token(&said, &[1; 128]);
    assert!(parse(&text).unwrap().verify(&key).is_err());
}

#[test]
fn what_is_no_token_is_refused() {
    for text in ["", "a", "a.b", "a.b.c", "..", "e30.e30.", "💥.e30.e30"] {
        assert!(parse(text).is_err(), "{text}");
    }
    let long = format!("{}.e30.e30", "e".repeat(20_000));
    assert!(parse(&long).unwrap_err().contains("longer"));
}

#[test]
fn claims_say_for_whom_and_when() {
    let with = |name: &str, value: Value| {
        let mut all = claims();
        all[name] = value;
        all
    };
    let without = |name: &str| {
        let mut all = claims();
        all.as_object_mut().unwrap().remove(name);
        all
    };
    // Clocks may be a minute apart; a token need not end.
    for (good, now) in [
        (claims(), NOW),
        (claims(), NOW - 60),
        (claims(), NOW + 3659),
        (with("aud", json!("consul.io")), NOW),
        (with("aud", json!(["other", "consul.io"])), NOW),
        (without("exp"), NOW + 1_000_000),
        (with("nomad_task", json!("api")), NOW),
    ] {
        judged(good.clone(), now).unwrap_or_else(|why| panic!("{good}: {why}"));
    }
    let task = {
        let mut all = without("nomad_service");
        all["nomad_task"] = json!("api");
        judged(all, NOW).unwrap()
    };
    assert_eq!((task.service, task.task.as_deref()), (None, Some("api")));

    for (bad, now, reason) in [
        (claims(), NOW + 3660, "expired"),
        (claims(), NOW - 61, "not valid yet"),
        (with("nbf", json!(NOW + 61)), NOW, "not valid yet"),
        (with("iat", json!(NOW + 61)), NOW, "not valid yet"),
        (with("exp", json!("never")), NOW, "invalid type"),
        (with("exp", json!(i64::MAX)), i64::MAX, "expired"),
        (
            with("aud", json!("nomadproject.io")),
            NOW,
            "not for consul.io",
        ),
        (with("aud", json!([])), NOW, "not for consul.io"),
        (without("aud"), NOW, "not for consul.io"),
        (with("sub", json!("node:default:n1:x")), NOW, "a node's"),
        (without("nomad_allocation_id"), NOW, "nomad_allocation_id"),
        (
            with("nomad_allocation_id", json!("../x")),
            NOW,
            "not an allocation's id",
        ),
        (without("nomad_namespace"), NOW, "nomad_namespace"),
        (with("nomad_job_id", json!("")), NOW, "nomad_job_id"),
        (without("nomad_service"), NOW, "neither"),
        (with("nomad_service", json!("")), NOW, "neither"),
        (
            with("nomad_service", json!("x".repeat(600))),
            NOW,
            "not a name",
        ),
    ] {
        let why = judged(bad.clone(), now).unwrap_err();
        assert!(why.contains(reason), "{bad}: {why}");
    }
}

//! Nomad's public keys (RFC 7517), by their ids.
//!
//! Nomad's keys rotate, and old ones stay until nothing is signed with them. So what was read is
//! kept, and read again when a token names a key that is not there, or after an hour. Whoever may
//! log in could name any key, so there is a time between two readings.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_model::config::NomadConfig;
use mesh_nomad::Nomad;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::LoginError;
use super::jwt::Key;
use crate::AgentError;

/// Where Nomad has them, below its address.
const PATH: &str = "/.well-known/jwks.json";
/// The time between two readings, and after one that failed.
const BETWEEN: Duration = Duration::from_secs(10);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What is older is read again.
const OLD: Duration = Duration::from_secs(3600);

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    nomad: Nomad,
    path: &'static str,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: HashMap<String, Key>,
    read: Option<Instant>,
    /// The next reading is not before, and why the last one failed, if it did.
    pause: Option<(Instant, Option<String>)>,
}

impl Keys {
    pub(super) fn new(config: &NomadConfig) -> Result<Self, AgentError> {
        let ca_file = config.ca_file.as_deref();
        let (nomad, path) = match &config.jwks_url {
            // Elsewhere than Nomad is, its token is nobody's to see.
            Some(url) => (Nomad::new(url, ca_file, None), ""),
            None => {
                let token_file = config.token_file.as_deref();
                (Nomad::new(&config.address, ca_file, token_file), PATH)
            }
        };
        Ok(Self {
            nomad: nomad.map_err(|error| AgentError::Option(error.to_string()))?,
            path,
            inner: Mutex::default(),
        })
    }

    /// The key of this id.
    pub(super) async fn find(&self, kid: &str) -> Result<Key, LoginError> {
        // Who waits here waits for the answer to the same question.
        let mut inner = self.inner.lock().await;
        let old = inner.read.is_none_or(|read| read.elapsed() >= OLD);
        if old || !inner.keys.contains_key(kid) {
            self.read(&mut inner).await;
        }
        if let Some(key) = inner.keys.get(kid) {
            return Ok(key.clone());
        }
        let failed = inner.pause.as_ref().and_then(|(_, failed)| failed.clone());
        Err(match failed {
            Some(reason) => LoginError::Keys(reason),
            None => LoginError::Refused(format!(
                "signed with a key that {} does not have",
                self.nomad.url(self.path)
            )),
        })
    }

    /// Reads them again, unless that was just done. On a failure those that were read stay.
    async fn read(&self, inner: &mut Inner) {
        if let Some((until, _)) = &inner.pause
            && Instant::now() < *until
        {
            return;
        }
        let read = self.fetch().await;
        let now = Instant::now();
        inner.pause = Some(match read {
            Ok(keys) => {
                inner.keys = keys;
                inner.read = Some(now);
                (now + BETWEEN, None)
            }
            Err(reason) => {
                tracing::warn!(reason, "Nomad's keys cannot be read");
                (now + AFTER_FAILURE, Some(reason))
            }
        });
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let body = self.nomad.get(self.path).await;
        let body = body.map_err(|error| error.to_string())?;
        parse(&body).map_err(|reason| format!("{}: {reason}", self.nomad.url(self.path)))
    }
}

#[derive(Debug, Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// A key as it is written. What is not of a known form is not taken, and the others are.
#[derive(Debug, Deserialize)]
struct Written {
    kid: String,
    kty: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
}

pub(super) fn parse(body: &[u8]) -> Result<HashMap<String, Key>, String> {
    let set: Set = serde_json::from_slice(body)
        .map_err(|error| format!("answered with what is not a set of keys: {error}"))?;
    let mut keys = HashMap::new();
    for value in set.keys {
        match Written::deserialize(value).ok().and_then(key) {
            Some((kid, key)) => drop(keys.insert(kid, key)),
            None => tracing::debug!("a key of Nomad's is of no known form, and is left out"),
        }
    }
    Ok(keys)
}

fn key(written: Written) -> Option<(String, Key)> {
    if written.usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let key = match (written.kty.as_str(), written.alg.as_deref()) {
        ("RSA", None | Some("RS256")) => Key::Rsa {
            n: number(&written.n)?,
            e: number(&written.e)?,
        },
        ("OKP", None | Some("EdDSA")) if written.crv == "Ed25519" => {
            Key::Ed25519(number(&written.x)?)
        }
        _ => return None,
    };
    Some((written.kid, key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use serde_json::json;

    #[test]
    fn keys_of_known_forms_are_taken() {
        let set = json!({"keys": [
            {"kid": "rsa", "kty": "RSA", "alg": "RS256", "use": "sig", "n": "AQAB", "e": "AQAB"},
            {"kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": "AQAB"},
            {"kid": "shared", "kty": "oct", "k": "AQAB"},
            {"kid": "other", "kty": "RSA", "alg": "PS256", "n": "AQAB", "e": "AQAB"},
            {"kid": "secrecy", "kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"},
            {"kid": "curve", "kty": "OKP", "crv": "X25519", "x": "AQAB"},
            {"kid": "broken", "kty": "RSA", "n": "!", "e": "AQAB"},
            7,
        ]});
        let keys = parse(set.to_string().as_bytes()).unwrap();
        let mut kids: Vec<_> = keys.keys().map(String::as_str).collect();
        kids.sort_unstable();
        assert_eq!(kids, ["ed", "rsa"]);
        assert!(parse(b"[]").is_err());
    }

    /// Nomad's keys, `old` at the first reading, then also `new`; how often they were read.
    async fn nomad() -> (Keys, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let answer = move || {
            let count = counted.fetch_add(1, Ordering::SeqCst);
            let key = |kid: &str| json!({"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": "AQAB"});
            let keys = match count {
                0 => vec![key("old")],
                _ => vec![key("old"), key("new")],
            };
            std::future::ready(json!({ "keys": keys }).to_string())
        };
        let router = Router::new().route(PATH, axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = NomadConfig {
            address,
            ..NomadConfig::default()
        };
        (Keys::new(&config).unwrap(), reads)
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_again_but_not_at_once() {
        let (keys, reads) = nomad().await;
        let count = || reads.load(Ordering::SeqCst);
        keys.find("old").await.unwrap();
        keys.find("old").await.unwrap();
        assert_eq!(count(), 1);
        for _ in 0..3 {
            let unknown = keys.find("new").await.unwrap_err();
            assert!(matches!(unknown, LoginError::Refused(_)), "{unknown}");
        }
        assert_eq!(count(), 1, "within ten seconds of the last reading");
        keys.inner.lock().await.pause = None; // they are over
        keys.find("new").await.unwrap();
        assert_eq!(count(), 2);
    }

    #[tokio::test]
    async fn without_nomad_what_was_read_is_used() {
        let (mut keys, _) = nomad().await;
        keys.find("old").await.unwrap();
        keys.nomad = Nomad::new("http://127.0.0.1:1", None, None).unwrap();
        let mut inner = keys.inner.lock().await;
        inner.read = None;
        inner.pause = None;
        drop(inner);
        keys.find("old").await.unwrap();
        let failed = keys.find("new").await.unwrap_err();
        assert!(matches!(failed, LoginError::Keys(_)), "{failed}");
    }
}

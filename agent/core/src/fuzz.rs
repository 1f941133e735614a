//! Fuzz targets: what comes over the streams, and Nomad's identities. Plain functions over bytes; a test replays a corpus,
//! and cargo-fuzz can wrap them.

use mesh_model::Version;
use mesh_proto::proxies::v1 as proxies;
use mesh_proto::servers::v1 as servers;
use prost::Message;

use crate::facts::Facts;

/// A message from a server: decoded, and what is a fact taken, or not.
///
/// # Panics
/// When what was taken does not come back: a bug.
pub fn from_server(data: &[u8]) {
    let Ok(message) = servers::ToAgent::decode(data) else {
        return;
    };
    let facts = Facts::in_memory();
    match message.message {
        Some(servers::to_agent::Message::Fact(fact)) => {
            let again = fact.clone();
            let first = facts.put(fact);
            assert_eq!(facts.put(again), first, "the same fact is taken the same");
        }
        Some(servers::to_agent::Message::Mark(mark)) => {
            let version = Version::from(mark.version.unwrap_or_default());
            facts.set_mark(version);
        }
        Some(servers::to_agent::Message::Checksums(sums)) => {
            assert!(facts.differing(&sums).is_empty(), "nothing is held");
        }
        _ => {}
    }
}

/// A message from a proxy: decoded, and a hello judged.
///
/// # Panics
/// When a hello that nobody signed proves something: a bug.
pub fn from_proxy(data: &[u8]) {
    let Ok(message) = proxies::FromProxy::decode(data) else {
        return;
    };
    match message.message {
        Some(proxies::from_proxy::Message::Hello(hello)) => {
            crate::feed::judge_alone(&hello);
        }
        Some(proxies::from_proxy::Message::Csr(csr)) => {
            let _ = mesh_tls::csr::public_key(&csr.der);
        }
        _ => {}
    }
}

/// A workload's identity: read, and never verified by a key that signed nothing.
///
/// # Panics
/// When it is: a bug.
pub fn workload_identity(data: &[u8]) {
    crate::identity::read_any(data);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Vec<u8>> {
        let key = mesh_tls::LeafKey::generate().unwrap();
        let fact = servers::Fact {
            topic: "endpoints/default/api".into(),
            version: Some(servers::Version {
                epoch: "e".into(),
                index: 7,
            }),
            body: b"[]".to_vec(),
            needs: vec!["x".into()],
            ..servers::Fact::default()
        };
        let fact = servers::ToAgent {
            message: Some(servers::to_agent::Message::Fact(fact)),
        };
        let hello = proxies::Hello {
            proxy: "web-sidecar-proxy".into(),
            public_key: key.public_key(),
            signature: mesh_tls::csr::sign_nonce(&key, "web-sidecar-proxy", b"other").unwrap(),
            ticket: vec![1; 32],
            leaf: vec![b"leaf".to_vec()],
            ..proxies::Hello::default()
        };
        let hello = proxies::FromProxy {
            message: Some(proxies::from_proxy::Message::Hello(hello)),
        };
        let csr = proxies::Csr {
            der: key.csr().unwrap(),
        };
        let csr = proxies::FromProxy {
            message: Some(proxies::from_proxy::Message::Csr(csr)),
        };
        vec![
            fact.encode_to_vec(),
            hello.encode_to_vec(),
            csr.encode_to_vec(),
        ]
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let data = std::fs::read(file.unwrap().path()).unwrap();
            from_server(&data);
            from_proxy(&data);
            workload_identity(&data);
            count += 1;
        }
        assert!(count >= 5, "{count} files");
    }

    proptest! {
        #[test]
        fn no_identity_panics(header in "[a-zA-Z0-9\":,{}]{0,60}", claims in any::<Vec<u8>>(), rest in ".{0,20}") {
            use base64::Engine;
            use base64::engine::general_purpose::URL_SAFE_NO_PAD;
            workload_identity(&claims);
            let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{}\"}}", header.replace('"', ""));
            let text = format!("{}.{}.{rest}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            workload_identity(text.as_bytes());
        }

        #[test]
        fn damaged_messages_never_panic(which in 0usize..3, at in 0usize..2000, with in any::<u8>()) {
            let mut data = samples().swap_remove(which);
            let at = at % data.len();
            data[at] = with;
            from_server(&data);
            from_proxy(&data);
        }
    }
}

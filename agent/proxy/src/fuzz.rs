//! Fuzz targets: what comes from the agent, and from whoever speaks HTTP/1.1. Plain functions over
//! bytes; tests replay a corpus, and cargo-fuzz can wrap them.

use mesh_policy::Features;
use mesh_proto::config::ProxyConfig;
use mesh_proto::proxies::v1 as wire;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::{Credential, LeafKey};
use prost::Message;

use crate::config::Compiled;
use crate::engine::h1::{fuzz_body, fuzz_head};

/// A message from an agent: decoded, and roots, a leaf or a config read as the control side reads
/// them.
///
/// # Panics
/// When a leaf that nobody signed for a fresh key is taken: a bug.
pub fn to_proxy(data: &[u8]) {
    let Ok(message) = wire::ToProxy::decode(data) else {
        return;
    };
    match message.message {
        Some(To::Roots(roots)) => drop(crate::control::trust(roots)),
        Some(To::Revocations(list)) => drop(crate::revoked::read(&list.list)),
        Some(To::Leaf(leaf)) => {
            let Ok(key) = LeafKey::generate() else {
                return;
            };
            let chain = leaf.chain.into_iter().map(Into::into).collect();
            let taken = Credential::from_leaf_key(chain, &key);
            assert!(taken.is_err(), "a leaf for another key was taken");
        }
        Some(To::Config(config)) => {
            let _ = ProxyConfig::policy_of(&config.config);
            if let Ok(form) = serde_json::from_slice(&config.config) {
                let _ = Compiled::new(form, &Features::default());
            }
        }
        _ => {}
    }
}

/// A head of HTTP/1.1, of a request or an answer.
pub fn h1_head(data: &[u8]) {
    fuzz_head(data);
}

/// A chunked body of HTTP/1.1.
pub fn h1_body(data: &[u8]) {
    fuzz_body(data);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn corpus(of: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/corpus/{of}", env!("CARGO_MANIFEST_DIR"));
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().path())
            .collect();
        paths.sort();
        paths.iter().map(|it| std::fs::read(it).unwrap()).collect()
    }

    /// One of each kind, as good as can be.
    fn samples() -> Vec<Vec<u8>> {
        let config = serde_json::to_vec(&crate::fixed::example().config).unwrap();
        let messages = [
            To::Config(wire::Config {
                serial: 1,
                config,
                needs: vec!["x".into()],
                ..wire::Config::default()
            }),
            To::Roots(wire::Roots {
                trust_domain: "test.mesh".into(),
                roots: vec![vec![0x30, 0x82, 0x01]],
                serial: 1,
                active: vec![7; 32],
                reissue_seconds: 1,
            }),
            To::Leaf(wire::Leaf {
                chain: vec![vec![0x30, 0x82, 0x01]],
                error: String::new(),
            }),
        ];
        let message = |message| wire::ToProxy {
            message: Some(message),
        };
        messages.map(|it| message(it).encode_to_vec()).into()
    }

    #[test]
    fn the_corpus_is_replayed() {
        let messages = corpus("to_proxy");
        assert!(messages.len() >= 6, "{} files", messages.len());
        messages
            .iter()
            .chain(&samples())
            .for_each(|it| to_proxy(it));
        for (of, target) in [("h1_head", h1_head as fn(&[u8])), ("h1_body", h1_body)] {
            let corpus = corpus(of);
            assert!(corpus.len() >= 4, "{of}: {} files", corpus.len());
            corpus.iter().for_each(|it| target(it));
        }
    }

    proptest! {
        #[test]
        fn damaged_messages_never_panic(which in 0usize..3, at in 0usize..4000, with in any::<u8>()) {
            let mut data = samples().swap_remove(which);
            let at = at % data.len();
            data[at] = with;
            to_proxy(&data);
        }
    }
}

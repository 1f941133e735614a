//! Fuzz target: what comes from the agent. A plain function over bytes; a test replays a corpus, and
//! cargo-fuzz can wrap it.

use mesh_policy::Features;
use mesh_proto::config::ProxyConfig;
use mesh_proto::proxies::v1 as wire;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::{Credential, LeafKey};
use prost::Message;

use crate::config::Compiled;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn corpus() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/to_proxy");
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
        let corpus = corpus();
        assert!(corpus.len() >= 6, "{} files", corpus.len());
        corpus.iter().chain(&samples()).for_each(|it| to_proxy(it));
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

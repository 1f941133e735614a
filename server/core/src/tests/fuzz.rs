//! The corpus through the fuzz targets, and random bytes.

use std::path::Path;

use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::catalog::Change;
use mesh_proto::servers::v1::from_agent::Message as From;
use proptest::prelude::*;
use prost::Message;

use super::agent::instance;

fn replay(folder: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let files = std::fs::read_dir(&corpus).unwrap();
    let mut count = 0;
    for file in files {
        target(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
}

#[test]
fn the_corpus_of_requests() {
    replay("api_request", crate::fuzz::api_request);
}

#[test]
fn the_corpus_of_agent_messages() {
    replay("agent_message", crate::fuzz::agent_message);
}

/// Good messages, which random changes begin from.
fn messages() -> Vec<From> {
    let one = serde_json::to_vec(&instance("n1", "web", "web-1")).unwrap();
    let all = serde_json::to_vec(&[instance("n1", "web", "web-1")]).unwrap();
    let checks =
        br#"[{"instance": "web-1", "id": "a", "check": {"name": "a", "status": "passing"}}]"#;
    let changes = [
        Change::Put(one),
        Change::Sync(all),
        Change::Remove("web-1".into()),
        Change::Checks(checks.to_vec()),
    ];
    let mut messages: Vec<From> = changes
        .into_iter()
        .map(|change| {
            From::Catalog(wire::Catalog {
                request: 1,
                change: Some(change),
            })
        })
        .collect();
    let held = wire::Held {
        topic: "service/default/web".into(),
        ..wire::Held::default()
    };
    messages.push(From::Subscribe(wire::Subscribe {
        add: vec![held],
        remove: Vec::new(),
    }));
    let proxy = wire::ProxyStatus {
        proxy: "p".into(),
        ..wire::ProxyStatus::default()
    };
    messages.push(From::Proxies(wire::ProxyReport {
        proxies: vec![proxy],
    }));
    messages
}

#[test]
fn the_corpus_is_written() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/agent_message");
    for (number, message) in messages().into_iter().enumerate() {
        let bytes = wire::FromAgent {
            message: Some(message),
        }
        .encode_to_vec();
        let file = corpus.join(format!("good-{number}"));
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::create_dir_all(&corpus).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{}", file.display());
    }
}

proptest! {
    #[test]
    fn damaged_messages_end_in_an_error(
        which in 0usize..6,
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let message = messages().into_iter().nth(which);
        let mut bytes = wire::FromAgent { message }.encode_to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        crate::fuzz::agent_message(&bytes);
        let cut = cut.index(bytes.len());
        crate::fuzz::agent_message(&bytes[..cut]);
    }

    #[test]
    fn any_text_is_a_request_or_an_error(text in "[\\[\\]{}\":,a-z*/0-9?&=% ]{0,160}") {
        crate::fuzz::api_request(text.as_bytes());
    }
}

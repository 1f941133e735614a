//! `meshctl snapshot`: what is saved is what was sent, whole, and verified.

use std::os::unix::fs::PermissionsExt;

use mesh_model::{Action, Entry, Intention, IntentionRule, Key};
use mesh_state::{Command, Envelope, Op, State};
use serde_json::json;

use super::{Transcript, fake::Fake};

fn state() -> Vec<u8> {
    let mut state = State::new();
    let bootstrap = Command::Bootstrap {
        cluster_id: "c1".into(),
        trust_domain: "c1.mesh".into(),
        datacenter: "dc1".into(),
        epoch: "e1".into(),
        default_intention: Action::Deny,
    };
    let intention = Intention {
        source: Key::of("web"),
        destination: Key::of("db"),
        rule: IntentionRule::Action(Action::Allow),
        description: String::new(),
        meta: Default::default(),
    };
    let write = Command::Transaction {
        ops: vec![Op::Put {
            entry: Entry::Intention(intention),
            cas: None,
        }],
        owner: "cli".into(),
        force: false,
    };
    let time = 1_790_000_000_000;
    state.apply(&[
        Envelope::new(time, bootstrap),
        Envelope::new(time + 1000, write),
    ]);
    state.to_snapshot().unwrap()
}

#[tokio::test]
async fn save_inspect_and_restore() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.snap");
    let file = path.display().to_string();
    let mut all = Transcript::default();
    let bytes = state();
    fake.raw("GET /v1/snapshot", 200, bytes.clone())
        .raw("GET /v1/snapshot", 200, bytes[..bytes.len() / 2].to_vec())
        .fails(
            "GET /v1/snapshot",
            503,
            json!({"code": "no_leader", "message": "there is no leader"}),
        )
        .raw("GET /v1/snapshot?stale=true", 200, bytes.clone())
        .on("PUT /v1/snapshot", json!({"index": 57, "epoch": "e2"}));
    assert_eq!(all.run(&fake, &["snapshot", "save", &file]).await.code, 0);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(
        all.run(&fake, &["snapshot", "inspect", &file]).await.code,
        0
    );
    assert_eq!(
        all.run(&fake, &["snapshot", "restore", &file]).await.code,
        0
    );
    // Cut off on its way, and refused: the good one stays.
    for _ in 0..2 {
        assert_eq!(all.run(&fake, &["snapshot", "save", &file]).await.code, 1);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(!dir.path().join("backup.snap.unverified").exists());
    }
    assert_eq!(
        all.run(&fake, &["snapshot", "save", "-stale", &file])
            .await
            .code,
        0
    );
    let damaged = dir.path().join("damaged.snap");
    std::fs::write(&damaged, &bytes[..bytes.len() - 5]).unwrap();
    let damaged = damaged.display().to_string();
    assert_eq!(
        all.run(&fake, &["snapshot", "restore", &damaged])
            .await
            .code,
        1
    );
    assert_eq!(
        all.run(&fake, &["snapshot", "inspect", "/nowhere"])
            .await
            .code,
        1
    );
    insta::assert_snapshot!(all.0.replace(&dir.path().display().to_string(), "DIR"));
}

#![allow(clippy::unwrap_used)]
use super::*;
use mesh_model::Key;

fn version(epoch: &str, index: u64) -> Option<pb::Version> {
    Some(pb::Version {
        epoch: epoch.into(),
        index,
    })
}

fn fact(index: u64, body: &str) -> pb::Fact {
    pb::Fact {
        topic: "endpoints/default/web".into(),
        version: version("e", index),
        body: body.into(),
        checksum: checksum(body.as_bytes()),
        ..pb::Fact::default()
    }
}

fn web() -> Topic {
    Topic::Endpoints(Key::of("web"))
}

fn revision(facts: &Facts) -> Option<u64> {
    facts
        .revisions(&BTreeSet::from([web()]))
        .get(&web())
        .copied()
}

#[tokio::test]
async fn facts_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Arc::new(Facts::open(folder.path(), Features::default()).unwrap());
    let stop = CancellationToken::new();
    let task = tokio::spawn(facts.clone().keep(stop.clone()));
    assert_eq!(facts.put(fact(5, "[]")), Put::Taken);
    facts.set_mark(version("e", 6).unwrap().into());
    stop.cancel();
    task.await.unwrap();
    let again = Facts::open(folder.path(), Features::default()).unwrap();
    assert_eq!(again.held(&web(), "e"), facts.held(&web(), "e"));
    assert_eq!(again.mark().index, 6);
    assert!(again.with(|store| store.has(&web())));
    // Of another epoch nothing is held.
    assert_eq!(again.held(&web(), "f").version, None);
    assert!(again.held(&web(), "f").checksum.is_empty());
}

#[test]
fn only_whole_and_newer_facts_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Facts::open(folder.path(), Features::default()).unwrap();
    let unchanged = pb::Fact {
        unchanged: true,
        checksum: Vec::new(),
        ..fact(4, "")
    };
    assert_eq!(facts.put(unchanged.clone()), Put::AskAgain(web()));
    assert_eq!(facts.put(fact(5, "[]")), Put::Taken);
    let first = revision(&facts);
    assert_eq!(facts.put(fact(4, "[1]")), Put::Older);
    let broken = pb::Fact {
        checksum: vec![1],
        ..fact(6, "[]")
    };
    assert_eq!(facts.put(broken), Put::AskAgain(web()));
    let later = pb::Fact {
        version: version("e", 9),
        ..unchanged
    };
    assert_eq!(facts.put(later), Put::Taken);
    assert_eq!(facts.held(&web(), "e").version, version("e", 9));
    assert_eq!(revision(&facts), first, "the body did not change");
    // A new epoch begins anew, whatever its index.
    let other = pb::Fact {
        version: version("f", 1),
        ..fact(1, "[ ]")
    };
    assert_eq!(facts.put(other), Put::Taken);
    assert_ne!(revision(&facts), first);
    let strange = pb::Fact {
        topic: "what/is/this".into(),
        ..fact(1, "")
    };
    assert_eq!(facts.put(strange), Put::Unknown);
}

/// Writes what is held, as `keep` does, and reads it again.
fn reopened(facts: &Facts, folder: &Path, features: Features) -> Facts {
    facts.write().unwrap();
    Facts::open(folder, features).unwrap()
}

#[test]
fn a_body_that_cannot_be_read_leaves_what_was() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Facts::open(folder.path(), Features::default()).unwrap();
    facts.put(fact(5, "[]"));
    let first = revision(&facts);
    for index in [6, 7] {
        facts.put(fact(index, &format!("{{\"new\": {index}}}")));
        assert!(facts.with(|store| store.has(&web()) && store.unread(&web()).is_some()));
    }
    assert_ne!(revision(&facts), first, "its proxies must say so");
    // Also after a restart, and one more.
    let mut facts = facts;
    for _ in 0..2 {
        facts = reopened(&facts, folder.path(), Features::default());
        assert!(facts.with(|store| store.has(&web()) && store.unread(&web()).is_some()));
        assert_eq!(facts.held(&web(), "e").version, version("e", 7));
    }
    facts.put(fact(8, "[ ]"));
    assert!(facts.with(|store| store.unread(&web()).is_none()));
    let kept = facts.inner().held[&web()].last_usable.clone();
    assert_eq!(kept, None, "what is read needs none beside it");
}

#[test]
fn a_body_that_is_not_text_leaves_what_was_and_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Facts::open(folder.path(), Features::default()).unwrap();
    facts.put(fact(5, "[]"));
    facts.put(pb::Fact {
        body: vec![0xff],
        checksum: checksum(&[0xff]),
        ..fact(6, "")
    });
    let facts = reopened(&facts, folder.path(), Features::default());
    assert!(facts.with(|store| store.has(&web())));
    assert_eq!(facts.held(&web(), "e").version, None);
}

#[test]
fn what_a_refused_body_needs_its_readers_need_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let older = || Features::default().without("retries");
    let facts = Facts::open(folder.path(), older()).unwrap();
    let route = Topic::Route(Key::of("web"));
    let intentions = Topic::Intentions(Key::of("web"));
    let put = |facts: &Facts, topic: &Topic, index: u64, body: &str, needs: &[&str]| {
        facts.put(pb::Fact {
            topic: topic.to_string(),
            needs: needs.iter().map(|it| (*it).to_owned()).collect(),
            ..fact(index, body)
        })
    };
    put(&facts, &route, 5, "null", &["unheard-of"]);
    let needs =
        |facts: &Facts, topic: &Topic| facts.inner().needs(&BTreeSet::from([topic.clone()]));
    // Nobody has that feature, and nothing was there before: nothing is in use.
    assert!(needs(&facts, &route).is_empty());
    put(&facts, &route, 6, "null", &[]);
    put(&facts, &route, 7, "null", &["retries"]);
    assert!(needs(&facts, &route).is_empty(), "of the form in use");
    let facts = reopened(&facts, folder.path(), older());
    assert!(facts.with(|store| store.has(&route) && store.unread(&route).is_some()));
    assert!(needs(&facts, &route).is_empty());
    // What this agent has, its proxies need.
    let facts = Facts::open(folder.path(), Features::default()).unwrap();
    assert_eq!(needs(&facts, &route), ["retries"]);
    // Intentions are passed on, whatever they need.
    put(&facts, &intentions, 8, "[]", &["unheard-of"]);
    assert_eq!(needs(&facts, &intentions), ["unheard-of"]);
}

#[tokio::test]
async fn what_cannot_be_written_is_tried_again_and_not_said_to_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Arc::new(Facts::open(folder.path(), Features::default()).unwrap());
    let stop = CancellationToken::new();
    // A folder stands where the file is to be.
    std::fs::create_dir(folder.path().join("facts.json")).unwrap();
    let task = tokio::spawn(facts.clone().keep(stop.clone()));
    let mut persisted = facts.persisted();
    facts.put(fact(5, "[]"));
    facts.set_mark(version("e", 5).unwrap().into());
    let early = tokio::time::timeout(RETRY * 4, persisted.changed()).await;
    assert!(early.is_err(), "it is not on disk");
    std::fs::remove_dir(folder.path().join("facts.json")).unwrap();
    let wanted = facts.changes();
    let kept = persisted.wait_for(|count| *count == wanted);
    let kept = tokio::time::timeout(Duration::from_secs(20), kept).await;
    kept.unwrap().unwrap();
    let again = Facts::open(folder.path(), Features::default()).unwrap();
    assert_eq!(again.mark().index, 5);
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn sums_that_differ_name_their_topics() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Facts::open(folder.path(), Features::default()).unwrap();
    facts.put(fact(5, "[]"));
    let sums = |index, body: &str| pb::Checksums {
        version: version("e", index),
        topics: vec![pb::TopicChecksum {
            topic: web().to_string(),
            checksum: checksum(body.as_bytes()),
        }],
    };
    assert!(facts.differing(&sums(7, "[]")).is_empty());
    assert_eq!(facts.differing(&sums(7, "[1]")), [web()]);
    assert!(facts.differing(&sums(4, "[1]")).is_empty(), "ours is newer");
    facts.retain(&BTreeSet::new());
    assert!(facts.differing(&sums(7, "[1]")).is_empty());
    assert!(!facts.with(|store| store.has(&web())));
}

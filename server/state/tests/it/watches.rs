//! Who waits for what wakes, at once, and nobody else does.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mesh_model::{Action, EntryKey, NodeState, Version};
use mesh_state::{
    Command, ConfigKey, Envelope, Pair, Prefix, RowKey, Store, TableName, Topic, Watch, WatchKey,
};

use crate::make::*;

/// Whether a watch has woken; asking does not wait.
fn woken(watch: &mut Watch) -> Option<Version> {
    match pin!(watch).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(version) => Some(version),
        Poll::Pending => None,
    }
}

fn apply(store: &Store, command: Command) -> Version {
    let command = by_last_stream(&store.state(), command);
    let mut outcomes = store.apply(&[Envelope::new(1, command)]);
    outcomes.pop().unwrap().into_result().unwrap().version
}

fn store() -> Store {
    let store = Store::new(cluster());
    for id in ["n1", "n2"] {
        let node = node(id, "10.0.0.1");
        apply(&store, Command::RegisterNode { node });
    }
    for (node, service) in [("n1", "web"), ("n2", "db")] {
        let instance = instance(node, "i", service, true);
        let node = node.into();
        apply(
            &store,
            Command::PutInstance {
                node,
                stream: LAST,
                instance,
            },
        );
    }
    store
}

fn table(name: TableName) -> WatchKey {
    WatchKey::Table(name)
}

fn topic(topic: Topic) -> WatchKey {
    WatchKey::Topic(topic)
}

/// After `command`, of these watches exactly the marked ones have woken.
fn wakes(command: Command, watches: &[(WatchKey, bool)]) {
    let store = store();
    let since = store.state().version();
    let mut waiting: Vec<_> = watches
        .iter()
        .map(|(key, wakes)| (store.watch(std::slice::from_ref(key), &since), key, wakes))
        .collect();
    let version = apply(&store, command);
    for (watch, key, wakes) in &mut waiting {
        let expected = wakes.then(|| version.clone());
        assert_eq!(woken(watch), expected, "{key:?}");
    }
}

#[test]
fn a_service_wakes_its_own() {
    wakes(
        write("cli", vec![put(service("web", "a"))]),
        &[
            (WatchKey::Key(RowKey::Service(key("web"))), true),
            (topic(Topic::Service(key("web"))), true),
            (WatchKey::Prefix(Prefix::Services("default".into())), true),
            (table(TableName::Service), true),
            (WatchKey::Key(RowKey::Service(key("we"))), false),
            (WatchKey::Key(RowKey::Service(key("webs"))), false),
            (WatchKey::Key(RowKey::Route(key("web"))), false),
            (topic(Topic::Endpoints(key("web"))), false),
            (topic(Topic::Mesh), false),
            (WatchKey::Prefix(Prefix::Services("team".into())), false),
            (table(TableName::Route), false),
        ],
    );
}

#[test]
fn an_intention_wakes_whom_its_destination_covers() {
    wakes(
        write("cli", vec![put(intention("web", "*", Action::Deny))]),
        &[
            (topic(Topic::Intentions(key("db"))), true),
            (topic(Topic::Intentions(key("web"))), true),
            (topic(Topic::Intentions(key("team/db"))), false),
            (WatchKey::Prefix(Prefix::IntentionsTo(key("*"))), true),
            (WatchKey::Prefix(Prefix::IntentionsTo(key("db"))), false),
            (
                WatchKey::Prefix(Prefix::IntentionsIn("default".into())),
                true,
            ),
            (WatchKey::Prefix(Prefix::IntentionsIn("*".into())), false),
            (topic(Topic::Service(key("db"))), false),
        ],
    );
    wakes(
        write("cli", vec![put(intention("web", "*/*", Action::Deny))]),
        &[(topic(Topic::Intentions(key("team/db"))), true)],
    );
    wakes(
        write("cli", vec![put(intention("web", "db", Action::Deny))]),
        &[
            (topic(Topic::Intentions(key("db"))), true),
            (topic(Topic::Intentions(key("web"))), false),
        ],
    );
}

#[test]
fn a_node_wakes_the_endpoints_on_it() {
    let silent = Command::SetNodeState {
        node: "n1".into(),
        state: NodeState::Silent { since: 1 },
    };
    wakes(
        silent,
        &[
            (topic(Topic::Endpoints(key("web"))), true),
            (topic(Topic::Endpoints(key("db"))), false),
            (WatchKey::Key(RowKey::Node("n1".into())), true),
            (WatchKey::Key(RowKey::Node("n2".into())), false),
            (WatchKey::Prefix(Prefix::InstancesOn("n1".into())), false),
            (table(TableName::Endpoints), true),
        ],
    );
    wakes(
        Command::RemoveInstance {
            node: "n1".into(),
            stream: LAST,
            id: "i".into(),
        },
        &[
            (WatchKey::Prefix(Prefix::InstancesOn("n1".into())), true),
            (WatchKey::Prefix(Prefix::InstancesOn("n2".into())), false),
        ],
    );
}

#[test]
fn a_service_that_comes_or_goes_wakes_its_address() {
    let address = |text: &str| topic(Topic::Address(text.parse().unwrap()));
    let comes = write("cli", vec![put(service("api", "a"))]);
    wakes(
        comes,
        &[
            (topic(Topic::Virtual(key("api"))), true),
            (address("253.83.179.87"), true),
            (table(TableName::Virtual), true),
            (topic(Topic::Virtual(key("web"))), false),
            (address("248.43.58.223"), false),
        ],
    );
    let goes = Command::RemoveInstance {
        node: "n1".into(),
        stream: LAST,
        id: "i".into(),
    };
    wakes(
        goes,
        &[
            (topic(Topic::Virtual(key("web"))), true),
            (address("248.43.58.223"), true),
            (address("fd6d:6573:6876::f82b:3adf"), true),
            (topic(Topic::Virtual(key("db"))), false),
        ],
    );
    // One that is registered and gets a block has its address already.
    wakes(
        write("cli", vec![put(service("web", "a"))]),
        &[
            (topic(Topic::Virtual(key("web"))), false),
            (address("248.43.58.223"), false),
            (table(TableName::Virtual), false),
        ],
    );
}

#[test]
fn the_cas_state_wakes_the_roots() {
    let value = serde_json::json!({"v": 1});
    wakes(
        Command::PutCa { value, cas: None },
        &[
            (topic(Topic::Roots), true),
            (topic(Topic::Mesh), false),
            (table(TableName::Cluster), false),
        ],
    );
    wakes(
        write("cli", vec![put(mesh(Some(Action::Allow)))]),
        &[(topic(Topic::Mesh), true), (topic(Topic::Roots), false)],
    );
    let key = ConfigKey {
        kind: "mesh".into(),
        key: key("mesh"),
    };
    wakes(
        write(
            "cli",
            vec![
                put(mesh(Some(Action::Allow))),
                mesh_state::Op::PutConfig {
                    entry: mesh_state::ConfigEntry {
                        key,
                        text: "{}".into(),
                        rows: vec![EntryKey::Mesh],
                    },
                    cas: None,
                },
            ],
        ),
        &[
            (WatchKey::Prefix(Prefix::ConfigEntries("mesh".into())), true),
            (WatchKey::Prefix(Prefix::ConfigEntries("mes".into())), false),
        ],
    );
}

#[test]
fn what_changes_nothing_wakes_nobody() {
    let store = store();
    let since = store.state().version();
    let keys: Vec<WatchKey> = TableName::ALL.into_iter().map(WatchKey::Table).collect();
    let mut watch = store.watch(&keys, &since);
    let again = Command::PutInstance {
        node: "n1".into(),
        stream: LAST,
        instance: instance("n1", "i", "web", true),
    };
    apply(&store, again);
    let refused = write("cli", vec![delete(EntryKey::Mesh)]);
    store.apply(&[Envelope::new(1, refused)]);
    assert_eq!(woken(&mut watch), None);
    assert_eq!(store.watch_count(), 1);
    drop(watch);
    assert_eq!(store.watch_count(), 0);
}

#[test]
fn a_change_between_read_and_watch_is_not_missed() {
    let store = store();
    let web = [WatchKey::Key(RowKey::Service(key("web")))];
    let since = store.state().version();
    let after = apply(&store, write("cli", vec![put(service("web", "a"))]));
    apply(&store, write("cli", vec![put(service("db", "a"))]));
    let mut late = store.watch(&web, &since);
    assert!(woken(&mut late).is_some_and(|version| version.covers(&after)));

    // An index as a blocking query has it: of what it read, not of the state.
    let epoch = since.epoch.clone();
    let index = store.state().index(&web);
    assert_eq!(index, after.index);
    let mut watch = store.watch(&web, &Version { epoch, index });
    assert_eq!(woken(&mut watch), None);
    // A deletion too.
    let since = store.state().version();
    apply(
        &store,
        write("cli", vec![delete(EntryKey::Service(key("web")))]),
    );
    assert!(woken(&mut watch).is_some());
    assert!(woken(&mut store.watch(&web, &since)).is_some());
}

#[test]
fn another_epoch_is_another_state() {
    let store = store();
    let keys = [WatchKey::Key(RowKey::Service(key("nothing")))];
    let here = store.state().version();
    let other = Version {
        epoch: "other".into(),
        index: here.index,
    };
    assert!(woken(&mut store.watch(&keys, &other)).is_some());
    // Installing wakes everyone, whatever they wait for.
    let mut watch = store.watch(&keys, &here);
    store.install(cluster());
    assert!(woken(&mut watch).is_some());
}

#[test]
fn a_server_that_is_behind_waits_to_catch_up() {
    let store = store();
    let web = [WatchKey::Key(RowKey::Service(key("web")))];
    let mut ahead = store.state().version();
    ahead.index += 1;
    let mut watch = store.watch(&web, &ahead);
    apply(&store, write("cli", vec![put(service("web", "a"))]));
    assert_eq!(woken(&mut watch), None, "that was read already");
    apply(&store, write("cli", vec![put(service("web", "b"))]));
    assert!(woken(&mut watch).is_some());
}

#[tokio::test]
async fn a_waiting_task_is_woken() {
    let store = store();
    let web = [
        WatchKey::Key(RowKey::Intention(Pair {
            destination: key("db"),
            source: key("web"),
        })),
        WatchKey::Key(RowKey::Service(key("web"))),
    ];
    let watch = store.watch(&web, &store.state().version());
    let waiting = tokio::spawn(watch);
    tokio::task::yield_now().await;
    let version = apply(&store, write("cli", vec![put(service("web", "a"))]));
    assert_eq!(waiting.await.unwrap(), version);
    assert_eq!(store.watch_count(), 0);
}

/// A reader that waits between its reads sees the last of many writes, made
/// on another thread without regard for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_missed() {
    const WRITES: usize = 500;
    let store = store();
    let label = |state: &mesh_state::State| {
        let row = state.service(&key("web"))?;
        row.value.meta.get("label")?.parse::<usize>().ok()
    };
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let keys = [WatchKey::Topic(Topic::Service(key("web")))];
                let mut last = None;
                loop {
                    let state = store.state();
                    let now = label(&state);
                    assert!(now >= last, "a read went back");
                    if now == Some(WRITES) {
                        return;
                    }
                    last = now;
                    store.watch(&keys, &state.version()).await;
                }
            })
        })
        .collect();
    let writer = store.clone();
    let writes = tokio::task::spawn_blocking(move || {
        for number in 1..=WRITES {
            let ops = vec![put(service("web", &number.to_string()))];
            apply(&writer, write("cli", ops));
        }
    });
    writes.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(store.watch_count(), 0);
}

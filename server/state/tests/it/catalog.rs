//! Nodes, instances, checks.

use std::collections::BTreeMap;

use mesh_model::{Check, Instance, NodeState, Status};
use mesh_state::{Change, CheckChange, Command, Health, Refusal, RowKey, State, Topic};

use crate::make::*;

fn two_nodes() -> State {
    let mut state = cluster();
    for (id, address) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
        let node = node(id, address);
        run(&mut state, Command::RegisterNode { node }).unwrap();
    }
    let sync = Command::SyncInstances {
        node: "n1".into(),
        stream: LAST,
        instances: vec![
            instance("n1", "web-1", "web", true),
            instance("n1", "web-2", "web", false),
            instance("n1", "db-1", "db", true),
        ],
    };
    run(&mut state, sync).unwrap();
    let put = Command::PutInstance {
        node: "n2".into(),
        stream: LAST,
        instance: instance("n2", "web-1", "web", true),
    };
    run(&mut state, put).unwrap();
    state
}

fn ids(state: &State, service: &str) -> Vec<String> {
    let endpoints = state.instances_of(&key(service));
    let id =
        |e: &mesh_state::Endpoint| format!("{}/{}", e.instance.value.node, e.instance.value.id);
    endpoints.iter().map(id).collect()
}

#[test]
fn an_address_that_nobody_can_connect_to_is_refused() {
    let mut state = two_nodes();
    let good = || instance("n1", "new", "web", true);
    let mut bad = [good(), good(), good()];
    bad[0].address = "no such host!".into();
    bad[1].proxy.as_mut().unwrap().address = "10.0.0.1:80".into();
    bad[2].proxy.as_mut().unwrap().port = 0;
    let says = [
        "`no such host!`",
        "proxy new-sidecar-proxy: address",
        "port: it is 0",
    ];
    let node = "n1".to_owned();
    for (instance, says) in bad.into_iter().zip(says) {
        let put = Command::PutInstance {
            node: node.clone(),
            stream: LAST,
            instance: instance.clone(),
        };
        let sync = Command::SyncInstances {
            node: node.clone(),
            stream: LAST,
            instances: vec![instance],
        };
        for command in [put, sync] {
            let refusal = run(&mut state, command).unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}");
        }
    }
    let node = crate::make::node("n3", "no such host!");
    assert!(run(&mut state, Command::RegisterNode { node }).is_err());
    assert_eq!(ids(&state, "web"), ["n1/web-1", "n1/web-2", "n2/web-1"]);
}

#[test]
fn instances_are_found_by_service() {
    let state = two_nodes();
    assert_eq!(ids(&state, "web"), ["n1/web-1", "n1/web-2", "n2/web-1"]);
    assert_eq!(state.instance_count(&key("web")), 3);
    let endpoints = state.endpoints(&key("web"));
    assert_eq!(endpoints.len(), 2, "only those with a sidecar");
    assert_eq!(endpoints[1].node.value.address, "10.0.0.2");
    assert!(state.endpoints(&key("team/web")).is_empty());
    assert_eq!(state.instances_on("n1").len(), 3);
}

#[test]
fn the_list_has_blocks_and_registered_names() {
    let mut state = two_nodes();
    run(
        &mut state,
        write(
            "cli",
            vec![put(service("api", "a")), put(service("db", "a"))],
        ),
    )
    .unwrap();
    let list: Vec<_> = state
        .service_list()
        .into_iter()
        .map(|s| (s.key.to_string(), s.block, s.instances))
        .collect();
    assert_eq!(
        list,
        [
            ("api".to_owned(), true, 0),
            ("db".to_owned(), true, 1),
            ("web".to_owned(), false, 3)
        ]
    );
    assert_eq!(state.service_or_default(&key("web")).name, "web");
}

#[test]
fn a_sync_is_the_whole_set() {
    let mut state = two_nodes();
    let sync = |instances| Command::SyncInstances {
        node: "n1".into(),
        stream: LAST,
        instances,
    };
    let same = vec![
        instance("n1", "db-1", "db", true),
        instance("n1", "web-1", "web", true),
        instance("n1", "web-2", "web", false),
    ];
    let before = state.version();
    let applied = run(&mut state, sync(same)).unwrap();
    assert!(applied.results.is_empty());
    assert_eq!(state.version(), before, "the same set changes nothing");

    let (applied, touched) = run_at(
        &mut state,
        1,
        sync(vec![
            instance("n1", "web-1", "web", true),
            instance("n1", "web-2", "api", true),
        ]),
    );
    let changes: Vec<_> = applied
        .unwrap()
        .results
        .into_iter()
        .map(|result| (result.key.to_string(), result.change))
        .collect();
    assert_eq!(
        changes,
        [
            ("instance n1/db-1".to_owned(), Change::Deleted),
            ("instance n1/web-2".to_owned(), Change::Updated)
        ]
    );
    for name in ["web", "api", "db"] {
        assert!(touched.affects(&Topic::Endpoints(key(name))), "{name}");
    }
    assert_eq!(ids(&state, "web"), ["n1/web-1", "n2/web-1"]);
    assert_eq!(ids(&state, "api"), ["n1/web-2"]);
    assert_eq!(state.instance_count(&key("db")), 0);
}

#[test]
fn an_agent_speaks_for_its_own_node() {
    let mut state = two_nodes();
    let foreign = Command::PutInstance {
        node: "n1".into(),
        stream: LAST,
        instance: instance("n2", "web-9", "web", true),
    };
    let refusal = refused(&mut state, foreign);
    assert!(
        refusal.to_string().contains("may not speak for it"),
        "{refusal}"
    );
    let unknown = Command::SyncInstances {
        node: "n9".into(),
        stream: LAST,
        instances: vec![],
    };
    assert_eq!(
        refused(&mut state, unknown).to_string(),
        "node n9: does not exist"
    );
    for (id, service) in [("", "web"), ("a\nb", "web"), ("a", "*")] {
        let mut bad = instance("n1", "x", "web", true);
        bad.id = id.into();
        bad.service = service.into();
        let node = "n1".into();
        refused(
            &mut state,
            Command::PutInstance {
                node,
                stream: LAST,
                instance: bad,
            },
        );
    }
    let twice = Command::SyncInstances {
        node: "n1".into(),
        stream: LAST,
        instances: vec![
            instance("n1", "a", "web", true),
            instance("n1", "a", "db", true),
        ],
    };
    refused(&mut state, twice);
}

#[test]
fn only_a_change_of_a_check_is_one() {
    let mut state = two_nodes();
    let set = |id: &str, status| Command::SetChecks {
        node: "n1".into(),
        stream: LAST,
        changes: vec![CheckChange {
            instance: id.into(),
            id: "alive".into(),
            check: Some(check(status)),
        }],
    };
    let before = state.version();
    run(&mut state, set("web-1", Status::Passing)).unwrap();
    assert_eq!(state.version(), before);
    let (result, touched) = run_at(&mut state, 1, set("web-1", Status::Critical));
    assert_eq!(result.unwrap().results[0].change, Change::Updated);
    assert!(touched.affects(&Topic::Endpoints(key("web"))));
    assert!(!touched.affects(&Topic::Endpoints(key("db"))));
    let health = Health {
        passing: 2,
        critical: 1,
        ..Health::default()
    };
    assert_eq!(state.health_of(&key("web")), health);
    let applied = run(&mut state, set("gone", Status::Passing)).unwrap();
    assert_eq!(applied.results[0].change, Change::Absent);
    let gone = Command::SetChecks {
        node: "n1".into(),
        stream: LAST,
        changes: vec![CheckChange {
            instance: "web-1".into(),
            id: "alive".into(),
            check: None,
        }],
    };
    run(&mut state, gone).unwrap();
    assert!(
        state
            .instance("n1", "web-1")
            .unwrap()
            .value
            .checks
            .is_empty()
    );
}

/// However many commands an agent sends: its rows stay within what a snapshot
/// takes back.
#[test]
fn an_agents_rows_are_bounded() {
    let mut state = two_nodes();
    let set = |id: &str, name: &str| Command::SetChecks {
        node: "n1".into(),
        stream: LAST,
        changes: vec![CheckChange {
            instance: "web-1".into(),
            id: id.into(),
            check: Some(Check {
                name: name.into(),
                status: Status::Passing,
            }),
        }],
    };
    let refusal = refused(&mut state, set("another", "x"));
    assert!(refusal.to_string().contains("no check \"another\""));
    refused(&mut state, set("alive", &"x".repeat(513)));
    run(&mut state, set("alive", &"x".repeat(512))).unwrap();

    let with = |change: fn(&mut Instance)| {
        let mut instance = instance("n1", "web-1", "web", true);
        change(&mut instance);
        let node = "n1".into();
        Command::PutInstance {
            node,
            stream: LAST,
            instance,
        }
    };
    run(&mut state, with(|it| it.checks = many(256, 1))).unwrap();
    for (what, command) in [
        ("257 checks", with(|it| it.checks = many(257, 1))),
        ("name has 513", with(|it| it.checks = many(1, 513))),
        ("bytes", with(|it| it.tags = vec!["x".repeat(256 << 10)])),
        (
            "bytes",
            with(|it| drop(it.meta.insert("k".into(), "\n".repeat(128 << 10)))),
        ),
    ] {
        let refusal = refused(&mut state, command).to_string();
        assert!(refusal.contains(what), "{refusal}");
    }
    let mut node = node("n1", "10.0.0.1");
    node.meta.insert("k".into(), "x".repeat(256 << 10));
    refused(&mut state, Command::RegisterNode { node });

    // What was taken passing is taken critical.
    let near = with(|it| it.tags = vec!["x".repeat((256 << 10) - 600)]);
    run(&mut state, near).unwrap();
    let critical = Command::SetChecks {
        node: "n1".into(),
        stream: LAST,
        changes: vec![CheckChange {
            instance: "web-1".into(),
            id: "alive".into(),
            check: Some(check(Status::Critical)),
        }],
    };
    run(&mut state, critical).unwrap();
    let longest = state.to_snapshot().unwrap();
    let longest = longest.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest.unwrap() < 300 << 10);
}

fn many(count: usize, name: usize) -> BTreeMap<String, Check> {
    let check = Check {
        name: "x".repeat(name),
        status: Status::Passing,
    };
    (0..count)
        .map(|number| (format!("c{number}"), check.clone()))
        .collect()
}

/// A write that was held up, and lands after the agent said everything again by
/// another stream.
#[test]
fn an_older_streams_word_is_not_taken() {
    let mut state = two_nodes();
    let older = state.node("n1").unwrap().value.stream;
    let endpoints = state.topic_index(&Topic::Endpoints(key("web")));
    let again = Command::RegisterNode {
        node: node("n1", "10.0.0.1"),
    };
    let applied = run(&mut state, again).unwrap();
    let newer = state.node("n1").unwrap().value.stream;
    assert!(older < newer);
    assert_eq!(newer, applied.results[0].index, "what the server goes by");
    let index = state.topic_index(&Topic::Endpoints(key("web")));
    assert_eq!(index, endpoints, "a stream is nothing to the endpoints");
    let sync = Command::SyncInstances {
        node: "n1".into(),
        stream: newer,
        instances: vec![instance("n1", "web-1", "web", true)],
    };
    run(&mut state, sync).unwrap();

    let (node, id) = ("n1".to_owned(), "web-1".to_owned());
    let check = CheckChange {
        instance: id.clone(),
        id: "alive".into(),
        check: Some(check(Status::Critical)),
    };
    // And what names a stream of a state that a restore did away with.
    for stream in [older, newer + 1] {
        for late in [
            Command::SyncInstances {
                node: node.clone(),
                stream,
                instances: vec![],
            },
            Command::PutInstance {
                node: node.clone(),
                stream,
                instance: instance("n1", "web-2", "web", true),
            },
            Command::RemoveInstance {
                node: node.clone(),
                stream,
                id: id.clone(),
            },
            Command::SetChecks {
                node: node.clone(),
                stream,
                changes: vec![check.clone()],
            },
        ] {
            let refusal = refused(&mut state, late);
            assert_eq!(refusal, Refusal::Superseded { node: node.clone() });
        }
    }
    // Another node's streams are its own.
    let other = state.node("n2").unwrap().value.stream;
    let put = Command::PutInstance {
        node: "n2".into(),
        stream: other,
        instance: instance("n2", "web-2", "web", true),
    };
    run(&mut state, put).unwrap();
    // What the leader says of the node leaves its stream.
    let silent = Command::SetNodeState {
        node: "n1".into(),
        state: NodeState::Silent { since: 100 },
    };
    run(&mut state, silent).unwrap();
    assert_eq!(state.node("n1").unwrap().value.stream, newer);
}

#[test]
fn a_nodes_state_touches_the_endpoints_on_it() {
    let mut state = two_nodes();
    let silent = |since| Command::SetNodeState {
        node: "n1".into(),
        state: NodeState::Silent { since },
    };
    let (result, touched) = run_at(&mut state, 1, silent(100));
    result.unwrap();
    for (name, affected) in [("web", true), ("db", true), ("api", false)] {
        assert_eq!(
            touched.affects(&Topic::Endpoints(key(name))),
            affected,
            "{name}"
        );
    }
    assert_eq!(state.health_of(&key("web")).unknown, 2);
    let index = state.topic_index(&Topic::Endpoints(key("web")));
    assert_eq!(index, state.version().index);

    let again = state.version();
    run(&mut state, silent(100)).unwrap();
    assert_eq!(state.version(), again);

    // Its agent is back, and says so.
    let node = node("n1", "10.0.0.9");
    let (_, touched) = run_at(&mut state, 1, Command::RegisterNode { node });
    assert!(touched.affects(&Topic::Endpoints(key("web"))));
    assert_eq!(
        state.endpoints(&key("web"))[0].node.value.address,
        "10.0.0.9"
    );
}

#[test]
fn a_node_goes_with_its_instances() {
    let mut state = two_nodes();
    let applied = run(&mut state, Command::RemoveNode { node: "n1".into() }).unwrap();
    assert_eq!(applied.results.len(), 4);
    assert_eq!(ids(&state, "web"), ["n2/web-1"]);
    assert_eq!(state.instance_count(&key("db")), 0);
    let again = run(&mut state, Command::RemoveNode { node: "n1".into() }).unwrap();
    assert_eq!(again.results[0].change, Change::Absent);
    let gone = Command::RemoveInstance {
        node: "n1".into(),
        stream: LAST,
        id: "web-1".into(),
    };
    assert_eq!(
        refused(&mut state, gone).to_string(),
        "node n1: does not exist"
    );
}

#[test]
fn long_silent_nodes_are_reaped() {
    let mut state = two_nodes();
    let silent = Command::SetNodeState {
        node: "n1".into(),
        state: NodeState::Silent { since: 100 },
    };
    run(&mut state, silent).unwrap();
    let reap = || Command::ReapNodes { ttl: 50_000 };
    let (early, _) = run_at(&mut state, 149_999, reap());
    assert!(early.unwrap().results.is_empty());
    let (late, _) = run_at(&mut state, 150_000, reap());
    let results = late.unwrap().results;
    assert_eq!(results.last().unwrap().key, RowKey::Node("n1".into()));
    assert!(state.node("n1").is_none());
    assert!(state.node("n2").is_some());
}

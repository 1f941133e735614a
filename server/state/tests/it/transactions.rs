//! All or nothing, check-and-set, owners, references.

use mesh_model::{Action, Entry, EntryKey, KeyExchange, Mesh, TlsPolicy};
use mesh_state::{
    Change, Command, CommandError, Envelope, LEVEL, Op, Pair, Refusal, RowKey, State,
};

use crate::make::*;

#[test]
fn nothing_before_a_cluster() {
    let mut state = State::new();
    let command = write("cli", vec![put(service("web", "a"))]);
    assert_eq!(refused(&mut state, command), Refusal::NotBootstrapped);
    assert_eq!(state.version().index, 0);
}

#[test]
fn a_cluster_is_made_once() {
    let mut state = cluster();
    let before = state.clone();
    run(&mut state, bootstrap()).unwrap();
    assert_eq!(state.version(), before.version());
    let Command::Bootstrap { trust_domain, .. } = bootstrap() else {
        unreachable!()
    };
    let other = Command::Bootstrap {
        cluster_id: "other".into(),
        trust_domain,
        datacenter: "dc1".into(),
        epoch: "x".into(),
        default_intention: Action::Allow,
    };
    let refusal = refused(&mut state, other);
    assert!(refusal.to_string().contains("cluster-1"), "{refusal}");
}

#[test]
fn a_put_that_changes_nothing_keeps_its_index() {
    let mut state = cluster();
    let first = run(&mut state, write("cli", vec![put(service("web", "a"))])).unwrap();
    assert_eq!(first.results[0].change, Change::Created);
    assert_eq!(first.results[0].index, first.version.index);
    let again = run(&mut state, write("cli", vec![put(service("web", "a"))])).unwrap();
    assert_eq!(again.results[0].change, Change::Unchanged);
    assert_eq!(again.results[0].index, first.results[0].index);
    assert_eq!(again.version, first.version);
    let other = run(&mut state, write("cli", vec![put(service("web", "b"))])).unwrap();
    assert_eq!(other.results[0].change, Change::Updated);
    let row = state.service(&key("web")).unwrap();
    assert_eq!(row.create_index, first.version.index);
    assert_eq!(row.modify_index, other.version.index);
}

/// The time is the command's, so that every server has the same; a clock that runs
/// behind, as that of the next leader may, takes no row back.
#[test]
fn a_row_says_when_it_was_made_and_changed() {
    let mut state = cluster();
    let mut at = |time, label| {
        let command = write("cli", vec![put(service("web", label))]);
        run_at(&mut state, time, command).0.unwrap();
        let row = state.service(&key("web")).unwrap();
        (row.created_at, row.modified_at)
    };
    assert_eq!(at(5_000, "a"), (5_000, 5_000));
    assert_eq!(at(6_000, "a"), (5_000, 5_000), "it is what it was");
    assert_eq!(at(7_000, "b"), (5_000, 7_000));
    assert_eq!(at(1_000, "c"), (5_000, 7_000));
    let gone = vec![delete(EntryKey::Service(key("web")))];
    run_at(&mut state, 8_000, write("cli", gone)).0.unwrap();
    let command = write("cli", vec![put(service("web", "a"))]);
    run_at(&mut state, 9_000, command).0.unwrap();
    let row = state.service(&key("web")).unwrap();
    assert_eq!((row.created_at, row.modified_at), (9_000, 9_000));
}

#[test]
fn check_and_set() {
    let mut state = cluster();
    let only_if_absent = || write("cli", vec![put_cas(service("web", "a"), 0)]);
    let made = run(&mut state, only_if_absent()).unwrap().version.index;
    let refusal = refused(&mut state, only_if_absent());
    let conflict = Refusal::Conflict {
        key: RowKey::Service(key("web")),
        expected: 0,
        actual: made,
    };
    assert_eq!(refusal, conflict);
    let next = |cas| write("cli", vec![put_cas(service("web", "b"), cas)]);
    refused(&mut state, next(made + 1));
    run(&mut state, next(made)).unwrap();
    refused(&mut state, next(made));

    let delete = |cas| {
        let key = EntryKey::Service(key("web"));
        let cas = Some(cas);
        write("cli", vec![Op::Delete { key, cas }])
    };
    refused(&mut state, delete(made));
    run(&mut state, delete(made + 1)).unwrap();
    let gone = refused(&mut state, delete(made + 1));
    assert!(
        matches!(gone, Refusal::Conflict { actual: 0, .. }),
        "{gone}"
    );
}

#[test]
fn two_writes_of_one_log_entry_have_two_indexes() {
    // Otherwise the second would not be seen by a check-and-set that was
    // read after the first.
    let mut state = cluster();
    let writes = ["a", "b"].map(|label| {
        let ops = vec![put(service("web", label))];
        Envelope::new(1, write("cli", ops))
    });
    let commit = state.apply(&writes);
    let indexes: Vec<u64> = commit
        .outcomes
        .into_iter()
        .map(|outcome| outcome.into_result().unwrap().version.index)
        .collect();
    assert_eq!(indexes, [2, 3]);
    refused(
        &mut state,
        write("cli", vec![put_cas(service("web", "c"), 2)]),
    );
}

#[test]
fn all_or_nothing() {
    let mut state = cluster();
    run(&mut state, write("cli", vec![put(service("web", "a"))])).unwrap();
    let ops = vec![
        put(service("db", "a")),
        put(intention("web", "db", Action::Allow)),
        put_cas(service("web", "b"), 77),
    ];
    refused(&mut state, write("cli", ops));
    assert!(state.service(&key("db")).is_none());

    let missing = vec![
        put(service("db", "a")),
        delete(EntryKey::Route(key("nothing"))),
    ];
    let refusal = refused(&mut state, write("cli", missing));
    assert_eq!(refusal.to_string(), "route nothing: does not exist");

    let twice = vec![put(service("db", "a")), put(service("db", "b"))];
    let refusal = refused(&mut state, write("cli", twice));
    assert!(refusal.to_string().contains("written twice"), "{refusal}");
    assert_eq!(refused(&mut state, write("", vec![])), Refusal::NoOwner);
}

#[test]
fn a_requirement_holds_the_rest() {
    let mut state = cluster();
    let made = run(&mut state, write("cli", vec![put(service("web", "a"))])).unwrap();
    let ops = |cas| {
        let key = RowKey::Service(key("web"));
        vec![Op::Require { key, cas }, put(service("db", "a"))]
    };
    refused(&mut state, write("cli", ops(0)));
    let applied = run(&mut state, write("cli", ops(made.version.index))).unwrap();
    assert_eq!(applied.results.len(), 1);
}

#[test]
fn rows_have_owners() {
    let mut state = cluster();
    run(&mut state, write("cli", vec![put(service("web", "a"))])).unwrap();
    let theirs = || vec![put(service("web", "b"))];
    let refusal = refused(&mut state, write("terraform", theirs()));
    assert_eq!(
        refusal.to_string(),
        "service web: belongs to cli; change it there, or force"
    );
    let gone = || vec![delete(EntryKey::Service(key("web")))];
    refused(&mut state, write("terraform", gone()));
    run(&mut state, force("terraform", theirs())).unwrap();
    assert_eq!(state.service(&key("web")).unwrap().owner, "terraform");
    refused(&mut state, write("cli", gone()));
    run(&mut state, write("terraform", gone())).unwrap();
    // What is gone is nobody's.
    run(&mut state, write("cli", theirs())).unwrap();
}

#[test]
fn order_does_not_matter() {
    let ops = [
        put(route("web", "v1")),
        put(service("web", "a")),
        put(intention("*", "web", Action::Allow)),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut state = cluster();
        let ops = order.map(|i| ops[i].clone()).to_vec();
        run(&mut state, write("cli", ops)).unwrap();
        assert!(state.route(&key("web")).is_some());
    }
}

#[test]
fn what_others_need_stays() {
    let mut state = cluster();
    run(
        &mut state,
        write(
            "cli",
            vec![put(service("web", "a")), put(route("web", "v1"))],
        ),
    )
    .unwrap();
    let gone = || delete(EntryKey::Service(key("web")));
    let refusal = refused(&mut state, write("cli", vec![gone()]));
    assert_eq!(
        refusal.to_string(),
        "service web: is still referred to by route web; change or delete that first, or in the same write"
    );
    // Not even by force: that is about owners.
    refused(&mut state, force("cli", vec![gone()]));
    let both = vec![gone(), delete(EntryKey::Route(key("web")))];
    run(&mut state, write("cli", both)).unwrap();
    assert!(state.route(&key("web")).is_none());
}

#[test]
fn what_is_wrong_is_refused_with_the_reason() {
    let mut state = cluster();
    let ops = vec![put(route("web", "v3")), put(service("web", "a"))];
    let refusal = refused(&mut state, write("cli", ops));
    assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
    let text = refusal.to_string();
    assert!(text.starts_with("route web: rule all: to"), "{text}");
    assert!(
        text.contains("subset v3 of service web is not defined"),
        "{text}"
    );
}

#[test]
fn what_looks_wrong_is_said() {
    let mut state = cluster();
    let allow_all = r#"{"source":{"name":"a"},"destination":{"name":"web"},"permissions":[{"action":"allow"}]}"#;
    let entry = mesh_model::Entry::Intention(serde_json::from_str(allow_all).unwrap());
    let ops = vec![
        put(mesh(Some(Action::Allow))),
        put(service("web", "a")),
        put(entry),
    ];
    let applied = run(&mut state, write("cli", ops)).unwrap();
    assert_eq!(applied.warnings.len(), 1, "{:?}", applied.warnings);
    assert!(applied.warnings[0].message.contains("intention a => web"));
}

#[test]
fn the_clock_never_runs_back() {
    let mut state = cluster();
    run_at(
        &mut state,
        5_000,
        write("cli", vec![put(service("a", "1"))]),
    )
    .0
    .unwrap();
    assert_eq!(state.now(), 5_000);
    run_at(
        &mut state,
        3_000,
        write("cli", vec![put(service("b", "1"))]),
    )
    .0
    .unwrap();
    assert_eq!(state.now(), 5_000);
}

#[test]
fn a_tls_policy_has_something_in_common_with_the_one_before() {
    let mut state = cluster();
    let policy = |names: &[KeyExchange]| {
        let tls = TlsPolicy {
            key_exchange: names.to_vec(),
            ..TlsPolicy::default()
        };
        let entry = Entry::Mesh(Mesh {
            tls,
            ..Mesh::default()
        });
        write("cli", vec![put(entry)])
    };
    let hybrid = policy(&[KeyExchange::Secp256r1MlKem768]);
    let stays = |state: &mut State, command: Command| {
        let before = state.tls();
        let why = crate::make::refused(state, command).to_string();
        assert!(
            why.contains("mesh: tls: key_exchange has nothing in common"),
            "{why}"
        );
        assert_eq!(state.tls(), before);
    };
    stays(&mut state, hybrid.clone());
    run(
        &mut state,
        policy(&[KeyExchange::P384, KeyExchange::Secp256r1MlKem768]),
    )
    .unwrap();
    run(&mut state, hybrid).unwrap();
    // The defaults come back by a step, too.
    stays(&mut state, policy(&[KeyExchange::P384]));
    stays(&mut state, policy(&[]));
    stays(&mut state, write("cli", vec![delete(EntryKey::Mesh)]));
    // What has nothing to do with it is written.
    run(&mut state, write("cli", vec![put(service("web", ""))])).unwrap();
}

#[test]
fn the_default_intention_is_the_mesh_blocks_then_the_clusters() {
    let mut state = cluster();
    assert_eq!(state.default_intention(), Action::Deny);
    let allow = Command::PutClusterConfig {
        default_intention: Action::Allow,
        cas: None,
    };
    run(&mut state, allow).unwrap();
    assert_eq!(state.default_intention(), Action::Allow);
    run(
        &mut state,
        write("cli", vec![put(mesh(Some(Action::Deny)))]),
    )
    .unwrap();
    assert_eq!(state.default_intention(), Action::Deny);
    run(&mut state, write("cli", vec![put(mesh(None))])).unwrap();
    assert_eq!(state.default_intention(), Action::Allow);
}

#[test]
fn intentions_come_in_the_order_in_which_they_are_asked() {
    let mut state = cluster();
    let pairs = [
        ("*/*", "*/*"),
        ("web", "db"),
        ("*", "db"),
        ("web", "*"),
        ("*", "*"),
        ("api", "db"),
        ("web", "other"),
        ("team/web", "team/*"),
    ];
    let ops = pairs
        .iter()
        .map(|(source, destination)| {
            let action = match *source == "web" {
                true => Action::Deny,
                false => Action::Allow,
            };
            put(intention(source, destination, action))
        })
        .collect();
    run(&mut state, write("cli", ops)).unwrap();
    let names = |rows: Vec<std::sync::Arc<mesh_model::Row<mesh_model::Intention>>>| {
        let name = |row: &std::sync::Arc<mesh_model::Row<mesh_model::Intention>>| {
            format!("{} => {}", row.value.source, row.value.destination)
        };
        rows.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(state.intentions_for(&key("db"))),
        [
            "web => db", // denies: before those of the same precedence
            "api => db",
            "* => db",
            "web => *",
            "* => *",
            "*/* => */*"
        ]
    );
    assert_eq!(
        names(state.intentions_matching_source(&key("web"))),
        [
            "web => db",
            "web => other",
            "* => db",
            "web => *",
            "* => *",
            "*/* => */*"
        ]
    );
    assert_eq!(state.intentions().len(), pairs.len());
    assert!(state.intention(&key("*"), &key("db")).is_some());
    let pair = Pair {
        destination: key("db"),
        source: key("*"),
    };
    assert!(state.row(&RowKey::Intention(pair)).is_some());
}

#[test]
fn a_command_that_is_not_known_stops_the_server() {
    for text in [
        r#"{"v":2,"time":1,"cmd":{"raise_level":{"level":1}}}"#,
        r#"{"v":1,"time":1,"cmd":{"launch":{}}}"#,
        r#"{"v":1,"time":1,"cmd":{"raise_level":{"level":1,"soon":true}}}"#,
        r#"{"v":1,"time":1,"cmd":{"raise_level":{"level":1}},"extra":1}"#,
        r#"{"v":1,"time":1,"cmd":{"transaction":{"owner":"cli","ops":[{"put":{"entry":{"kind":"mesh","value":{"new":1}}}}]}}}"#,
        r#"{"v":1,"time":1,"cmd":{"transaction":{"owner":"cli","ops":[{"put":{"entry":{"kind":"mesh","value":{},"also":1}}}]}}}"#,
    ] {
        let error = Envelope::decode(text.as_bytes(), LEVEL).unwrap_err();
        assert!(matches!(error, CommandError::Unknown(_)), "{text}: {error}");
    }
    let above = r#"{"v":1,"time":1,"cmd":{"raise_level":{"level":99}}}"#;
    let error = Envelope::decode(above.as_bytes(), LEVEL).unwrap_err();
    let (needs, level) = (99, LEVEL);
    assert_eq!(error, CommandError::Level { needs, level });
    assert!(Envelope::decode(above.as_bytes(), 99).is_ok());
    for text in ["", "{", "[]", "null", "{\"v\":\"x\"}"] {
        let error = Envelope::decode(text.as_bytes(), LEVEL).unwrap_err();
        assert!(
            matches!(error, CommandError::Malformed(_)),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_level_only_rises() {
    let mut state = cluster();
    assert_eq!(state.level(), 1);
    run(&mut state, Command::RaiseLevel { level: LEVEL }).unwrap();
    run(&mut state, Command::RaiseLevel { level: 0 }).unwrap();
    assert_eq!(state.level(), LEVEL);
    state.admits(&bootstrap()).unwrap();
}

//! Consul's config entries and the rows that they make.

use mesh_model::{Action, EntryKey};
use mesh_state::{Change, ConfigEntry, ConfigKey, Op, Refusal, State};

use crate::make::*;

fn config_key(kind: &str, name: &str) -> ConfigKey {
    ConfigKey {
        kind: kind.into(),
        key: key(name),
    }
}

fn config(kind: &str, name: &str, text: &str, rows: Vec<EntryKey>) -> Op {
    Op::PutConfig {
        entry: ConfigEntry {
            key: config_key(kind, name),
            text: text.into(),
            rows,
        },
        cas: None,
    }
}

fn delete_config(kind: &str, name: &str) -> Op {
    Op::DeleteConfig {
        key: config_key(kind, name),
        cas: None,
    }
}

fn pair(source: &str, destination: &str) -> EntryKey {
    EntryKey::Intention {
        source: key(source),
        destination: key(destination),
    }
}

/// `service-intentions db`, with the sources `web` and `api`.
fn with_intentions() -> State {
    let mut state = cluster();
    let ops = vec![
        put(intention("web", "db", Action::Allow)),
        put(intention("api", "db", Action::Allow)),
        config(
            "service-intentions",
            "db",
            "as written",
            vec![pair("web", "db"), pair("api", "db")],
        ),
    ];
    run(&mut state, write("cli", ops)).unwrap();
    state
}

#[test]
fn it_is_kept_word_for_word() {
    let state = with_intentions();
    let row = state
        .config_entry(&config_key("service-intentions", "db"))
        .unwrap();
    assert_eq!(row.value.text, "as written");
    assert_eq!(row.modify_index, 2);
}

#[test]
fn deleting_it_removes_its_rows_only() {
    let mut state = with_intentions();
    run(
        &mut state,
        write("cli", vec![put(intention("*", "db", Action::Deny))]),
    )
    .unwrap();
    let ops = vec![delete_config("service-intentions", "db")];
    let applied = run(&mut state, write("cli", ops)).unwrap();
    assert_eq!(applied.results.len(), 3);
    assert!(applied.results.iter().all(|r| r.change == Change::Deleted));
    assert!(state.intention(&key("web"), &key("db")).is_none());
    assert!(state.intention(&key("*"), &key("db")).is_some());
}

#[test]
fn a_row_that_it_no_longer_has_goes() {
    let mut state = with_intentions();
    let ops = vec![
        put(intention("web", "db", Action::Deny)),
        config(
            "service-intentions",
            "db",
            "shorter",
            vec![pair("web", "db")],
        ),
    ];
    run(&mut state, write("cli", ops)).unwrap();
    assert!(state.intention(&key("web"), &key("db")).is_some());
    assert!(state.intention(&key("api"), &key("db")).is_none());
}

#[test]
fn its_rows_are_changed_through_it() {
    let mut state = with_intentions();
    let direct = || vec![put(intention("web", "db", Action::Deny))];
    let refusal = refused(&mut state, write("cli", direct()));
    assert_eq!(
        refusal.to_string(),
        "intention web => db: belongs to config entry service-intentions db; change it there, or force"
    );
    refused(&mut state, write("cli", vec![delete(pair("web", "db"))]));
    run(&mut state, force("cli", direct())).unwrap();
    // Taken over: the entry's deletion leaves it.
    let ops = vec![delete_config("service-intentions", "db")];
    run(&mut state, write("cli", ops)).unwrap();
    assert!(state.intention(&key("web"), &key("db")).is_some());
    assert!(state.intention(&key("api"), &key("db")).is_none());
    run(&mut state, write("cli", vec![delete(pair("web", "db"))])).unwrap();
}

#[test]
fn it_does_not_write_over_what_was_written_directly() {
    let mut state = cluster();
    run(
        &mut state,
        write("cli", vec![put(service("web", "direct"))]),
    )
    .unwrap();
    let web = EntryKey::Service(key("web"));
    let entry = |label: &str| {
        vec![
            put(service("web", label)),
            config("service-defaults", "web", "{}", vec![web.clone()]),
        ]
    };
    // The same owner, even with the same words: the row would go with the entry.
    for label in ["entry", "direct"] {
        let refusal = refused(&mut state, write("cli", entry(label)));
        assert_eq!(
            refusal.to_string(),
            "service web: belongs to cli, who wrote it directly and not by a config entry; change \
             it there, or force"
        );
    }
    run(&mut state, force("cli", entry("entry"))).unwrap();
    // Now it is the entry's: it is changed through it, and goes with it.
    run(&mut state, write("cli", entry("again"))).unwrap();
    let ops = vec![delete_config("service-defaults", "web")];
    run(&mut state, write("cli", ops)).unwrap();
    assert!(state.service(&key("web")).is_none());
}

#[test]
fn two_entries_make_one_row() {
    let mut state = cluster();
    let web = || vec![EntryKey::Service(key("web"))];
    let defaults = vec![
        put(service("web", "defaults")),
        config("service-defaults", "web", "{}", web()),
    ];
    run(&mut state, write("cli", defaults)).unwrap();
    let resolver = vec![
        put(service("web", "both")),
        config("service-resolver", "web", "{}", web()),
    ];
    run(&mut state, write("cli", resolver)).unwrap();
    let ops = vec![
        put(service("web", "resolver")),
        delete_config("service-defaults", "web"),
    ];
    run(&mut state, write("cli", ops)).unwrap();
    assert!(state.service(&key("web")).is_some());
    let ops = vec![delete_config("service-resolver", "web")];
    run(&mut state, write("cli", ops)).unwrap();
    assert!(state.service(&key("web")).is_none());
}

#[test]
fn it_cannot_claim_what_it_does_not_make() {
    let mut state = with_intentions();
    run(&mut state, write("other", vec![put(service("web", "a"))])).unwrap();
    for row in [
        EntryKey::Service(key("web")),
        EntryKey::Service(key("nothing")),
    ] {
        let ops = vec![config("service-defaults", "web", "{}", vec![row])];
        let refusal = refused(&mut state, write("cli", ops));
        assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
    }
    let ops = vec![
        delete(pair("web", "db")),
        config("service-intentions", "db", "x", vec![pair("web", "db")]),
    ];
    refused(&mut state, write("cli", ops));
}

#![allow(clippy::unwrap_used)]
use mesh_tfprotocol::{Diagnostic, Path};

use super::*;

fn entry(noun: Noun) -> Entry {
    Entry::new(&Mesh::default(), noun)
}

/// What is said of a configuration, as Terraform asks it.
async fn said(noun: Noun, config: &Value) -> Vec<Diagnostic> {
    let entry = entry(noun);
    let mut said = entry.schema().validate(config, true);
    entry.validate(config, &mut said).await;
    said.into_iter().collect()
}

fn rule(name: &str, weights: &[i64]) -> Value {
    let to = weights.iter().enumerate().map(|(at, weight)| {
        Value::object([
            ("subset", Value::from(format!("v{at}"))),
            ("weight", (*weight).into()),
        ])
    });
    Value::object([
        ("name", Value::from(name)),
        ("to", Value::List(to.collect())),
    ])
}

fn route(rules: Vec<Value>) -> Value {
    Value::object([("name", Value::from("web")), ("rules", Value::List(rules))])
}

#[tokio::test]
async fn a_good_one_is_taken() {
    let good = route(vec![rule("a", &[90, 10])]);
    assert_eq!(said(Noun::Route, &good).await, []);
    let mut intention =
        Value::object([("source", Value::from("*")), ("destination", "web".into())]);
    intention.set("action", "allow");
    assert_eq!(said(Noun::Intention, &intention).await, []);
    assert_eq!(
        said(Noun::Defaults, &entry(Noun::Defaults).schema().nothing()).await,
        []
    );
}

#[tokio::test]
async fn what_the_model_refuses_is_said_of_its_attribute() {
    let condition =
        |name: &str| Value::object([("name", Value::from(name)), ("exact", "b".into())]);
    let two = Value::object([
        ("path_exact", Value::from("/a")),
        ("path_prefix", Value::from("/b")),
    ]);
    let header = Value::object([("headers", Value::List(vec![condition("a b")]))]);
    let with = |field: &str, value: Value| {
        let mut rule = rule("a", &[100]);
        rule.set(field, value);
        route(vec![rule])
    };
    let service =
        |field: &str, value: Value| Value::object([("name", Value::from("web")), (field, value)]);
    let intention = |field: &str, value: Value| {
        let mut value = Value::object([(field, value)]);
        value.set("source", "a");
        value.set("destination", "b");
        value
    };
    let deny = Value::object([("action", Value::from("deny")), ("path_prefix", "a".into())]);
    for (noun, config, path, part) in [
        (
            Noun::Route,
            route(vec![rule("a", &[90])]),
            "rules[0]",
            "weights sum to 90",
        ),
        (
            Noun::Route,
            route(vec![rule("a", &[100]), rule("a", &[100])]),
            "rules[0]",
            "two rules have this name",
        ),
        (
            Noun::Route,
            with("timeout", "5".into()),
            "rules[0].timeout",
            "is not a duration",
        ),
        (
            Noun::Route,
            with("match", Value::List(vec![two])),
            "rules[0].match[0]",
            "path_exact and path_prefix",
        ),
        (
            Noun::Route,
            with("match", Value::List(vec![header])),
            "rules[0].match[0].headers[0]",
            "not a header's name",
        ),
        (
            Noun::Route,
            with("retries", Value::object([("attempts", Value::from(0))])),
            "rules[0].retries.attempts",
            "1 or more",
        ),
        (
            Noun::Service,
            service("protocol", "htp".into()),
            "protocol",
            "must be one of",
        ),
        (
            Noun::Service,
            service("default_subset", "v9".into()),
            "default_subset",
            "`v9` is not defined",
        ),
        (
            Noun::Service,
            service("connect_timeout", "0s".into()),
            "connect_timeout",
            "must be more than 0",
        ),
        (
            Noun::Service,
            service("name", "a b".into()),
            "name",
            "has the character",
        ),
        (
            Noun::Intention,
            intention("permissions", Value::List(vec![deny])),
            "permissions[0]",
            "does not begin with `/`",
        ),
        (
            Noun::Intention,
            intention("source", Value::Null),
            "",
            "neither an action nor permissions",
        ),
    ] {
        let all = said(noun, &config).await;
        let errors: Vec<_> = all.iter().filter(|one| !one.is_warning).collect();
        assert_eq!(errors.len(), 1, "{part}: {all:?}");
        assert_eq!(errors[0].path.to_string(), path, "{all:?}");
        assert!(
            errors[0].detail.contains(part),
            "{part}: {}",
            errors[0].detail
        );
    }
}

#[tokio::test]
async fn what_is_not_known_yet_is_not_judged() {
    let mut config = route(vec![rule("a", &[90])]);
    config.set("rules", Value::List(vec![Value::Unknown]));
    assert_eq!(said(Noun::Route, &config).await, []);
    // But a name that is not known yet hides no mistake of the rules.
    let mut config = route(vec![rule("a", &[90])]);
    config.set("name", Value::Unknown);
    assert_eq!(
        said(Noun::Route, &config).await[0].path,
        Path::of("rules").index(0)
    );
}

#[test]
fn ids_name_rows() {
    let names = crate::names::Names::default();
    names.set("team");
    for (noun, id, wanted) in [
        (Noun::Service, "web", "team/web"),
        (Noun::Service, "default/web", "web"),
        (Noun::Route, "other/web", "other/web"),
        (
            Noun::Intention,
            "frontend/user-service",
            "team/frontend/team/user-service",
        ),
        (
            Noun::Intention,
            "a/frontend/b/user-service",
            "a/frontend/b/user-service",
        ),
        (
            Noun::Intention,
            "*/user-service",
            "team/*/team/user-service",
        ),
        (Noun::Defaults, "mesh", "mesh"),
    ] {
        let mut state = entry(noun).schema().nothing();
        noun.import(id, &names, &mut state).unwrap();
        assert_eq!(noun.id(&state, &names), wanted, "{id}");
    }
    for (noun, id) in [
        (Noun::Service, "a/b/c"),
        (Noun::Service, "*"),
        (Noun::Intention, "web"),
        (Noun::Intention, "a/b/c"),
        (Noun::Defaults, "web"),
    ] {
        let mut state = entry(noun).schema().nothing();
        let error = noun.import(id, &names, &mut state).unwrap_err();
        assert!(error.detail.contains("write `"), "{}", error.detail);
    }
}

#[test]
fn each_noun_is_registered_under_its_name() {
    let plugin = crate::plugin();
    for noun in Noun::ALL {
        assert!(
            plugin.resource_schemas().contains_key(noun.resource()),
            "{noun:?}"
        );
    }
}

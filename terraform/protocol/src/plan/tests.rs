#![allow(clippy::unwrap_used)]
use super::*;
use crate::Type;

fn schema() -> Schema {
    Schema::new(
        "A thing.",
        vec![
            Attribute::string("name").required().replaces(),
            Attribute::string("protocol").default("tcp"),
            Attribute::string("text").optional(),
            Attribute::string("secret").optional().write_only(),
            Attribute::string("id").computed().stable(),
            Attribute::number("index").computed(),
            Attribute::string("zone").optional().computed(),
            Attribute::nested(
                "rules",
                Nesting::List,
                vec![
                    Attribute::number("weight").default(100),
                    Attribute::string("kind").optional().replaces(),
                    Attribute::string("given").computed().stable(),
                ],
            )
            .optional(),
            Attribute::new("free", Type::Dynamic).optional(),
        ],
    )
}

fn config() -> Value {
    let mut value = schema().nothing();
    value.set("name", "web");
    value.set("secret", "s3cret");
    value.set(
        "rules",
        Value::List(vec![Value::object([("kind", Value::from("a"))])]),
    );
    value
}

/// The state after the first apply.
fn state() -> Value {
    let mut state = plan(&schema(), &Value::Null, &config()).state;
    state.set("id", "7");
    state.set("index", 1);
    state.set("zone", "z");
    let rule = Value::object([
        ("weight", Value::from(100)),
        ("kind", "a".into()),
        ("given", "g".into()),
    ]);
    state.set("rules", Value::List(vec![rule]));
    state
}

#[test]
fn a_new_one_has_defaults_and_what_only_the_making_tells() {
    let planned = plan(&schema(), &Value::Null, &config());
    let state = planned.state;
    assert_eq!(planned.replaces, []);
    assert_eq!(state.get("protocol"), &"tcp".into());
    assert_eq!(state.get("text"), &Value::Null);
    assert_eq!(state.get("secret"), &Value::Null, "never planned");
    for name in ["id", "index", "zone"] {
        assert_eq!(state.get(name), &Value::Unknown, "{name}");
    }
    let rule = &state.get("rules").elements()[0];
    assert_eq!(rule.get("weight"), &Value::from(100));
    assert_eq!(rule.get("given"), &Value::Unknown);
}

#[test]
fn the_same_again_changes_nothing() {
    let planned = plan(&schema(), &state(), &config());
    assert_eq!(planned.state, state());
    assert_eq!(planned.replaces, []);
}

#[test]
fn a_change_leaves_what_is_stable() {
    let mut config = config();
    config.set("text", "new");
    let planned = plan(&schema(), &state(), &config);
    assert_eq!(planned.state.get("id"), &"7".into());
    assert_eq!(planned.state.get("index"), &Value::Unknown);
    assert_eq!(planned.state.get("zone"), &Value::Unknown);
    assert_eq!(
        planned.state.get("rules").elements()[0].get("given"),
        &"g".into()
    );
    assert_eq!(planned.replaces, []);
}

#[test]
fn what_is_not_written_any_more_goes_back_to_its_default() {
    let mut before = state();
    before.set("protocol", "http");
    before.set("text", "old");
    let planned = plan(&schema(), &before, &config());
    assert_eq!(planned.state.get("protocol"), &"tcp".into());
    assert_eq!(planned.state.get("text"), &Value::Null);
}

#[test]
fn what_makes_it_anew_is_named_at_every_depth() {
    let mut config = config();
    config.set("name", "other");
    config.set(
        "rules",
        Value::List(vec![Value::object([("kind", Value::from("b"))])]),
    );
    let planned = plan(&schema(), &state(), &config);
    let inner = Path::of("rules").index(0).attribute("kind");
    assert_eq!(planned.replaces, [Path::of("name"), inner]);
}

#[test]
fn what_is_not_known_yet_stays_so() {
    let mut config = config();
    config.set("rules", Value::Unknown);
    config.set("text", Value::Unknown);
    let planned = plan(&schema(), &Value::Null, &config);
    assert_eq!(planned.state.get("rules"), &Value::Unknown);
    assert_eq!(planned.state.get("text"), &Value::Unknown);
    // And an unknown name may be another one.
    config.set("name", Value::Unknown);
    let planned = plan(&schema(), &state(), &config);
    assert_eq!(planned.replaces, [Path::of("name")]);
}

#[test]
fn a_set_has_no_order() {
    let inner = vec![
        Attribute::string("word").required(),
        Attribute::number("weight").default(1),
    ];
    let schema = Schema::new(
        "",
        vec![
            Attribute::nested("words", Nesting::Set, inner).optional(),
            Attribute::new("plain", Type::set(Type::String)).optional(),
            Attribute::string("given").computed(),
        ],
    );
    let word =
        |word: &str, weight: Value| Value::object([("word", word.into()), ("weight", weight)]);
    // A null sorts otherwise than the default that it becomes.
    let config = Value::object([
        (
            "words",
            Value::List(vec![word("a", 3.into()), word("b", Value::Null)]),
        ),
        ("plain", vec!["y", "x"].into()),
    ]);
    let prior = Value::object([
        (
            "words",
            Value::List(vec![word("b", 1.into()), word("a", 3.into())]),
        ),
        ("plain", vec!["x", "y"].into()),
        ("given", "g".into()),
    ]);
    assert_eq!(plan(&schema, &prior, &config).state, prior);
    let mut read = prior.clone();
    read.set("plain", vec!["y", "x"]);
    assert_eq!(schema.in_words_of(&prior, &read), prior);
    read.set("plain", vec!["y", "y"]);
    assert_eq!(schema.in_words_of(&prior, &read), read);
}

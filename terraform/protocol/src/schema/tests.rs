#![allow(clippy::unwrap_used)]
use super::*;
use crate::Path;

fn schema() -> Schema {
    Schema::new(
        "A thing.",
        vec![
            Attribute::string("name").required().describe("Its name."),
            Attribute::string("protocol")
                .default("tcp")
                .one_of(["tcp", "http"])
                .describe("What it speaks."),
            Attribute::string("timeout")
                .optional()
                .normal(|value| match value.as_str() {
                    Some("60s") => "1m".into(),
                    _ => value.clone(),
                })
                .describe("How long."),
            Attribute::string("secret")
                .optional()
                .write_only()
                .describe("Not kept."),
            Attribute::new("meta", Type::map(Type::String))
                .optional()
                .describe("Free."),
            Attribute::nested(
                "rules",
                Nesting::List,
                vec![
                    Attribute::number("weight")
                        .default(100)
                        .describe("Its part."),
                    Attribute::string("to")
                        .optional()
                        .one_of(["v1", "v2"])
                        .describe("Where."),
                ],
            )
            .optional()
            .describe("In order."),
        ],
    )
}

fn config(rules: Value) -> Value {
    let mut value = schema().nothing();
    value.set("name", "web");
    value.set("rules", rules);
    value
}

#[test]
fn this_one_has_no_mistakes_and_others_are_named() {
    assert_eq!(
        schema()
            .timeout(Operation::Create, Duration::from_secs(600))
            .mistakes(),
        [""; 0]
    );
    let wrong = Schema::new(
        "",
        vec![
            Attribute::string("Name")
                .required()
                .optional()
                .describe("x"),
            Attribute::string("a").describe("x"),
            Attribute::number("b").default("text").describe("x"),
            Attribute::string("c").computed().write_only(),
            Attribute::nested(
                "d",
                Nesting::Set,
                vec![Attribute::string("e").computed().describe("x")],
            )
            .optional()
            .describe("x"),
        ],
    )
    .identified_by(&["nobody"]);
    insta::assert_snapshot!(wrong.mistakes().join("\n"), @r"
    Name: its name is not of a-z, 0-9 and _
    Name: is required, and something else
    a: is neither required, optional nor computed
    b: its default is not of its type
    c: is only written, and computed
    c: has no description
    d.e: is computed within a set
    nobody: is in the identity and not an attribute
    ");
}

#[test]
fn checks_name_the_attribute() {
    let rules = Value::List(vec![
        Value::object([("weight", Value::Null), ("to", "v1".into())]),
        Value::object([("weight", Value::Unknown), ("to", "v3".into())]),
    ]);
    let said = schema().validate(&config(rules), true);
    let said: Vec<_> = said.into_iter().collect();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].path, Path::of("rules").index(1).attribute("to"));
    assert_eq!(
        said[0].detail,
        "`rules[1].to` must be one of v1, v2, not `v3`."
    );
}

#[test]
fn what_is_only_written_needs_a_terraform_that_knows_it() {
    let mut value = config(Value::Null);
    assert!(schema().validate(&value, false).is_empty());
    value.set("secret", "s3cret");
    assert!(schema().validate(&value, true).is_empty());
    let said = schema().validate(&value, false);
    assert!(said.has_errors());
    assert!(!format!("{said:?}").contains("s3cret"));
    assert!(schema().without_secrets(&value).get("secret").is_null());
}

#[test]
fn defaults_are_filled_in_at_every_depth() {
    let rules = Value::List(vec![Value::object([("to", Value::from("v1"))])]);
    let value = schema().with_defaults(&config(rules));
    assert_eq!(value.get("protocol"), &"tcp".into());
    assert_eq!(
        value.get("rules").elements()[0].get("weight"),
        &Value::from(100)
    );
    assert_eq!(schema().with_defaults(&Value::Null), Value::Null);
}

#[test]
fn what_means_the_same_keeps_its_words() {
    let mut before = config(Value::List(vec![]));
    before.set("timeout", "60s");
    before.set("meta", Value::object([("a", Value::from("b"))]));
    let mut read = config(Value::Null);
    read.set("timeout", "1m");
    read.set("meta", Value::Null);
    let kept = schema().in_words_of(&before, &read);
    assert_eq!(kept.get("timeout"), &"60s".into());
    assert_eq!(kept.get("rules"), &Value::List(vec![]));
    // What does not mean the same is what was read.
    assert_eq!(kept.get("meta"), &Value::Null);
    read.set("timeout", "2m");
    assert_eq!(
        schema().in_words_of(&before, &read).get("timeout"),
        &"2m".into()
    );
}

#[test]
fn timeouts_are_the_users_or_the_defaults() {
    let schema = schema().timeout(Operation::Create, Duration::from_secs(600));
    let mut value = schema.nothing();
    let time = |value: &Value| schema.time_for(Operation::Create, value);
    assert_eq!(time(&value), Some(Duration::from_secs(600)));
    value.set(
        "timeouts",
        Value::object([("create", Value::from("1m30s"))]),
    );
    assert_eq!(time(&value), Some(Duration::from_secs(90)));
    assert_eq!(schema.time_for(Operation::Delete, &value), None);
    value.set("timeouts", Value::object([("create", Value::from("soon"))]));
    let said: Vec<_> = schema.validate(&value, true).into_iter().collect();
    assert_eq!(said[0].path, Path::of("timeouts").attribute("create"));
}

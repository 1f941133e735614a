//! The form of each command: old logs are read for ever.

use std::collections::BTreeSet;

use mesh_state::{Command, Envelope, LEVEL, Op, Restore};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// This text may gain lines, and no line may change once it is released.
const FORMS: &str = include_str!("forms.jsonl");

#[test]
fn the_form_of_each_command_is_kept() {
    for (number, text) in FORMS.lines().enumerate() {
        let envelope = Envelope::decode(text.as_bytes(), LEVEL);
        let envelope = envelope.unwrap_or_else(|e| panic!("line {}: {e}", number + 1));
        assert_eq!(String::from_utf8(envelope.encode().unwrap()).unwrap(), text);
    }
}

#[test]
fn each_command_has_its_form() {
    let commands: Vec<Value> = FORMS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["cmd"].clone())
        .collect();
    let ops = commands
        .iter()
        .filter_map(|one| one["transaction"]["ops"].as_array());
    let ops: Vec<Value> = ops.flatten().cloned().collect();
    let steps = commands
        .iter()
        .filter_map(|one| one.get("restore"))
        .cloned();
    assert_eq!(tags(&commands), kinds::<Command>());
    assert_eq!(tags(&ops), kinds::<Op>());
    assert_eq!(tags(&steps.collect::<Vec<_>>()), kinds::<Restore>());
}

fn tags(values: &[Value]) -> BTreeSet<String> {
    let keys = values
        .iter()
        .flat_map(|value| value.as_object().unwrap().keys());
    keys.cloned().collect()
}

/// Every kind that there is: what serde says was to be expected. Those of tests
/// aside.
fn kinds<T: DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_json::from_str::<T>(r#"{"?":0}"#) else {
        panic!("it is no kind");
    };
    let text = error.to_string();
    let expected = text.split_once("expected one of").unwrap().1;
    let names = expected.split('`').skip(1).step_by(2);
    names
        .filter(|name| *name != "tomorrow")
        .map(str::to_owned)
        .collect()
}

//! Two nouns, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Longest value that a line shows.
const LONGEST: usize = 60;

/// What differs, a line each: `rules[canary].to[v1].weight: 90 -> 50`.
pub(crate) fn lines(before: &Value, after: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare("", Some(before), Some(after), &mut out);
    out
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<String>) {
    match (before, after) {
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            objects(path, before, after, out);
        }
        (Some(Value::Array(before)), Some(Value::Array(after)))
            if before.iter().chain(after).all(Value::is_object) =>
        {
            lists(path, before, after, out);
        }
        // What came or went as a whole is shown by its fields, if it has any.
        (None, Some(Value::Object(fields))) if !fields.is_empty() => {
            objects(path, &Map::new(), fields, out);
        }
        (Some(Value::Object(fields)), None) if !fields.is_empty() => {
            objects(path, fields, &Map::new(), out);
        }
        (None, Some(Value::Array(list))) if list.iter().any(Value::is_object) => {
            lists(path, &[], list, out);
        }
        (Some(Value::Array(list)), None) if list.iter().any(Value::is_object) => {
            lists(path, list, &[], out);
        }
        _ => out.push(format!("{path}: {} -> {}", shown(before), shown(after))),
    }
}

fn objects(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    out: &mut Vec<String>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let inner = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        compare(&inner, before.get(name), after.get(name), out);
    }
}

/// Elements are matched by what they are called; where they have no names, or
/// share them, by their places.
fn lists(path: &str, before: &[Value], after: &[Value], out: &mut Vec<String>) {
    let (Some(old), Some(new)) = (names(before), names(after)) else {
        let longest = before.len().max(after.len());
        for index in 0..longest {
            let inner = format!("{path}[{}]", index + 1);
            compare(&inner, before.get(index), after.get(index), out);
        }
        return;
    };
    let find = |names: &[String], list: &'_ [Value], name: &String| {
        let place = names.iter().position(|one| one == name)?;
        list.get(place).cloned()
    };
    let all = old
        .iter()
        .chain(new.iter().filter(|name| !old.contains(name)));
    for name in all {
        let (was, is) = (find(&old, before, name), find(&new, after, name));
        compare(&format!("{path}[{name}]"), was.as_ref(), is.as_ref(), out);
    }
    let kept = |names: &[String], others: &[String]| -> Vec<String> {
        names
            .iter()
            .filter(|name| others.contains(name))
            .cloned()
            .collect()
    };
    let (was, is) = (kept(&old, &new), kept(&new, &old));
    if was != is {
        let order = |names: &[String]| names.join(", ");
        out.push(format!("{path}: order {} -> {}", order(&was), order(&is)));
    }
}

/// What the elements are called, if each has a name of its own.
fn names(list: &[Value]) -> Option<Vec<String>> {
    let names: Vec<String> = list.iter().map(name).collect::<Option<_>>()?;
    let distinct: BTreeSet<&String> = names.iter().collect();
    (distinct.len() == names.len()).then_some(names)
}

/// A rule, header or parameter has a name; a destination is a subset of a
/// service.
fn name(value: &Value) -> Option<String> {
    if let Some(name) = value.get("name").and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    let subset = value.get("subset").and_then(Value::as_str);
    let service = value
        .get("service")
        .and_then(|key| key.get("name"))
        .and_then(Value::as_str);
    match (subset, service) {
        (Some(subset), Some(service)) => Some(format!("{subset} of {service}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "(none)".to_owned();
    };
    let text = value.to_string();
    match text.chars().count() > LONGEST {
        true => text.chars().take(LONGEST - 1).chain(['…']).collect(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_by_their_paths() {
        let before = json!({"name": "web", "rules": [
            {"name": "canary", "to": [{"subset": "v1", "weight": 90}, {"subset": "v2", "weight": 10}]},
            {"name": "rest", "timeout": "5s"}]});
        let after = json!({"name": "web", "rules": [
            {"name": "canary", "to": [{"subset": "v1", "weight": 50}, {"subset": "v2", "weight": 50}]},
            {"name": "new", "matches": [{"path_prefix": "/"}]},
            {"name": "rest", "retries": {"attempts": 3}}]});
        assert_eq!(
            lines(&before, &after),
            [
                "rules[canary].to[v1].weight: 90 -> 50",
                "rules[canary].to[v2].weight: 10 -> 50",
                "rules[rest].retries.attempts: (none) -> 3",
                "rules[rest].timeout: \"5s\" -> (none)",
                "rules[new].matches[1].path_prefix: (none) -> \"/\"",
                "rules[new].name: (none) -> \"new\"",
            ]
        );
    }

    #[test]
    fn an_order_that_changed_is_said() {
        let before = json!({"rules": [{"name": "a"}, {"name": "b"}]});
        let after = json!({"rules": [{"name": "b"}, {"name": "a"}]});
        assert_eq!(lines(&before, &after), ["rules: order a, b -> b, a"]);
    }

    #[test]
    fn what_has_no_name_goes_by_its_place() {
        let before = json!({"permissions": [{"action": "allow"}]});
        let after =
            json!({"permissions": [{"action": "deny"}, {"action": "allow"}], "tags": ["a"]});
        assert_eq!(
            lines(&before, &after),
            [
                "permissions[1].action: \"allow\" -> \"deny\"",
                "permissions[2].action: (none) -> \"allow\"",
                "tags: (none) -> [\"a\"]",
            ]
        );
    }

    #[test]
    fn nothing_differs_from_itself() {
        let value = json!({"a": [1, {"b": null}], "c": {}});
        assert_eq!(lines(&value, &value), Vec::<String>::new());
    }

    mod properties {
        #![allow(clippy::unwrap_used)]
        use proptest::prelude::*;

        use super::*;

        fn value() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                (0..3).prop_map(Value::from),
                "[a-c]{0,2}".prop_map(Value::from),
            ];
            leaf.prop_recursive(4, 24, 4, |inner| {
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                    prop::collection::btree_map("[a-c]|name", inner, 0..4)
                        .prop_map(|map| Value::Object(map.into_iter().collect())),
                ]
            })
        }

        proptest! {
            /// A difference is never passed over: a plan must not hide one.
            #[test]
            fn something_is_said_of_every_difference(a in value(), b in value()) {
                prop_assert_eq!(lines(&a, &b).is_empty(), a == b);
            }
        }
    }
}

//! The attribute that a message of the model means.
//!
//! Messages are paths in the words of the HCL files, `route web: rule canary: weights sum to 90`;
//! in Terraform that is `rules[0]`.

use mesh_tfprotocol::{Path, Value};

/// The attribute, and the message without the parts that name it.
pub(super) fn place<'m>(title: &str, message: &'m str, value: &Value) -> (Path, &'m str) {
    let mut rest = message
        .strip_prefix(title)
        .map_or(message, |rest| rest.strip_prefix(": ").unwrap_or(rest));
    let (mut path, mut value) = (Path::root(), value);
    while let Some((part, more)) = rest.split_once(": ") {
        let Some((next, inner)) = step(part, &path, value) else {
            break;
        };
        (path, value, rest) = (next, inner, more);
    }
    (path, rest)
}

fn step<'v>(part: &str, path: &Path, value: &'v Value) -> Option<(Path, &'v Value)> {
    let (word, name) = part.split_once(' ').unwrap_or((part, ""));
    match word {
        "rule" => {
            let mut rules = value.get("rules").elements().iter().enumerate();
            let (at, rule) = rules.find(|(_, rule)| rule.get("name").as_str() == Some(name))?;
            Some((path.attribute("rules").index(at), rule))
        }
        "permission" => {
            let at = name.parse::<usize>().ok()?.checked_sub(1)?;
            let one = value.get("permissions").elements().get(at)?;
            Some((path.attribute("permissions").index(at), one))
        }
        "subset" => {
            let one = value.get("subsets").entries()?.get(name)?;
            Some((path.attribute("subsets").key(name), one))
        }
        "to" => {
            let (subset, service) = match name.split_once(" of ") {
                Some((subset, service)) => (Some(subset), Some(service)),
                None => (Some(name), None),
            };
            let mut all = value.get("to").elements().iter().enumerate();
            let (at, one) = all.find(|(_, one)| {
                let is = |field: &str, wanted: Option<&str>| one.get(field).as_str() == wanted;
                is("subset", subset) && is("service", service)
                    || is("subset", None) && is("service", subset)
            })?;
            Some((path.attribute("to").index(at), one))
        }
        _ if name.is_empty() && value.entries()?.contains_key(word) => {
            Some((path.attribute(word), value.get(word)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_means_an_attribute() {
        let to = Value::List(vec![
            Value::object([("subset", Value::from("v1"))]),
            Value::object([
                ("subset", Value::from("v2")),
                ("service", Value::from("other")),
            ]),
        ]);
        let rule = Value::object([("name", Value::from("canary")), ("to", to)]);
        let value = Value::object([
            (
                "rules",
                Value::List(vec![Value::object([("name", Value::from("a"))]), rule]),
            ),
            ("default_subset", Value::from("v3")),
        ]);
        for (message, path, rest) in [
            (
                "route web: rule canary: weights sum to 90",
                "rules[1]",
                "weights sum to 90",
            ),
            (
                "route web: rule canary: to v2 of other: x: y",
                "rules[1].to[1]",
                "x: y",
            ),
            (
                "route web: default_subset: `v3` is not",
                "default_subset",
                "`v3` is not",
            ),
            ("route web: rule gone: text", "", "rule gone: text"),
            ("something else", "", "something else"),
        ] {
            let (found, text) = place("route web", message, &value);
            assert_eq!((found.to_string().as_str(), text), (path, rest));
        }
    }
}

//! `?filter=`: which rows of an answer are wanted.
//!
//! It is asked of the rows as they are answered, so what a selector names is what stands there. Which
//! selectors there are is said for each answer ([`Selectors`]): one that is not there is refused by
//! name, since rows that it would have kept out would be an answer to another question.

use mesh_model::bexpr::{self, Expr, Match, Operator};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::ConsulError;

/// The largest compiled `matches`, in bytes.
const MAX_REGEX: usize = 256 * 1024;

/// What a value is, and so what may be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    List,
    /// Texts by keys that are the user's own.
    Map,
    /// A list of objects; its fields are selectors as well.
    Objects,
}

/// Selectors of an answer, with dots.
pub type Selectors = &'static [(&'static str, Kind)];

/// A filter that can be asked.
#[derive(Clone, Debug)]
pub struct Filter(Option<Node>);

#[derive(Clone, Debug)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Match(Asked),
}

#[derive(Clone, Debug)]
struct Asked {
    path: Vec<String>,
    kind: Kind,
    operator: Operator,
    value: String,
    regex: Option<Regex>,
    /// What a row that does not have it is taken to say. Consul writes no field that says nothing,
    /// and asks it all the same.
    absent: Option<Value>,
}

impl Filter {
    /// Reads a filter for rows with these selectors.
    ///
    /// # Errors
    /// When it is not an expression, or asks for what is not there.
    pub fn parse(text: &str, selectors: Selectors) -> Result<Self, ConsulError> {
        let wrong = |reason: String| ConsulError::new("filter", reason);
        let expr = bexpr::parse(text).map_err(|error| wrong(error.to_string()))?;
        let node = expr.map(|expr| compile(expr, selectors)).transpose();
        node.map(Self).map_err(wrong)
    }

    /// Whether this row is wanted.
    #[must_use]
    pub fn keeps(&self, row: &Value) -> bool {
        self.0.as_ref().is_none_or(|node| holds(node, row))
    }
}

fn compile(expr: Expr, selectors: Selectors) -> Result<Node, String> {
    let all = |parts: Vec<Expr>| {
        let parts = parts.into_iter().map(|part| compile(part, selectors));
        parts.collect::<Result<Vec<_>, _>>()
    };
    Ok(match expr {
        Expr::And(parts) => Node::And(all(parts)?),
        Expr::Or(parts) => Node::Or(all(parts)?),
        Expr::Not(part) => Node::Not(Box::new(compile(*part, selectors)?)),
        Expr::Match(one) => Node::Match(question(one, selectors)?),
    })
}

fn question(asked: Match, selectors: Selectors) -> Result<Asked, String> {
    let name = asked.name();
    let known = |name: &str| selectors.iter().find(|(known, _)| *known == name);
    let (path, kind, absent) = match known(&name) {
        Some((_, kind)) => (asked.selector, *kind, absent(&name, *kind, selectors)),
        None => {
            let found = value_of_map(&asked.selector, selectors).ok_or_else(|| {
                let all: Vec<&str> = selectors.iter().map(|(known, _)| *known).collect();
                format!(
                    "there is no selector `{name}` here; there are {}",
                    all.join(", ")
                )
            });
            let (path, kind) = found?;
            (path, kind, None)
        }
    };
    let operator = asked.operator;
    if !may_ask(kind, operator) {
        return Err(format!("`{name}`: {operator:?} cannot be asked of it"));
    }
    let compares = matches!(operator, Operator::Equal | Operator::NotEqual);
    let fits = match kind {
        Kind::Number => !compares || asked.value.parse::<i64>().is_ok(),
        Kind::Flag => !compares || asked.value.parse::<bool>().is_ok(),
        _ => true,
    };
    if !fits {
        let value: String = asked.value.chars().take(60).collect();
        return Err(format!(
            "`{name}`: `{value}` is not what it is compared with"
        ));
    }
    let regex = match operator {
        Operator::Matches | Operator::NotMatches => {
            let regex = RegexBuilder::new(&asked.value)
                .size_limit(MAX_REGEX)
                .build();
            Some(regex.map_err(|error| format!("`{name}`: {error}"))?)
        }
        _ => None,
    };
    Ok(Asked {
        path,
        kind,
        operator,
        value: asked.value,
        regex,
        absent,
    })
}

/// What a row says that does not have a field. Of a list of objects it says nothing: there may be
/// none of them.
fn absent(name: &str, kind: Kind, selectors: Selectors) -> Option<Value> {
    let is_above = |other: &str| {
        let rest = name.strip_prefix(other);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let mut lists = selectors.iter().filter(|(_, kind)| *kind == Kind::Objects);
    if lists.any(|(list, _)| is_above(list)) {
        return None;
    }
    Some(match kind {
        Kind::Text => Value::String(String::new()),
        Kind::Number => Value::from(0),
        Kind::Flag => Value::Bool(false),
        Kind::List | Kind::Objects => Value::Array(Vec::new()),
        Kind::Map => Value::Object(serde_json::Map::new()),
    })
}

/// `Meta.version`, where `Meta` is a map: what follows it is one key, dots and all.
fn value_of_map(selector: &[String], selectors: Selectors) -> Option<(Vec<String>, Kind)> {
    (1..selector.len()).find_map(|at| {
        let (map, key) = selector.split_at(at);
        let name = map.join(".");
        let is = |(known, kind): &&(&str, Kind)| *known == name && *kind == Kind::Map;
        selectors.iter().find(is)?;
        let mut path = map.to_vec();
        path.push(key.join("."));
        Some((path, Kind::Text))
    })
}

fn may_ask(kind: Kind, operator: Operator) -> bool {
    use Operator as Op;
    match kind {
        Kind::Text => true,
        Kind::Number | Kind::Flag => matches!(operator, Op::Equal | Op::NotEqual),
        Kind::List | Kind::Map => {
            matches!(operator, Op::In | Op::NotIn | Op::Empty | Op::NotEmpty)
        }
        Kind::Objects => matches!(operator, Op::Empty | Op::NotEmpty),
    }
}

fn holds(node: &Node, row: &Value) -> bool {
    match node {
        Node::And(parts) => parts.iter().all(|part| holds(part, row)),
        Node::Or(parts) => parts.iter().any(|part| holds(part, row)),
        Node::Not(part) => !holds(part, row),
        Node::Match(asked) => {
            let mut found = Vec::new();
            resolve(row, &asked.path, &mut found);
            match (found.is_empty(), &asked.absent) {
                (true, Some(absent)) => answer(asked, absent),
                // A key that a map does not have is empty, equals nothing, and is in nothing (as in
                // go-bexpr).
                (true, None) => negative(asked.operator),
                // Of several objects one is enough.
                (false, _) => found.iter().any(|value| answer(asked, value)),
            }
        }
    }
}

fn negative(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::NotEqual | Operator::NotIn | Operator::Empty | Operator::NotMatches
    )
}

/// The values at a path; of a list on the way, those of each of its objects.
fn resolve<'a>(row: &'a Value, path: &[String], found: &mut Vec<&'a Value>) {
    match (path.split_first(), row) {
        (None, _) => found.push(row),
        (Some(_), Value::Array(rows)) => rows.iter().for_each(|row| resolve(row, path, found)),
        (Some((name, rest)), _) => {
            if let Some(value) = row.get(name) {
                resolve(value, rest, found);
            }
        }
    }
}

fn answer(asked: &Asked, value: &Value) -> bool {
    let wanted = asked.value.as_str();
    let text = value.as_str().unwrap_or_default();
    let is = match asked.operator {
        Operator::Equal | Operator::NotEqual => match asked.kind {
            Kind::Number => wanted
                .parse()
                .is_ok_and(|wanted| value.as_i64() == Some(wanted)),
            Kind::Flag => wanted
                .parse()
                .is_ok_and(|wanted| value.as_bool() == Some(wanted)),
            _ => text == wanted,
        },
        Operator::In | Operator::NotIn => match value {
            Value::Array(all) => all.iter().any(|one| one.as_str() == Some(wanted)),
            Value::Object(map) => map.contains_key(wanted),
            _ => text.contains(wanted),
        },
        Operator::Matches | Operator::NotMatches => asked
            .regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(text)),
        Operator::Empty | Operator::NotEmpty => match value {
            Value::Array(all) => all.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Null => true,
            _ => text.is_empty(),
        },
    };
    match asked.operator {
        Operator::NotEqual | Operator::NotIn | Operator::NotMatches | Operator::NotEmpty => !is,
        _ => is,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const SELECTORS: Selectors = &[
        ("Name", Kind::Text),
        ("Port", Kind::Number),
        ("Native", Kind::Flag),
        ("Kind", Kind::Text),
        ("Connect.Native", Kind::Flag),
        ("Proxy.Port", Kind::Number),
        ("Proxy.Upstreams", Kind::Objects),
        ("Proxy.Upstreams.Name", Kind::Text),
        ("Service.Tags", Kind::List),
        ("Service.Meta", Kind::Map),
        ("Checks", Kind::Objects),
        ("Checks.Status", Kind::Text),
    ];

    fn row() -> Value {
        json!({"Name": "web-1", "Port": 80, "Native": false,
               "Service": {"Tags": ["blue", "v1"], "Meta": {"version": "v1", "a.b-c": "d"}},
               "Checks": [{"Status": "passing"}, {"Status": "warning"}]})
    }

    #[test]
    fn rows_are_kept() {
        for (text, keeps) in [
            ("", true),
            ("Name == \"web-1\"", true),
            ("Name != web-1", false),
            ("Name contains eb", true),
            ("Name matches `^web-[0-9]$`", true),
            ("Name not matches `^db`", true),
            ("Name is empty", false),
            ("Port == 80", true),
            ("Port != 80", false),
            ("Native == false", true),
            ("blue in Service.Tags", true),
            ("green not in Service.Tags", true),
            ("Service.Tags contains green", false),
            ("Service.Tags is not empty", true),
            ("Service.Meta.version == v1", true),
            ("Service.Meta[\"a.b-c\"] == d", true),
            ("Service.Meta.a.b-c == d", true),
            ("Service.Meta.other == v1", false),
            ("Service.Meta.other != v1", true),
            ("Service.Meta.other is empty", true),
            ("version in Service.Meta", true),
            ("Checks.Status == warning", true),
            ("Checks.Status == critical", false),
            ("Checks is empty", false),
            // What a row does not have it says nothing of.
            ("Kind == \"\"", true),
            ("Kind == connect-proxy", false),
            ("Kind is empty", true),
            ("Connect.Native == false", true),
            ("Connect.Native != true", true),
            ("Proxy.Port == 0", true),
            ("Proxy.Upstreams is empty", true),
            ("Proxy.Upstreams.Name == \"\"", false),
            ("Port == 81 or (Name == web-1 and not Port == 82)", true),
        ] {
            let filter = Filter::parse(text, SELECTORS).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(filter.keeps(&row()), keeps, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        for (text, reason) in [
            (
                "Nmae == x",
                "filter: there is no selector `Nmae` here; there are Name, ",
            ),
            ("Service.Name == x", "no selector `Service.Name`"),
            ("Port == x", "`Port`: `x` is not what it is compared with"),
            ("Native == maybe", "`Native`: `maybe`"),
            ("Port matches 8", "`Port`: Matches cannot be asked of it"),
            (
                "Service.Tags == x",
                "`Service.Tags`: Equal cannot be asked of it",
            ),
            ("Name matches `(`", "`Name`: regex"),
            ("Name matches `(a{1000}){1000}`", "`Name`: "),
            ("Name ==", "filter: it ends too early"),
        ] {
            let error = Filter::parse(text, SELECTORS).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

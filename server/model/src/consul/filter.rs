//! A subset's filter: of go-bexpr's language the forms that people write.

use crate::Subset;
use crate::bexpr::{self, Expr, Operator};

/// What is taken, for the error.
pub(super) const FORMS: &str = "taken are `Service.Meta.key == value`, \
    `Service.Meta[\"key\"] == \"value\"` and `\"tag\" in Service.Tags`, joined by `and`";

/// The subset that a filter describes.
pub(super) fn parse(text: &str) -> Option<Subset> {
    let mut subset = Subset::default();
    match bexpr::parse(text).ok()? {
        None => {}
        Some(Expr::And(parts)) => parts.iter().try_for_each(|part| add(&mut subset, part))?,
        Some(one) => add(&mut subset, &one)?,
    }
    Some(subset)
}

fn add(subset: &mut Subset, expr: &Expr) -> Option<()> {
    let Expr::Match(asked) = expr else {
        return None;
    };
    let selector: Vec<&str> = asked.selector.iter().map(String::as_str).collect();
    match (asked.operator, selector.as_slice()) {
        (Operator::Equal, ["Service", "Meta", key @ ..]) if !key.is_empty() => {
            meta(subset, &key.join("."), &asked.value)
        }
        (Operator::In, ["Service", "Tags"]) => {
            subset.tags.push(asked.value.clone());
            Some(())
        }
        _ => None,
    }
}

/// Two values for one key can never both hold.
fn meta(subset: &mut Subset, key: &str, value: &str) -> Option<()> {
    let before = subset.meta.insert(key.to_owned(), value.to_owned());
    let fine = before.is_none_or(|before| before == value);
    fine.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_taken_forms() {
        for (text, meta, tags) in [
            (
                "Service.Meta.version == v1",
                &[("version", "v1")][..],
                &[][..],
            ),
            ("Service.Meta.version==\"v 1\"", &[("version", "v 1")], &[]),
            ("Service.Meta[\"a-b\"] == `c`", &[("a-b", "c")], &[]),
            ("\"blue\" in Service.Tags", &[], &["blue"]),
            ("Service.Tags contains blue", &[], &["blue"]),
            (
                "Service.Meta.a == 1.5 and \"x\" in Service.Tags and y in Service.Tags",
                &[("a", "1.5")],
                &["x", "y"],
            ),
            ("(Service.Meta.version == v1)", &[("version", "v1")], &[]),
            ("", &[], &[]),
        ] {
            let subset = parse(text).unwrap_or_else(|| panic!("{text}"));
            let found: Vec<_> = subset
                .meta
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            assert_eq!(found, meta, "{text}");
            assert_eq!(subset.tags, tags, "{text}");
        }
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "Service.Meta.version != v1",
            "Service.Meta.version == v1 or Service.Meta.version == v2",
            "not \"x\" in Service.Tags",
            "Service.Tags contains a or Service.Tags contains b",
            "Service.Meta.version == v1 and",
            "Service.Meta.v == 1 and Service.Meta.v == 2",
            "Node.Meta.x == y",
            "Service.Meta. == y",
            "Service.Meta[x] == y",
            "\"x in Service.Tags",
            "Service.Tags is empty",
            "é",
            "=",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}

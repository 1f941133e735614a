//! A subset's filter: of go-bexpr's language the forms that people write.

use crate::Subset;

/// What is taken, for the error.
pub(super) const FORMS: &str = "taken are `Service.Meta.key == value`, \
    `Service.Meta[\"key\"] == \"value\"` and `\"tag\" in Service.Tags`, joined by `and`";

/// The subset that a filter describes.
pub(super) fn parse(text: &str) -> Option<Subset> {
    let tokens = tokens(text)?;
    let mut subset = Subset::default();
    if tokens.is_empty() {
        return Some(subset);
    }
    for part in tokens.split(|token| *token == Token::Word("and")) {
        match part {
            [Token::Word(name), Token::Equal, value] => {
                let key = name.strip_prefix("Service.Meta.")?;
                meta(&mut subset, key, value.text()?)?;
            }
            [
                Token::Word("Service.Meta"),
                Token::Open,
                Token::Text(key),
                Token::Close,
                Token::Equal,
                value,
            ] => meta(&mut subset, key, value.text()?)?,
            [tag, Token::Word("in"), Token::Word("Service.Tags")]
            | [Token::Word("Service.Tags"), Token::Word("contains"), tag] => {
                subset.tags.push(tag.text()?.to_owned());
            }
            _ => return None,
        }
    }
    Some(subset)
}

/// Two values for one key can never both hold.
fn meta(subset: &mut Subset, key: &str, value: &str) -> Option<()> {
    let before = subset.meta.insert(key.to_owned(), value.to_owned());
    let fine = !key.is_empty() && before.is_none_or(|before| before == value);
    fine.then_some(())
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    /// A selector, an operator, or a value without quotes.
    Word(&'a str),
    /// A value in quotes or backquotes.
    Text(&'a str),
    Equal,
    Open,
    Close,
}

impl<'a> Token<'a> {
    fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Word("in" | "and" | "or" | "not" | "contains" | "is" | "matches") => None,
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let used = match c {
            '"' | '`' => {
                let inner = rest.get(1..)?;
                let end = inner.find(c)?;
                let inner = inner.get(..end)?;
                if c == '"' && inner.contains('\\') {
                    return None;
                }
                out.push(Token::Text(inner));
                end + 2
            }
            '=' => {
                rest.strip_prefix("==")?;
                out.push(Token::Equal);
                2
            }
            '[' => {
                out.push(Token::Open);
                1
            }
            ']' => {
                out.push(Token::Close);
                1
            }
            _ => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                out.push(Token::Word(rest.get(..end)?));
                end
            }
        };
        rest = rest.get(used..)?.trim_start();
    }
    Some(out)
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
            "(Service.Meta.version == v1)",
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

//! go-bexpr's language, in which Consul's filters are written, read into a tree.
//!
//! ```text
//! Service.Meta.version == "v1" and not ("canary" in Service.Tags or Checks is empty)
//! ```
//!
//! Which selectors there are, and what they are compared with, is for whoever asks: a subset's filter
//! takes a few forms of it, an agent's queries nearly all.

use std::fmt;

/// The longest text that is read, in bytes.
const MAX_TEXT: usize = 8 * 1024;
/// The deepest nesting, of parentheses and `not`.
const MAX_DEPTH: usize = 32;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// All must hold; two or more.
    And(Vec<Expr>),
    /// One must hold; two or more.
    Or(Vec<Expr>),
    /// It must not hold.
    Not(Box<Expr>),
    /// Something is asked of a value.
    Match(Match),
}

/// A question about one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where the value stands: `Service.Meta["a-b"]` is `Service`, `Meta`, `a-b`.
    pub selector: Vec<String>,
    /// What is asked.
    pub operator: Operator,
    /// With what it is compared; empty for the two that compare with nothing.
    pub value: String,
}

/// What may be asked of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `VALUE in SELECTOR`, `SELECTOR contains VALUE`
    In,
    /// `VALUE not in SELECTOR`, `SELECTOR not contains VALUE`
    NotIn,
    /// `is empty`
    Empty,
    /// `is not empty`
    NotEmpty,
    /// `matches`
    Matches,
    /// `not matches`
    NotMatches,
}

impl Match {
    /// The selector as it is written.
    pub fn name(&self) -> String {
        self.selector.join(".")
    }
}

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BexprError(String);

/// Reads an expression; nothing at all is `None`.
pub fn parse(text: &str) -> Result<Option<Expr>, BexprError> {
    if text.len() > MAX_TEXT {
        return Err(BexprError(format!("is longer than {MAX_TEXT} bytes")));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader {
        tokens: &tokens,
        depth: 0,
    };
    let expr = reader.any()?;
    match reader.tokens.first() {
        None => Ok(Some(expr)),
        Some(token) => Err(BexprError(format!("{token} is not expected there"))),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A selector, an operator, or a value without quotes.
    Word(String),
    /// A value in quotes or backquotes.
    Text(String),
    /// `==`, `!=`, or one of `[](),`.
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Word(text) | Self::Text(text) => text,
            Self::Sign(sign) => *sign,
        };
        write!(f, "`{}`", text.chars().take(60).collect::<String>())
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, BexprError> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut sign = ["==", "!=", "[", "]", "(", ")"].into_iter();
        let sign = sign.find(|sign| rest.starts_with(sign));
        let used = match (first, sign) {
            (_, Some(sign)) => {
                out.push(Token::Sign(sign));
                sign.len()
            }
            ('"' | '`', _) => {
                let (value, used) = quoted(rest, first)?;
                out.push(Token::Text(value));
                used
            }
            _ => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || "_./-:".contains(c);
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                if end == 0 {
                    let found = Token::Word(first.to_string());
                    return Err(BexprError(format!(
                        "{found} is not expected there; write a value in quotes"
                    )));
                }
                out.push(Token::Word(rest.get(..end).unwrap_or_default().to_owned()));
                end
            }
        };
        rest = rest.get(used..).unwrap_or_default().trim_start();
    }
    Ok(out)
}

/// A quoted value, and how long it is with its quotes. Within `"` a `\` stands for what it does in
/// JSON, which is what people write of Go's forms.
fn quoted(text: &str, quote: char) -> Result<(String, usize), BexprError> {
    let unended = || BexprError(format!("a value that begins with {quote} does not end"));
    let inner = text.get(1..).unwrap_or_default();
    let mut escaped = false;
    let end = inner.find(|c| {
        let ends = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        ends
    });
    let end = end.ok_or_else(unended)?;
    let used = end + 2;
    let whole = text.get(..used).ok_or_else(unended)?;
    let value = match quote {
        '"' => serde_json::from_str(whole)
            .map_err(|_| BexprError(format!("{whole} has an escape that is not known")))?,
        _ => inner.get(..end).unwrap_or_default().to_owned(),
    };
    Ok((value, used))
}

struct Reader<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Reader<'_> {
    fn any(&mut self) -> Result<Expr, BexprError> {
        self.joined("or", Self::all, Expr::Or)
    }

    fn all(&mut self) -> Result<Expr, BexprError> {
        self.joined("and", Self::one, Expr::And)
    }

    fn joined(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Expr, BexprError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, BexprError> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(join(parts)),
        }
    }

    fn one(&mut self) -> Result<Expr, BexprError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(BexprError(format!("is nested deeper than {MAX_DEPTH}")));
        }
        let expr = if self.take_word("not") {
            Expr::Not(Box::new(self.one()?))
        } else if self.take_sign("(") {
            let inner = self.any()?;
            if !self.take_sign(")") {
                return Err(BexprError("`)` is missing".to_owned()));
            }
            inner
        } else {
            Expr::Match(self.question()?)
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn question(&mut self) -> Result<Match, BexprError> {
        // `VALUE in SELECTOR`: what stands first is known by what follows.
        let (value, operator) = match self.tokens {
            [value, Token::Word(word), ..] if word == "in" => (Some((value, 2)), Operator::In),
            [value, Token::Word(not), Token::Word(word), ..] if not == "not" && word == "in" => {
                (Some((value, 3)), Operator::NotIn)
            }
            _ => (None, Operator::Equal),
        };
        if let Some((value, used)) = value {
            let value = text_of(value)?;
            self.tokens = self.tokens.get(used..).unwrap_or_default();
            let selector = self.selector()?;
            return Ok(Match {
                selector,
                operator,
                value,
            });
        }
        let selector = self.selector()?;
        let operator = self.operator(&selector)?;
        let value = match operator {
            Operator::Empty | Operator::NotEmpty => String::new(),
            _ => {
                let value = self.next()?;
                text_of(&value)?
            }
        };
        Ok(Match {
            selector,
            operator,
            value,
        })
    }

    fn operator(&mut self, selector: &[String]) -> Result<Operator, BexprError> {
        if self.take_sign("==") {
            return Ok(Operator::Equal);
        }
        if self.take_sign("!=") {
            return Ok(Operator::NotEqual);
        }
        for (words, operator) in [
            (&["is", "empty"][..], Operator::Empty),
            (&["is", "not", "empty"], Operator::NotEmpty),
            (&["contains"], Operator::In),
            (&["not", "contains"], Operator::NotIn),
            (&["matches"], Operator::Matches),
            (&["not", "matches"], Operator::NotMatches),
        ] {
            let found = self.tokens.iter().zip(words);
            let same =
                found.filter(|(token, word)| matches!(token, Token::Word(it) if it == *word));
            if same.count() == words.len() {
                self.tokens = self.tokens.get(words.len()..).unwrap_or_default();
                return Ok(operator);
            }
        }
        Err(BexprError(format!(
            "`{}` is not followed by ==, !=, contains, matches or is empty",
            selector.join(".")
        )))
    }

    fn selector(&mut self) -> Result<Vec<String>, BexprError> {
        let first = self.next()?;
        let Token::Word(word) = &first else {
            return Err(BexprError(format!("{first} is not a selector")));
        };
        let mut parts: Vec<String> = word.split('.').map(str::to_owned).collect();
        while self.take_sign("[") {
            match self.next()? {
                Token::Text(key) if self.take_sign("]") => parts.push(key),
                other => {
                    return Err(BexprError(format!("write [\"{other}\"], with quotes")));
                }
            }
            // `["a"].b`
            if let Some(Token::Word(word)) = self.tokens.first()
                && let Some(more) = word.strip_prefix('.')
            {
                parts.extend(more.split('.').map(str::to_owned));
                self.tokens = self.tokens.get(1..).unwrap_or_default();
            }
        }
        match parts.iter().any(String::is_empty) {
            true => Err(BexprError(format!("{first} is not a selector"))),
            false => Ok(parts),
        }
    }

    fn next(&mut self) -> Result<Token, BexprError> {
        let end = || BexprError("it ends too early".to_owned());
        let (first, rest) = self.tokens.split_first().ok_or_else(end)?;
        self.tokens = rest;
        Ok(first.clone())
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(|token| matches!(token, Token::Word(it) if it == word))
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        self.take(|token| matches!(token, Token::Sign(it) if *it == sign))
    }

    fn take(&mut self, is: impl FnOnce(&Token) -> bool) -> bool {
        let taken = self.tokens.first().is_some_and(is);
        if taken {
            self.tokens = self.tokens.get(1..).unwrap_or_default();
        }
        taken
    }
}

fn text_of(token: &Token) -> Result<String, BexprError> {
    match token {
        Token::Text(text) => Ok(text.clone()),
        Token::Word(word)
            if !matches!(
                word.as_str(),
                "in" | "and" | "or" | "not" | "contains" | "is" | "matches"
            ) =>
        {
            Ok(word.clone())
        }
        other => Err(BexprError(format!("{other} is not a value"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// As a list, operators first.
    fn shown(expr: &Expr) -> String {
        let all = |all: &[Expr]| all.iter().map(shown).collect::<Vec<_>>().join(" ");
        match expr {
            Expr::And(parts) => format!("(and {})", all(parts)),
            Expr::Or(parts) => format!("(or {})", all(parts)),
            Expr::Not(part) => format!("(not {})", shown(part)),
            Expr::Match(one) => {
                let value = match one.operator {
                    Operator::Empty | Operator::NotEmpty => String::new(),
                    _ => format!(" {:?}", one.value),
                };
                format!("({:?} {}{value})", one.operator, one.selector.join("|"))
            }
        }
    }

    #[test]
    fn expressions() {
        for (text, wanted) in [
            ("A.b == c", "(Equal A|b \"c\")"),
            ("A.b==\"c d\"", "(Equal A|b \"c d\")"),
            ("A != 8080", "(NotEqual A \"8080\")"),
            ("A[\"b-c\"].d == `e\\`", "(Equal A|b-c|d \"e\\\\\")"),
            ("A == \"x\\\"y\"", "(Equal A \"x\\\"y\")"),
            ("x in A", "(In A \"x\")"),
            ("\"x\" not in A", "(NotIn A \"x\")"),
            ("A contains x", "(In A \"x\")"),
            ("A not contains x", "(NotIn A \"x\")"),
            ("A is empty", "(Empty A)"),
            ("A is not empty", "(NotEmpty A)"),
            ("A matches `^v[0-9]`", "(Matches A \"^v[0-9]\")"),
            ("A not matches x", "(NotMatches A \"x\")"),
            (
                "A == 1 or B == 2 and not C == 3",
                "(or (Equal A \"1\") (and (Equal B \"2\") (not (Equal C \"3\"))))",
            ),
            (
                "(A == 1 or B == 2) and C is empty",
                "(and (or (Equal A \"1\") (Equal B \"2\")) (Empty C))",
            ),
            ("not (x in A)", "(not (In A \"x\"))"),
        ] {
            let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shown(&expr.unwrap()), wanted, "{text}");
        }
        assert_eq!(parse("  "), Ok(None));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "A",
            "A ==",
            "A = b",
            "A == b c",
            "A == b and",
            "and A == b",
            "(A == b",
            "A == b)",
            "A[b] == c",
            "A. == b",
            "\"A == b",
            "A == \"\\q\"",
            "A is full",
            "A in",
            "\"A\" == b",
            "é == b",
            &"(".repeat(100),
            &"not ".repeat(100),
            &"a".repeat(10_000),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[A-C.\\[\\]()\"`\\\\é =!a-z]{0,60}") {
            let _ = parse(&text);
        }
    }
}

//! Reads what Consul reads: JSON, and the first HCL, in which an object within
//! a list may hold blocks (`Match { … }`) and keys may be quoted. The HCL of
//! our own files knows neither, so its parser does not do.
//!
//! Nothing is evaluated. A comma between the items of an object may be left
//! out or stand at the end, which JSON does not allow and HCL does.

use std::collections::HashMap;

use crate::diagnostic::Context;
use crate::tree::{Item, Node, Value, fits};

/// Deepest nesting that is read; what Consul knows is less than ten deep.
const DEEPEST: usize = 64;

/// The items of a file; `None`, with the mistake reported, when it cannot be
/// read.
pub(super) fn parse(context: &Context<'_>) -> Option<Vec<Item>> {
    if !fits(context) {
        return None;
    }
    let mut parser = Parser {
        text: context.source.text,
        at: 0,
        depth: 0,
    };
    match parser.file() {
        Ok(items) => Some(items),
        Err(Wrong { at, message, hint }) => {
            context.report(at, message, hint.map(str::to_owned));
            None
        }
    }
}

struct Wrong {
    at: usize,
    message: String,
    hint: Option<&'static str>,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn file(&mut self) -> Result<Vec<Item>, Wrong> {
        self.space()?;
        if self.take('{') {
            let items = self.body(true)?;
            self.space()?;
            return match self.peek() {
                None => Ok(items),
                Some(_) => Err(self.unexpected("the end of the file")),
            };
        }
        self.body(false)
    }

    /// Items up to the closing brace, or to the end of the file.
    fn body(&mut self, in_braces: bool) -> Result<Vec<Item>, Wrong> {
        let mut items: Vec<Item> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        loop {
            self.separators()?;
            if in_braces && self.take('}') {
                return Ok(items);
            }
            if !in_braces && self.peek().is_none() {
                return Ok(items);
            }
            let item = self.item()?;
            match known
                .get(&item.name)
                .and_then(|index| items.get_mut(*index))
            {
                None => {
                    known.insert(item.name.clone(), items.len());
                    items.push(item);
                }
                Some(first) if first.is_block && item.is_block => repeat(first, item),
                Some(_) => {
                    return Err(Wrong {
                        at: item.at,
                        message: format!("`{}` is written twice in one object", item.name),
                        hint: Some("keep one of the two"),
                    });
                }
            }
        }
    }

    fn item(&mut self) -> Result<Item, Wrong> {
        let at = self.at;
        let name = match self.peek() {
            Some('"') => self.string()?,
            Some(c) if c.is_alphabetic() || c == '_' => self.word().to_owned(),
            _ => return Err(self.unexpected("a key")),
        };
        self.space()?;
        let is_block = match self.peek() {
            Some('=' | ':') => {
                self.at += 1;
                self.space()?;
                false
            }
            Some('{') => true,
            Some('"') => {
                return Err(Wrong {
                    at: self.at,
                    message: format!("`{name}` has a label"),
                    hint: Some("write an object with this key: `Subsets = { v1 = { … } }`"),
                });
            }
            _ => return Err(self.unexpected("`=`, `:` or `{`")),
        };
        Ok(Item {
            name,
            at,
            labels: Vec::new(),
            value: self.value()?,
            is_block,
        })
    }

    fn value(&mut self) -> Result<Node, Wrong> {
        let at = self.at;
        let value = match self.peek() {
            Some('"') => Value::String(self.string()?),
            Some('{') => {
                self.at += 1;
                Value::Object(self.deeper(|parser| parser.body(true))?)
            }
            Some('[') => {
                self.at += 1;
                Value::List(self.deeper(Self::list)?)
            }
            Some(c) if c.is_ascii_digit() || c == '-' => self.number()?,
            Some('<') => {
                return Err(Wrong {
                    at,
                    message: "a heredoc is not taken here".to_owned(),
                    hint: Some("write the text in quotes"),
                });
            }
            Some(c) if c.is_alphabetic() => match self.word() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                word => {
                    return Err(Wrong {
                        at,
                        message: format!("`{word}` is not a value"),
                        hint: Some("write text in quotes"),
                    });
                }
            },
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn list(&mut self) -> Result<Vec<Node>, Wrong> {
        let mut nodes = Vec::new();
        loop {
            self.space()?;
            if self.take(']') {
                return Ok(nodes);
            }
            nodes.push(self.value()?);
            self.space()?;
            if !self.take(',') && self.peek() != Some(']') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        if self.depth >= DEEPEST {
            return Err(Wrong {
                at: self.at,
                message: format!("more than {DEEPEST} objects and lists in each other"),
                hint: None,
            });
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn number(&mut self) -> Result<Value, Wrong> {
        let at = self.at;
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')))
            .unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default();
        self.at += end;
        if let Ok(number) = text.parse::<i128>() {
            return Ok(Value::Int(number));
        }
        // Rust also reads `inf`, `1.` and `.5`; JSON does not, and nobody writes them.
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err(Wrong {
                at,
                message: format!(
                    "`{}` is not a number",
                    text.chars().take(40).collect::<String>()
                ),
                hint: None,
            }),
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.next() else {
                return Err(Wrong {
                    at: start,
                    message: "this text has no closing quote".to_owned(),
                    hint: None,
                });
            };
            match c {
                '"' => return Ok(out),
                '\n' => {
                    return Err(Wrong {
                        at: start,
                        message: "this text goes over the end of the line".to_owned(),
                        hint: Some("close the quote, or write `\\n` for the end of a line"),
                    });
                }
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Wrong> {
        let at = self.at - 1;
        let wrong = || Wrong {
            at,
            message: "this is no escape sequence".to_owned(),
            hint: Some("within quotes a backslash is written `\\\\`"),
        };
        match self.next() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('u') => {
                let high = self.hex().ok_or_else(wrong)?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or_else(wrong);
                }
                // The first half of a pair (RFC 8259, 7).
                match (self.next(), self.next(), self.hex()) {
                    (Some('\\'), Some('u'), Some(low)) if (0xdc00..0xe000).contains(&low) => {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        char::from_u32(code).ok_or_else(wrong)
                    }
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        u32::from_str_radix(digits, 16).ok().filter(|_| all)
    }

    /// White space and comments.
    fn space(&mut self) -> Result<(), Wrong> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with('#') || trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                match trimmed.find("*/") {
                    Some(end) => self.at += end + 2,
                    None => {
                        return Err(Wrong {
                            at: self.at,
                            message: "this comment is not closed".to_owned(),
                            hint: None,
                        });
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    fn separators(&mut self) -> Result<(), Wrong> {
        self.space()?;
        while self.take(',') {
            self.space()?;
        }
        Ok(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        let found = match self.peek() {
            Some(c) => format!("{c:?}"),
            None => "the end of the file".to_owned(),
        };
        Wrong {
            at: self.at,
            message: format!("expected {wanted}, not {found}"),
            hint: None,
        }
    }
}

/// A block that stands several times is a list.
fn repeat(first: &mut Item, again: Item) {
    let node = Node {
        at: again.at,
        value: again.value.value,
    };
    match &mut first.value.value {
        Value::List(nodes) => nodes.push(node),
        value => {
            let before = Node {
                at: first.at,
                value: std::mem::replace(value, Value::Null),
            };
            *value = Value::List(vec![before, node]);
        }
    }
}

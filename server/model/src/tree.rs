//! The tree that every file becomes before it is understood: items with their
//! places, blocks and attributes alike, nothing merged and nothing dropped.
//!
//! Our own files come through hcl-edit, which keeps the spans. Nothing is
//! evaluated: an expression that is no plain value stands in the tree as
//! [`Value::Refused`] with the reason, and is an error where it is read, so
//! that the error has the path of what it would have set.

use hcl_edit::expr::{Expression, Object, ObjectKey, UnaryOperator};
use hcl_edit::structure::{Body, Structure};
use hcl_edit::template::{Element, Template};
use hcl_edit::{Number, Span};

use crate::diagnostic::Context;

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE: usize = 1024 * 1024;

/// Most blocks and attributes that a file may have at its top.
const MAX_ITEMS: usize = 10_000;

/// Most keys of one object or block: the parser compares each key of an object
/// with all before it.
const MAX_KEYS: usize = 4096;

/// An attribute or a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) labels: Vec<Label>,
    pub(crate) value: Node,
    /// Written as a block, without `=`. The value is an object then.
    pub(crate) is_block: bool,
}

/// A block's label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Label {
    pub(crate) text: String,
    pub(crate) at: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) value: Value,
}

/// A plain value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Object(Vec<Item>),
    /// An expression that is not taken, and why.
    Refused(String),
}

impl Value {
    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
            Self::Refused(_) => "an expression",
        }
    }

    /// The same in JSON; what was refused is null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null | Self::Refused(_) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => Json::from(value),
                (_, Ok(value)) => Json::from(value),
                _ => Json::from(*value as f64),
            },
            Self::Float(value) => Json::from(*value),
            Self::String(value) => Json::String(value.clone()),
            Self::List(nodes) => nodes.iter().map(|node| node.value.to_json()).collect(),
            Self::Object(items) => Json::Object(
                items
                    .iter()
                    .map(|item| (item.name.clone(), item.value.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// The items of one of our files; empty, with the mistake reported, when it
/// cannot be read.
pub(crate) fn read(context: &Context<'_>) -> Vec<Item> {
    let text = context.source.text;
    if !fits(context) {
        return Vec::new();
    }
    if let Some(at) = crowded(text) {
        let message = format!("more than {MAX_KEYS} keys in one object or block");
        context.report(at, message, None);
        return Vec::new();
    }
    match hcl_edit::parser::parse_body(text) {
        Ok(parsed) => {
            let items = body(&parsed, 0);
            if items.len() > MAX_ITEMS {
                let message = format!("{} blocks; at most {MAX_ITEMS} are read", items.len());
                context.report(0, message, Some("split the file".to_owned()));
            }
            items.into_iter().take(MAX_ITEMS).collect()
        }
        Err(error) => {
            report_syntax(context, &error);
            Vec::new()
        }
    }
}

/// Whether the file is of a size that is read; reports if not.
pub(crate) fn fits(context: &Context<'_>) -> bool {
    let size = context.source.text.len();
    if size > MAX_FILE {
        let message = format!("the file has {size} bytes; at most {MAX_FILE} are read");
        context.report(0, message, Some("split it".to_owned()));
    }
    size <= MAX_FILE
}

/// Where an object or block begins to have too many keys. It looks at the
/// characters only, since it must know before anything is parsed.
fn crowded(text: &str) -> Option<usize> {
    let mut open: Vec<usize> = Vec::new();
    let mut in_text = false;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        let escapes = in_text && !is_escaped && byte == b'\\';
        match byte {
            b'\n' => in_text = false,
            b'"' if !is_escaped => in_text = !in_text,
            _ if in_text => {}
            b'{' => open.push(0),
            b'}' => drop(open.pop()),
            b'=' | b':' => {
                if let Some(keys) = open.last_mut() {
                    *keys += 1;
                    if *keys > MAX_KEYS {
                        return Some(at);
                    }
                }
            }
            _ => {}
        }
        is_escaped = escapes;
    }
    None
}

fn report_syntax(context: &Context<'_>, error: &hcl_edit::parser::Error) {
    let said = error.message();
    let mut at = error.location().offset();
    let (message, hint) = if said.contains("found redefined") {
        let rest = context.source.text.get(at..).unwrap_or_default();
        let name: String = rest
            .trim_start()
            .trim_start_matches('"')
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        at += rest.len() - rest.trim_start().len();
        (
            format!("`{name}` is written twice in one block"),
            Some("keep one of the two".to_owned()),
        )
    } else if context
        .source
        .text
        .get(at..)
        .unwrap_or_default()
        .trim_end()
        .len()
        <= 1
    {
        // The parser points at the last character when the file ends too soon.
        let hint = "a block, list or text that began is not closed".to_owned();
        (format!("the file ends too soon; {said}"), Some(hint))
    } else if said.starts_with("invalid block body") {
        (
            said.to_owned(),
            Some(
                "HCL takes one attribute, and no block, in a block on one line; put each on a line of its own"
                    .to_owned(),
            ),
        )
    } else if said.contains("escape sequence") {
        (
            said.to_owned(),
            Some("within quotes a backslash is written `\\\\`".to_owned()),
        )
    } else {
        (said.replace('\n', "\\n"), None)
    };
    context.report(at, message, hint);
}

fn body(body: &Body, outer: usize) -> Vec<Item> {
    body.iter()
        .map(|structure| match structure {
            Structure::Attribute(attribute) => {
                let at = start(attribute.key.span().or_else(|| attribute.span()), outer);
                Item {
                    name: attribute.key.as_str().to_owned(),
                    at,
                    labels: Vec::new(),
                    value: node(&attribute.value, at),
                    is_block: false,
                }
            }
            Structure::Block(block) => {
                let at = start(block.ident.span().or_else(|| block.span()), outer);
                let labels = block.labels.iter().map(|label| Label {
                    text: label.as_str().to_owned(),
                    at: start(label.span(), at),
                });
                Item {
                    name: block.ident.as_str().to_owned(),
                    at,
                    labels: labels.collect(),
                    value: Node {
                        at,
                        value: Value::Object(self::body(&block.body, at)),
                    },
                    is_block: true,
                }
            }
        })
        .collect()
}

fn start(span: Option<std::ops::Range<usize>>, otherwise: usize) -> usize {
    span.map_or(otherwise, |span| span.start)
}

fn node(expression: &Expression, outer: usize) -> Node {
    let at = start(expression.span(), outer);
    let refuse = |what: &str| Value::Refused(format!("{what}; nothing is evaluated here"));
    let value = match expression {
        Expression::Null(_) => Value::Null,
        Expression::Bool(value) => Value::Bool(*value.value()),
        Expression::Number(value) => number(value.value(), false),
        Expression::String(value) => Value::String(value.value().clone()),
        Expression::Array(array) => Value::List(array.iter().map(|one| node(one, at)).collect()),
        Expression::Object(value) => object(value, at),
        Expression::StringTemplate(template) => text(template.iter()),
        Expression::HeredocTemplate(heredoc) => {
            let template: &Template = &heredoc.template;
            text(template.iter())
        }
        Expression::Parenthesis(inner) => node(inner.inner(), at).value,
        Expression::UnaryOp(operation) => match (operation.operator.value(), &operation.expr) {
            (UnaryOperator::Neg, Expression::Number(value)) => number(value.value(), true),
            _ => refuse("an operation stands where a value should"),
        },
        Expression::Variable(name) => Value::Refused(format!(
            "`{name}` is a variable, and nothing is evaluated here; for text write `\"{name}\"`",
            name = name.as_str()
        )),
        Expression::FuncCall(call) => refuse(&format!(
            "the function `{}` is called",
            call.name.name.as_str()
        )),
        Expression::Traversal(_) => refuse("a variable stands where a value should"),
        Expression::Conditional(_) | Expression::BinaryOp(_) => {
            refuse("an operation stands where a value should")
        }
        Expression::ForExpr(_) => refuse("a `for` stands where a value should"),
    };
    Node { at, value }
}

fn number(number: &Number, negative: bool) -> Value {
    let whole = match (number.as_u64(), number.as_i64()) {
        (Some(value), _) => Some(i128::from(value)),
        (_, Some(value)) => Some(i128::from(value)),
        _ => None,
    };
    match (whole, negative) {
        (Some(value), false) => Value::Int(value),
        (Some(value), true) => Value::Int(-value),
        (None, negative) => {
            let value = number.as_f64().unwrap_or(f64::MAX);
            Value::Float(if negative { -value } else { value })
        }
    }
}

fn object(object: &Object, outer: usize) -> Value {
    let mut items = Vec::new();
    for (key, value) in object {
        let (name, at) = match key {
            ObjectKey::Ident(name) => (name.as_str().to_owned(), start(name.span(), outer)),
            ObjectKey::Expression(expression) => {
                let key = node(expression, outer);
                match key.value {
                    Value::String(name) => (name, key.at),
                    Value::Int(number) => (number.to_string(), key.at),
                    other => {
                        let what = other.kind();
                        return Value::Refused(format!("a key is {what}; write it in quotes"));
                    }
                }
            }
        };
        items.push(Item {
            name,
            at,
            labels: Vec::new(),
            value: node(value.expr(), at),
            is_block: false,
        });
    }
    Value::Object(items)
}

fn text<'a>(elements: impl Iterator<Item = &'a Element>) -> Value {
    let mut out = String::new();
    for element in elements {
        match element {
            Element::Literal(literal) => out.push_str(literal.value()),
            Element::Interpolation(_) | Element::Directive(_) => {
                return Value::Refused(
                    "a template is not evaluated here; write `$${` or `%%{` for the characters \
                     themselves"
                        .to_owned(),
                );
            }
        }
    }
    Value::String(out)
}

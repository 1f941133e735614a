//! Reading the items of a block by name, typed, with every mistake reported at
//! its place and with its path. A reader goes on after a mistake, so that all
//! of them are found; whoever reads asks the [`Context`] at the end.

mod blocks;
mod values;

use crate::diagnostic::Context;
use crate::tree::{Item, Node, Value};
use crate::words::{fold, is_later, listed, suggest};

/// How names are written and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Ours: exact names; blocks are blocks and attributes attributes.
    Hcl,
    /// Consul's config entries: `PathPrefix` and `path_prefix` are one, and an
    /// object may be written as a block.
    Consul,
}

/// The items of one block, as they are read one after the other.
pub(crate) struct Fields<'a> {
    context: &'a Context<'a>,
    path: String,
    at: usize,
    items: &'a [Item],
    used: Vec<bool>,
    known: Vec<&'static str>,
    later: Vec<&'static str>,
    style: Style,
    /// Whether the path names a whole entry, after which Consul's style has a
    /// colon, and a point after all else.
    is_root: bool,
}

impl<'a> Fields<'a> {
    /// The items of what `path` names, which begins at `at`.
    pub(crate) fn new(
        context: &'a Context<'a>,
        style: Style,
        path: impl Into<String>,
        at: usize,
        items: &'a [Item],
    ) -> Self {
        Self {
            context,
            path: path.into(),
            at,
            items,
            used: vec![false; items.len()],
            known: Vec::new(),
            later: Vec::new(),
            style,
            is_root: true,
        }
    }

    /// Where the block begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// This is the part of an entry that messages name by `path`.
    pub(crate) fn mark(&self, path: impl Into<String>) {
        self.context.mark(self.at, path.into());
    }

    /// The value of `key` is that part.
    pub(crate) fn mark_key(&self, key: &str, path: impl Into<String>) {
        if let Some(at) = self.where_is(key) {
            self.context.mark(at, path.into());
        }
    }

    /// Names that are refused as "not supported yet" unless they are empty.
    pub(crate) fn later(&mut self, names: &[&'static str]) {
        self.later.extend(names);
    }

    /// Names that may stand there and say nothing to us.
    pub(crate) fn ignore(&mut self, names: &[&'static str]) {
        for name in names {
            let _ = self.all(name);
            self.known.pop();
        }
    }

    /// Reports what stands in the block and was not asked for.
    pub(crate) fn finish(self) {
        for (item, used) in self.items.iter().zip(&self.used) {
            if *used {
                continue;
            }
            if self.context.is_full() {
                self.context.report(item.at, "", None);
                continue;
            }
            self.unknown(item);
        }
    }

    fn unknown(&self, item: &Item) {
        let name: String = item.name.chars().take(64).collect();
        let is_later = match self.style {
            Style::Hcl => is_later(&name),
            Style::Consul => self.later.iter().any(|later| fold(later) == fold(&name)),
        };
        if is_later {
            if self.style == Style::Consul && is_empty(&item.value.value) {
                return;
            }
            let message = match self.style {
                Style::Hcl => self.place(&format!("`{name}` is not supported yet")),
                Style::Consul => format!("{} is not supported yet", self.place(&name)),
            };
            return self.context.report(item.at, message, None);
        }
        let what = match item.is_block && self.style == Style::Hcl {
            true => "block",
            false => "key",
        };
        let hint = match suggest(&name, self.known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None if self.known.is_empty() => "nothing may stand here".to_owned(),
            None => format!("known here: {}", listed(&self.known)),
        };
        let message = match self.style {
            Style::Hcl => self.place(&format!("unknown {what} `{name}`")),
            Style::Consul => format!("{} is not known", self.place(&name)),
        };
        self.context.report(item.at, message, Some(hint));
    }

    /// The path of `key` of this block.
    pub(crate) fn place(&self, key: &str) -> String {
        let between = match (self.path.is_empty(), self.style, self.is_root) {
            (true, _, _) => "",
            (_, Style::Consul, false) => ".",
            _ => ": ",
        };
        format!("{}{between}{key}", self.path)
    }

    /// Reports a mistake of `key`, at `at`.
    pub(crate) fn wrong(&self, at: usize, key: &str, message: impl std::fmt::Display) {
        self.wrong_with(at, key, message, None);
    }

    /// The same with a hint.
    pub(crate) fn wrong_with(
        &self,
        at: usize,
        key: &str,
        message: impl std::fmt::Display,
        hint: Option<String>,
    ) {
        let place = match key {
            "" => self.path.clone(),
            key => self.place(key),
        };
        let between = if place.is_empty() { "" } else { ": " };
        self.context
            .report(at, format!("{place}{between}{message}"), hint);
    }

    /// Reports that `key` must be there, unless it is.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>, example: &str) -> Option<T> {
        // A value that is there and wrong was reported already.
        if value.is_none() && self.where_is(key).is_none() {
            let hint = (!example.is_empty()).then(|| format!("add `{example}`"));
            self.wrong_with(self.at, "", format!("`{key}` is missing"), hint);
        }
        value
    }

    fn is(&self, name: &str, key: &str) -> bool {
        match self.style {
            Style::Hcl => name == key,
            Style::Consul => name == key || fold(name) == fold(key),
        }
    }

    /// Every item of that name.
    fn all(&mut self, key: &'static str) -> Vec<&'a Item> {
        self.known.push(key);
        let mut found = Vec::new();
        let items: &'a [Item] = self.items;
        for (index, item) in items.iter().enumerate() {
            if self.is(&item.name, key) {
                if let Some(used) = self.used.get_mut(index) {
                    *used = true;
                }
                found.push(item);
            }
        }
        found
    }

    /// The one item of that name.
    fn one(&mut self, key: &'static str) -> Option<&'a Item> {
        let mut found = self.all(key).into_iter();
        let first = found.next()?;
        for second in found {
            let (line, _) = self.context.source.place(first.at);
            let message = format!("is written twice; the first is in line {line}");
            self.wrong_with(
                second.at,
                key,
                message,
                Some("keep one of the two".to_owned()),
            );
        }
        Some(first)
    }

    /// Where the value of `key` stands, if it says anything.
    pub(crate) fn where_is(&self, key: &str) -> Option<usize> {
        let mut named = self.items.iter().filter(|item| self.is(&item.name, key));
        let item = named.find(|item| !self.says_nothing(&item.value))?;
        Some(item.value.at)
    }

    /// Null is as if it were not there; Consul writes what was not set as "".
    fn says_nothing(&self, node: &Node) -> bool {
        match &node.value {
            Value::Null => true,
            Value::String(text) => text.is_empty() && self.style == Style::Consul,
            _ => false,
        }
    }
}

/// Whether a value says nothing: what Consul's own JSON writes for a field that
/// was not set. What stands in a list or an object was set by somebody: `{ x-a =
/// "" }` names a header.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) => true,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        Value::List(nodes) => nodes.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

//! Reading the items of a block by name, typed, with every mistake reported at
//! its place and with its path. A reader goes on after a mistake, so that all
//! of them are found; whoever reads asks the [`Context`] at the end.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::Duration;
use crate::diagnostic::Context;
use crate::tree::{Item, Label, Node, Value};
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
        if value.is_none() && !self.items.iter().any(|item| self.is(&item.name, key)) {
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

    /// Where the value of `key` stands.
    pub(crate) fn where_is(&self, key: &str) -> Option<usize> {
        let item = self.items.iter().find(|item| self.is(&item.name, key))?;
        Some(item.value.at)
    }

    /// The value of an attribute; null is as if it were not there.
    fn attribute(&mut self, key: &'static str) -> Option<&'a Node> {
        let item = self.one(key)?;
        if item.is_block && self.style == Style::Hcl {
            let hint = Some(format!("write `{key} = …`"));
            self.wrong_with(item.at, key, "is an attribute, not a block", hint);
            return None;
        }
        match &item.value.value {
            Value::Null => None,
            // Consul writes what was not set as "".
            Value::String(text) if text.is_empty() && self.style == Style::Consul => None,
            Value::Refused(why) => {
                self.wrong(item.value.at, key, why);
                None
            }
            _ => Some(&item.value),
        }
    }

    /// Whether `key` is there with a text in it.
    pub(crate) fn has_text(&self, key: &str) -> bool {
        let mut items = self.items.iter().filter(|item| self.is(&item.name, key));
        items.any(|item| matches!(&item.value.value, Value::String(text) if !text.is_empty()))
    }

    fn mistyped(&self, node: &Node, key: &str, wanted: &str, hint: Option<String>) {
        if let Value::Refused(why) = &node.value {
            return self.wrong(node.at, key, why);
        }
        let message = format!("must be {wanted}, not {}", node.value.kind());
        self.wrong_with(node.at, key, message, hint);
    }

    /// A string and its place.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<(&'a str, usize)> {
        let node = self.attribute(key)?;
        match &node.value {
            Value::String(text) => Some((text, node.at)),
            other => {
                let hint = match other {
                    Value::Int(number) => Some(format!("write it in quotes: \"{number}\"")),
                    Value::Bool(value) => Some(format!("write it in quotes: \"{value}\"")),
                    _ => None,
                };
                self.mistyped(node, key, "a string", hint);
                None
            }
        }
    }

    /// A string.
    pub(crate) fn string(&mut self, key: &'static str) -> Option<String> {
        self.text(key).map(|(text, _)| text.to_owned())
    }

    /// A string that `parse` takes.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, at) = self.text(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(at, key, error);
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T>(
        &mut self,
        key: &'static str,
        choices: &[&'static str],
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, at) = self.text(key)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.bad_word(at, key, text, choices);
        }
        parsed
    }

    /// Reports a word that is none of the choices.
    pub(crate) fn bad_word(&self, at: usize, key: &str, text: &str, choices: &[&'static str]) {
        let shown: String = text.chars().take(64).collect();
        if is_later(text) {
            return self.wrong(at, key, format!("`{shown}` is not supported yet"));
        }
        let hint = match suggest(text, choices.iter().copied()) {
            Some(choice) => format!("did you mean `{choice}`?"),
            None => format!("use one of {}", listed(choices)),
        };
        self.wrong_with(at, key, format!("`{shown}` is not known"), Some(hint));
    }

    /// A bool.
    pub(crate) fn bool(&mut self, key: &'static str) -> Option<bool> {
        let node = self.attribute(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                let hint = Some("write true or false, without quotes".to_owned());
                self.mistyped(node, key, "a bool", hint);
                None
            }
        }
    }

    /// A whole number between `least` and `most`.
    pub(crate) fn whole(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let node = self.attribute(key)?;
        self.as_whole(node, key, least, most)
    }

    fn as_whole(&self, node: &Node, key: &str, least: u64, most: u64) -> Option<u64> {
        let number = match &node.value {
            Value::Int(number) => *number,
            Value::Float(number) => {
                let message = match number.fract() == 0.0 {
                    true => format!("{number} is not between {least} and {most}"),
                    false => format!("{number} is not a whole number"),
                };
                self.wrong(node.at, key, message);
                return None;
            }
            other => {
                let hint = match other {
                    Value::String(text) if text.parse::<i64>().is_ok() => {
                        Some(format!("write it without quotes: {text}"))
                    }
                    _ => None,
                };
                self.mistyped(node, key, "a number", hint);
                return None;
            }
        };
        match u64::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                let message = format!("{number} is not between {least} and {most}");
                self.wrong(node.at, key, message);
                None
            }
        }
    }

    /// A whole number of 32 bits, at least `least`.
    pub(crate) fn u32(&mut self, key: &'static str, least: u32) -> Option<u32> {
        let value = self.whole(key, u64::from(least), u64::from(u32::MAX))?;
        u32::try_from(value).ok()
    }

    /// A port, 1 to 65535, or 0 where `least` is 0.
    pub(crate) fn port(&mut self, key: &'static str, least: u16) -> Option<u16> {
        let value = self.whole(key, u64::from(least), u64::from(u16::MAX))?;
        u16::try_from(value).ok()
    }

    /// A number and its place.
    pub(crate) fn number(&mut self, key: &'static str) -> Option<(f64, usize)> {
        let node = self.attribute(key)?;
        match node.value {
            Value::Int(number) => Some((number as f64, node.at)),
            Value::Float(number) => Some((number, node.at)),
            _ => {
                self.mistyped(node, key, "a number", None);
                None
            }
        }
    }

    /// A duration; in Consul's style also a number of nanoseconds.
    pub(crate) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let node = self.attribute(key)?;
        match &node.value {
            Value::String(text) => match text.parse() {
                Ok(duration) => Some(duration),
                Err(error) => {
                    self.wrong(node.at, key, error);
                    None
                }
            },
            Value::Int(_) if self.style == Style::Consul => self
                .as_whole(node, key, 0, u64::MAX)
                .map(Duration::from_nanos),
            other => {
                let hint = match other {
                    Value::Int(number) => Some(format!("write \"{number}s\" for seconds")),
                    _ => None,
                };
                self.mistyped(node, key, "a duration such as \"5s\"", hint);
                None
            }
        }
    }

    /// A list of strings, each with its place; empty when it is not there.
    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<(&'a str, usize)> {
        let mut out = Vec::new();
        for node in self.list(key, "a list of strings") {
            match &node.value {
                Value::String(text) => out.push((text.as_str(), node.at)),
                _ => self.mistyped(node, key, "a list of strings", None),
            }
        }
        out
    }

    /// A list of strings.
    pub(crate) fn strings(&mut self, key: &'static str) -> Vec<String> {
        let texts = self.texts(key).into_iter();
        texts.map(|(text, _)| text.to_owned()).collect()
    }

    /// A list of whole numbers, each between `least` and `most`.
    pub(crate) fn numbers(&mut self, key: &'static str, least: u64, most: u64) -> Vec<u64> {
        let nodes = self.list(key, "a list of numbers");
        nodes
            .iter()
            .filter_map(|node| self.as_whole(node, key, least, most))
            .collect()
    }

    fn list(&mut self, key: &'static str, wanted: &str) -> &'a [Node] {
        let Some(node) = self.attribute(key) else {
            return &[];
        };
        match &node.value {
            Value::List(nodes) => nodes,
            other => {
                let hint = match other {
                    Value::String(text) => Some(format!("write [\"{text}\"]")),
                    Value::Int(number) => Some(format!("write [{number}]")),
                    _ => None,
                };
                self.mistyped(node, key, wanted, hint);
                &[]
            }
        }
    }

    /// The items of a free map, written as an object or (as Nomad's `meta`) as
    /// a block.
    fn entries(&mut self, key: &'static str) -> &'a [Item] {
        let Some(item) = self.one(key) else {
            return &[];
        };
        match &item.value.value {
            Value::Object(items) if item.labels.is_empty() => items,
            Value::Null => &[],
            _ => {
                self.mistyped(&item.value, key, "an object", None);
                &[]
            }
        }
    }

    /// A map of strings.
    pub(crate) fn map(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for item in self.entries(key) {
            match &item.value.value {
                Value::String(text) => {
                    out.insert(item.name.clone(), text.clone());
                }
                other => {
                    let hint = match other {
                        Value::Int(number) => Some(format!("write it in quotes: \"{number}\"")),
                        Value::Bool(value) => Some(format!("write it in quotes: \"{value}\"")),
                        _ => None,
                    };
                    let place = format!("{key}: {}", item.name);
                    self.mistyped(&item.value, &place, "a string", hint);
                }
            }
        }
        out
    }

    /// A map of lists of strings; one string is a list of one.
    pub(crate) fn lists(&mut self, key: &'static str) -> BTreeMap<String, Vec<String>> {
        let mut out = BTreeMap::new();
        for item in self.entries(key) {
            let nodes = match &item.value.value {
                Value::List(nodes) => nodes.as_slice(),
                _ => std::slice::from_ref(&item.value),
            };
            let mut values = Vec::new();
            for node in nodes {
                match &node.value {
                    Value::String(text) => values.push(text.clone()),
                    _ => {
                        let place = format!("{key}: {}", item.name);
                        self.mistyped(node, &place, "a list of strings", None);
                    }
                }
            }
            out.insert(item.name.clone(), values);
        }
        out
    }

    /// A map of anything.
    pub(crate) fn values(&mut self, key: &'static str) -> BTreeMap<String, serde_json::Value> {
        let mut out = BTreeMap::new();
        for item in self.entries(key) {
            if let Some((at, why)) = refused(&item.value) {
                self.wrong(at, &format!("{key}: {}", item.name), why);
            }
            out.insert(item.name.clone(), item.value.value.to_json());
        }
        out
    }

    /// An address with or without a port.
    pub(crate) fn address(&mut self, key: &'static str, port: u16) -> Option<SocketAddr> {
        self.parsed(key, |text| {
            let whole = text.parse::<SocketAddr>();
            whole
                .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
                .map_err(|_| {
                    format!("`{text}` is not an address; write one such as `10.0.0.1:{port}`")
                })
        })
    }

    /// Every block of that name.
    pub(crate) fn blocks(&mut self, key: &'static str) -> Vec<&'a Item> {
        let mut found = self.all(key);
        found.retain(|item| {
            if !item.is_block {
                let hint = Some(format!("write `{key} {{ … }}` without `=`"));
                self.wrong_with(item.at, key, "is a block, not an attribute", hint);
            }
            item.is_block
        });
        found
    }

    /// The one block of that name, which has no label.
    pub(crate) fn block(&mut self, key: &'static str) -> Option<Fields<'a>> {
        let mut found = self.blocks(key).into_iter();
        let first = found.next()?;
        for second in found {
            let (line, _) = self.context.source.place(first.at);
            let message = format!("is written twice; the first is in line {line}");
            self.wrong(second.at, key, message);
        }
        self.bare(first, key)
    }

    /// Every block of that name, none of which has a label; the path counts
    /// them from 1 where there are several.
    pub(crate) fn bare_blocks(&mut self, key: &'static str) -> Vec<Fields<'a>> {
        let found = self.blocks(key);
        let several = found.len() > 1;
        let mut out = Vec::new();
        for (index, item) in found.into_iter().enumerate() {
            let name = match several {
                true => format!("{key} {}", index + 1),
                false => key.to_owned(),
            };
            out.extend(self.bare(item, &name));
        }
        out
    }

    fn bare(&self, item: &'a Item, name: &str) -> Option<Fields<'a>> {
        if let Some(label) = item.labels.first() {
            let message = format!("has the label \"{}\", and takes none", label.text);
            self.wrong(label.at, name, message);
        }
        self.enter(item, name)
    }

    /// Every block of that name; each has one label, unique among them.
    pub(crate) fn labelled(&mut self, key: &'static str) -> Vec<(&'a Label, Fields<'a>)> {
        let mut out: Vec<(&'a Label, Fields<'a>)> = Vec::new();
        let mut seen: HashMap<&'a str, usize> = HashMap::new();
        for item in self.blocks(key) {
            let [label] = item.labels.as_slice() else {
                let hint = Some(format!("write `{key} \"name\" {{ … }}`"));
                self.wrong_with(item.at, key, "must have one label, its name", hint);
                continue;
            };
            let name = format!("{key} {}", label.text);
            if let Some(first) = seen.get(label.text.as_str()) {
                let first = self.context.source.named(*first);
                let message = format!("is defined twice; the first is at {first}");
                self.wrong(item.at, &name, message);
                continue;
            }
            seen.insert(&label.text, item.at);
            if let Some(fields) = self.enter(item, &name) {
                out.push((label, fields));
            }
        }
        out
    }

    /// The items of a block of this one, under the name `name`.
    pub(crate) fn enter(&self, item: &'a Item, name: &str) -> Option<Fields<'a>> {
        self.enter_node(&item.value, item.at, name)
    }

    fn enter_node(&self, node: &'a Node, at: usize, name: &str) -> Option<Fields<'a>> {
        let Value::Object(items) = &node.value else {
            self.mistyped(node, name, "an object", None);
            return None;
        };
        Some(Fields {
            path: self.place(name),
            at,
            is_root: false,
            ..Fields::new(self.context, self.style, String::new(), at, items)
        })
    }

    /// Consul's style: an object, also as a block or as a list of one.
    pub(crate) fn object(&mut self, key: &'static str) -> Option<Fields<'a>> {
        let item = self.one(key)?;
        match &item.value.value {
            Value::Null => None,
            Value::List(nodes) if nodes.len() == 1 => {
                let node = nodes.first()?;
                self.enter_node(node, node.at, key)
            }
            _ => self.enter_node(&item.value, item.at, key),
        }
    }

    /// Consul's style: a list of objects, also as blocks one after the other.
    pub(crate) fn objects(&mut self, key: &'static str) -> Vec<Fields<'a>> {
        let nodes: Vec<&'a Node> = self
            .all(key)
            .into_iter()
            .flat_map(|item| match &item.value.value {
                Value::List(nodes) => nodes.iter().collect(),
                Value::Null => Vec::new(),
                _ => vec![&item.value],
            })
            .collect();
        nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| self.enter_node(node, node.at, &format!("{key}[{index}]")))
            .collect()
    }

    /// Consul's style: a map of objects, each with its key.
    pub(crate) fn object_map(&mut self, key: &'static str) -> Vec<(&'a str, usize, Fields<'a>)> {
        let mut out = Vec::new();
        for item in self.entries(key) {
            if let Some(fields) = self.enter(item, &format!("{key}[{}]", item.name)) {
                out.push((item.name.as_str(), item.at, fields));
            }
        }
        out
    }
}

/// The first expression in a value that is not taken.
fn refused(node: &Node) -> Option<(usize, &str)> {
    match &node.value {
        Value::Refused(why) => Some((node.at, why)),
        Value::List(nodes) => nodes.iter().find_map(refused),
        Value::Object(items) => items.iter().find_map(|item| refused(&item.value)),
        _ => None,
    }
}

/// Whether a value says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) => true,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        Value::List(nodes) => nodes.is_empty(),
        Value::Object(items) => items.iter().all(|item| is_empty(&item.value.value)),
        _ => false,
    }
}

//! Attributes: strings, numbers, durations, lists and maps.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Fields, Style};
use crate::Duration;
use crate::tree::{Item, Node, Value};
use crate::words::{is_later, listed, suggest};

impl<'a> Fields<'a> {
    /// The value of an attribute; null is as if it were not there.
    fn attribute(&mut self, key: &'static str) -> Option<&'a Node> {
        let item = self.one(key)?;
        if item.is_block && self.style == Style::Hcl {
            let hint = Some(format!("write `{key} = …`"));
            self.wrong_with(item.at, key, "is an attribute, not a block", hint);
            return None;
        }
        match &item.value.value {
            _ if self.says_nothing(&item.value) => None,
            Value::Refused(why) => {
                self.wrong(item.value.at, key, why);
                None
            }
            _ => Some(&item.value),
        }
    }

    pub(super) fn mistyped(&self, node: &Node, key: &str, wanted: &str, hint: Option<String>) {
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

    /// Where a list stands that is written and has nothing in it.
    pub(crate) fn empty_list(&self, key: &str) -> Option<usize> {
        let mut named = self.items.iter().filter(|item| self.is(&item.name, key));
        let found = named.find(|item| match &item.value.value {
            Value::List(nodes) => nodes.is_empty() && !item.is_block,
            _ => false,
        });
        found.map(|item| item.value.at)
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
    pub(super) fn entries(&mut self, key: &'static str) -> &'a [Item] {
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

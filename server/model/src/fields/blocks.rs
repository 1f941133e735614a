//! Blocks, and the objects that stand for them in Consul's entries.

use std::collections::HashMap;

use super::Fields;
use crate::tree::{Item, Label, Node, Value};

impl<'a> Fields<'a> {
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

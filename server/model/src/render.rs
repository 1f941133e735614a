//! An entry as the text of a file, which [`crate::hcl`] reads back to the same
//! entry: for `config read`, and for those who move what they made by command
//! into files.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::{
    CipherSuite, Destination, Edge, Entry, Gateway, Intention, IntentionRule, Key, KeyExchange,
    LoadBalancer, Mesh, OutlierDetection, PathMatch, Protocol, RequestMatch, Retries, Route, Rule,
    Service, StringMatch, Subset, TlsPolicy, Weight,
};

/// The entry as one block, with a newline at the end. What has its default is
/// not written.
pub fn render(entry: &Entry) -> String {
    let block = match entry {
        Entry::Mesh(value) => mesh(value),
        Entry::Service(value) => service(value),
        Entry::Route(value) => route(value),
        Entry::Intention(value) => intention(value),
        Entry::Gateway(value) => gateway(value),
    };
    let mut out = String::new();
    block.write(&mut out, 0);
    out
}

/// Several entries, one block after the other.
pub fn render_all<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let all: Vec<String> = entries.into_iter().map(render).collect();
    all.join("\n")
}

fn mesh(mesh: &Mesh) -> Block {
    let mut block = Block::new("mesh", &[]);
    if let Some(action) = mesh.default_intention {
        block.text("default_intention", action.as_str());
    }
    if !mesh.outbound.is_any() {
        block.text("outbound", mesh.outbound.as_str());
    }
    if !mesh.tls.is_default() {
        block.inner.push(tls(&mesh.tls));
    }
    block
}

fn tls(policy: &TlsPolicy) -> Block {
    let mut block = Block::new("tls", &[]);
    block.option("min_version", policy.min_version);
    let suites = policy.cipher_suites.iter().map(CipherSuite::as_str);
    block.texts("cipher_suites", suites);
    let exchanges = policy.key_exchange.iter().map(KeyExchange::as_str);
    block.texts("key_exchange", exchanges);
    block
}

fn service(service: &Service) -> Block {
    let mut block = Block::new("service", &[&service.key().to_string()]);
    if service.protocol != Protocol::default() {
        block.text("protocol", service.protocol.as_str());
    }
    if service.load_balancer != LoadBalancer::default() {
        block.text("load_balancer", service.load_balancer.as_str());
    }
    block.option("connect_timeout", service.connect_timeout);
    block.option("request_timeout", service.request_timeout);
    block.option("default_subset", service.default_subset.as_ref());
    block.map("meta", &service.meta);
    for (name, value) in &service.subsets {
        block.inner.push(subset(name, value));
    }
    block
        .inner
        .extend(service.outlier_detection.as_ref().map(outlier_detection));
    block
}

fn subset(name: &str, subset: &Subset) -> Block {
    let mut block = Block::new("subset", &[name]);
    block.map("meta", &subset.meta);
    block.texts("tags", &subset.tags);
    if subset.only_passing {
        block.plain("only_passing", true);
    }
    block
}

fn outlier_detection(detection: &OutlierDetection) -> Block {
    let mut block = Block::new("outlier_detection", &[]);
    block.plain("consecutive_5xx", detection.consecutive_5xx);
    block.option("base_ejection_time", detection.base_ejection_time);
    if let Some(percent) = detection.max_ejection_percent {
        block.plain("max_ejection_percent", percent);
    }
    block
}

fn route(route: &Route) -> Block {
    let mut block = Block::new("route", &[&route.key().to_string()]);
    block.inner.extend(route.rules.iter().map(rule));
    block
}

fn rule(rule: &Rule) -> Block {
    let mut block = Block::new("rule", &[&rule.name]);
    block.option("timeout", rule.timeout);
    for value in &rule.matches {
        let mut inner = Block::new("match", &[]);
        request(&mut inner, value);
        block.inner.push(inner);
    }
    block.inner.extend(rule.to.iter().map(destination));
    block.inner.extend(rule.retries.as_ref().map(retries));
    block
}

fn destination(destination: &Destination) -> Block {
    let labels: Vec<&str> = destination.subset.iter().map(String::as_str).collect();
    let mut block = Block::new("to", &labels);
    block.option("service", destination.service.as_ref().map(Key::to_string));
    if destination.weight != Weight::FULL {
        block.plain("weight", destination.weight);
    }
    block
}

fn retries(retries: &Retries) -> Block {
    let mut block = Block::new("retries", &[]);
    block.plain("attempts", retries.attempts);
    block.option("per_try_timeout", retries.per_try_timeout);
    block.texts("on", retries.on.iter().map(|on| on.as_str()));
    if !retries.status_codes.is_empty() {
        let codes: Vec<String> = retries.status_codes.iter().map(u16::to_string).collect();
        block.plain("status_codes", format!("[{}]", codes.join(", ")));
    }
    block
}

fn intention(intention: &Intention) -> Block {
    let sides = [&intention.source, &intention.destination].map(Key::to_string);
    let mut block = Block::new("intention", &[&sides[0], &sides[1]]);
    match &intention.rule {
        IntentionRule::Action(action) => block.text("action", action.as_str()),
        IntentionRule::Permissions(permissions) => {
            for permission in permissions {
                let mut inner = Block::new("permission", &[]);
                inner.text("action", permission.action.as_str());
                request(&mut inner, &permission.request);
                block.inner.push(inner);
            }
        }
    }
    if !intention.description.is_empty() {
        block.text("description", &intention.description);
    }
    block.map("meta", &intention.meta);
    block
}

fn gateway(gateway: &Gateway) -> Block {
    let mut block = Block::new("gateway", &[&gateway.key().to_string()]);
    block.map("meta", &gateway.meta);
    let mut edge;
    match &gateway.edge {
        Edge::Ingress(ingress) => {
            edge = Block::new("ingress", &[]);
            if ingress.tls.enabled {
                let mut tls = Block::new("tls", &[]);
                tls.plain("enabled", true);
                edge.inner.push(tls);
            }
            for listener in &ingress.listeners {
                let mut inner = Block::new("listener", &[]);
                inner.plain("port", listener.port);
                if listener.protocol != Protocol::default() {
                    inner.text("protocol", listener.protocol.as_str());
                }
                for exposed in &listener.services {
                    let mut service = Block::new("service", &[]);
                    service.text("name", &exposed.service.to_string());
                    service.texts("hosts", &exposed.hosts);
                    inner.inner.push(service);
                }
                edge.inner.push(inner);
            }
        }
        Edge::Terminating(terminating) => {
            edge = Block::new("terminating", &[]);
            for linked in &terminating.services {
                let mut service = Block::new("service", &[]);
                service.text("name", &linked.service.to_string());
                for (key, value) in [
                    ("ca_file", &linked.ca_file),
                    ("cert_file", &linked.cert_file),
                    ("key_file", &linked.key_file),
                    ("sni", &linked.sni),
                ] {
                    if !value.is_empty() {
                        service.text(key, value);
                    }
                }
                edge.inner.push(service);
            }
        }
    }
    block.inner.push(edge);
    block
}

fn request(block: &mut Block, request: &RequestMatch) {
    match &request.path {
        Some(PathMatch::Exact(path)) => block.text("path_exact", path),
        Some(PathMatch::Prefix(path)) => block.text("path_prefix", path),
        Some(PathMatch::Regex(regex)) => block.text("path_regex", regex),
        None => {}
    }
    block.texts("methods", &request.methods);
    for header in &request.headers {
        let inner = condition("header", &header.name, &header.value, header.invert);
        block.inner.push(inner);
    }
    for query in &request.query {
        let inner = condition("query", &query.name, &query.value, query.invert);
        block.inner.push(inner);
    }
}

fn condition(kind: &'static str, name: &str, value: &StringMatch, invert: bool) -> Block {
    let mut block = Block::new(kind, &[name]);
    match value {
        StringMatch::Present => block.plain("present", true),
        StringMatch::Exact(text) => block.text("exact", text),
        StringMatch::Prefix(text) => block.text("prefix", text),
        StringMatch::Suffix(text) => block.text("suffix", text),
        StringMatch::Contains(text) => block.text("contains", text),
        StringMatch::Regex(text) => block.text("regex", text),
    }
    if invert {
        block.plain("invert", true);
    }
    block
}

/// A block: its attributes, then the blocks in it.
struct Block {
    head: String,
    attributes: Vec<(&'static str, String)>,
    inner: Vec<Block>,
}

impl Block {
    fn new(kind: &str, labels: &[&str]) -> Self {
        let mut head = kind.to_owned();
        for label in labels {
            head.push(' ');
            head.push_str(&quoted(label));
        }
        Self {
            head,
            attributes: Vec::new(),
            inner: Vec::new(),
        }
    }

    fn plain(&mut self, key: &'static str, value: impl ToString) {
        self.attributes.push((key, value.to_string()));
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.attributes.push((key, quoted(value)));
    }

    fn option(&mut self, key: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.text(key, &value.to_string());
        }
    }

    fn texts(&mut self, key: &'static str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        let values: Vec<String> = values.into_iter().map(|v| quoted(v.as_ref())).collect();
        if !values.is_empty() {
            self.plain(key, format!("[{}]", values.join(", ")));
        }
    }

    fn map(&mut self, key: &'static str, map: &BTreeMap<String, String>) {
        if map.is_empty() {
            return;
        }
        let items: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("{} = {}", object_key(name), quoted(value)))
            .collect();
        self.plain(key, format!("{{ {} }}", items.join(", ")));
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        // Writing to a string cannot fail.
        let _ = match (self.attributes.as_slice(), self.inner.is_empty()) {
            ([], true) => writeln!(out, "{indent}{} {{}}", self.head),
            ([(key, value)], true) => {
                writeln!(out, "{indent}{} {{ {key} = {value} }}", self.head)
            }
            _ => {
                let _ = writeln!(out, "{indent}{} {{", self.head);
                self.write_body(out, depth + 1);
                writeln!(out, "{indent}}}")
            }
        };
    }

    fn write_body(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        let width = self.attributes.iter().map(|(key, _)| key.len()).max();
        for (key, value) in &self.attributes {
            let _ = writeln!(out, "{indent}{key:0$} = {value}", width.unwrap_or(0));
        }
        for (index, block) in self.inner.iter().enumerate() {
            let begins = index == 0 && !self.attributes.is_empty();
            let other = index > 0
                && self.inner.get(index - 1).is_some_and(|before| {
                    before.is_long() || block.is_long() || before.kind() != block.kind()
                });
            if begins || other {
                out.push('\n');
            }
            block.write(out, depth);
        }
    }

    fn is_long(&self) -> bool {
        !self.inner.is_empty() || self.attributes.len() > 1
    }

    fn kind(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }
}

/// Text in quotes, nothing in it with a meaning of its own.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' if chars.peek() == Some(&'{') => {
                out.push(c);
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key of an object, in quotes unless it is a plain word.
fn object_key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(plain)
        && !matches!(name, "for" | "null" | "true" | "false");
    match is_word {
        true => name.to_owned(),
        false => quoted(name),
    }
}

#[cfg(test)]
mod tests;

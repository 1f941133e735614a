//! Files to entries: the `mesh`, `service`, `route`, `intention` and
//! `gateway` blocks.
//!
//! A file is walked as a syntax tree, not deserialised into maps: maps lose the
//! order of labelled blocks, merge duplicates, and know no line numbers.
//! Everything wrong with a file is said at once, at its place; nothing is
//! evaluated, so that a file means the same wherever it is read.
//!
//! What is checked here is what one block can tell. [`crate::validate`] checks
//! the blocks against each other and against what stands already.

mod gateway;
mod intention;
mod matching;
mod route;
mod service;
mod tls;

use std::collections::HashMap;

pub(crate) use route::MAX_ATTEMPTS;
#[cfg(test)]
pub(crate) use tests::EXAMPLE;

use crate::diagnostic::Context;
use crate::fields::{Fields, Style};
use crate::tree::{self, Item, Label};
use crate::words::{is_later, listed, suggest};
use crate::{Action, Diagnostics, Entry, EntryKey, Key, Located, Mesh, Outbound};

/// The blocks that a file may have at its top.
const BLOCKS: [&str; 5] = ["mesh", "service", "route", "intention", "gateway"];

/// The entries of one file, in its order; or everything that is wrong with it.
///
/// `file` is only for the places that are named. At most 1 MiB and 10,000
/// blocks are read.
pub fn parse_entries(file: &str, text: &str) -> Result<Vec<Located<Entry>>, Diagnostics> {
    parse_files(&[(file, text)])
}

/// The entries of several files, as (name, text), which together are one set:
/// a block that stands twice is an error that names both places.
pub fn parse_files(files: &[(&str, &str)]) -> Result<Vec<Located<Entry>>, Diagnostics> {
    let mut all = Vec::new();
    let mut wrong = Diagnostics::default();
    let mut first: HashMap<EntryKey, String> = HashMap::new();
    for (file, text) in files {
        let context = Context::new(file, text);
        for item in tree::read(&context) {
            let before = context.count();
            let read = block(&context, &item);
            let Some(entry) = context.not_lost(item.at, before, read) else {
                continue;
            };
            let key = entry.key();
            let located = context.locate(item.at, &format!("{key}: "), entry);
            match first.get(&key) {
                Some(place) => {
                    let message = format!("{key}: is defined twice; the first is at {place}");
                    context.report(item.at, message, Some("keep one of the two".to_owned()));
                }
                None => {
                    first.insert(key, context.source.named(item.at));
                    all.push(located);
                }
            }
        }
        if let Err(more) = context.finish(()) {
            wrong.extend(more);
        }
    }
    match wrong.is_empty() {
        true => Ok(all),
        false => Err(wrong),
    }
}

fn block(context: &Context<'_>, item: &Item) -> Option<Entry> {
    if !item.is_block {
        let (message, hint) = match item.name.as_str() {
            "Kind" | "kind" => (
                "this is one of Consul's config entries".to_owned(),
                "write it with `meshctl config write`, one entry a file".to_owned(),
            ),
            name => (
                format!("the attribute `{name}` stands outside of every block"),
                match BLOCKS.contains(&name) {
                    true => format!("write `{name} \"…\" {{ … }}` without `=`"),
                    false => format!("at the top of a file stand {}", listed(&BLOCKS)),
                },
            ),
        };
        context.report(item.at, message, Some(hint));
        return None;
    }
    match item.name.as_str() {
        "mesh" => {
            let [] = item.labels.as_slice() else {
                return labels(context, item, "mesh { … }");
            };
            let fields = enter(context, item, "mesh".to_owned())?;
            Some(Entry::Mesh(mesh(fields)))
        }
        "service" => {
            let (key, fields) = named(context, item)?;
            service::service(fields, key).map(Entry::Service)
        }
        "route" => {
            let (key, fields) = named(context, item)?;
            route::route(fields, key).map(Entry::Route)
        }
        "gateway" => {
            let (key, fields) = named(context, item)?;
            gateway::gateway(fields, key).map(Entry::Gateway)
        }
        "intention" => {
            let [source, destination] = item.labels.as_slice() else {
                return labels(context, item, "intention \"source\" \"destination\" { … }");
            };
            let path = format!("intention {} => {}", source.text, destination.text);
            let sides = [
                pattern(context, &path, source),
                pattern(context, &path, destination),
            ];
            let fields = enter(context, item, path)?;
            intention::intention(fields, sides)
        }
        name => {
            unknown(context, item, name);
            None
        }
    }
}

fn unknown(context: &Context<'_>, item: &Item, name: &str) {
    if is_later(name) {
        return context.report(item.at, format!("`{name}` is not supported yet"), None);
    }
    let hint = match name {
        "instance" => "instances stand in the files of an agent's `instance_dir`".to_owned(),
        name => match suggest(name, BLOCKS) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("at the top of a file stand {}", listed(&BLOCKS)),
        },
    };
    context.report(item.at, format!("unknown block `{name}`"), Some(hint));
}

fn labels<T>(context: &Context<'_>, item: &Item, form: &str) -> Option<T> {
    let message = match item.labels.len() {
        0 => format!("{}: has no label", item.name),
        1 => format!("{}: has one label", item.name),
        count => format!("{}: has {count} labels", item.name),
    };
    context.report(item.at, message, Some(format!("write `{form}`")));
    None
}

pub(crate) fn enter<'a>(
    context: &'a Context<'a>,
    item: &'a Item,
    path: String,
) -> Option<Fields<'a>> {
    match &item.value.value {
        tree::Value::Object(items) => Some(Fields::new(context, Style::Hcl, path, item.at, items)),
        _ => None,
    }
}

/// The key of a block with one label, and its items. A wrong key is reported,
/// and what is in the block read all the same, so that its mistakes are found.
fn named<'a>(context: &'a Context<'a>, item: &'a Item) -> Option<(Option<Key>, Fields<'a>)> {
    let [label] = item.labels.as_slice() else {
        return labels(context, item, &format!("{} \"name\" {{ … }}", item.name));
    };
    let path = format!("{} {}", item.name, label.text);
    let mut fields = enter(context, item, path.clone())?;
    let key = exact(context, &path, &label.text, label.at);
    let key = with_namespace(&mut fields, key, label);
    Some((key, fields))
}

/// The key with the namespace of the attribute, which may stand in the label
/// as well.
pub(crate) fn with_namespace(
    fields: &mut Fields<'_>,
    key: Option<Key>,
    label: &Label,
) -> Option<Key> {
    let written = fields.parsed("namespace", |text| {
        crate::check_name(text).map(|()| text.to_owned())
    });
    match (key, written) {
        (Some(key), Some(namespace)) => {
            if label.text.contains('/') && key.namespace != namespace {
                let message = format!("is \"{namespace}\", and \"{}\" in the label", key.namespace);
                let at = fields.where_is("namespace").unwrap_or(label.at);
                fields.wrong(at, "namespace", message);
            }
            Some(Key::new(namespace, key.name))
        }
        (key, _) => key,
    }
}

/// The key of one service.
pub(crate) fn exact(context: &Context<'_>, path: &str, text: &str, at: usize) -> Option<Key> {
    let key = text
        .parse::<Key>()
        .and_then(|key| key.check().map(|()| key));
    key.map_err(|error| context.report(at, format!("{path}: {error}"), None))
        .ok()
}

fn pattern(context: &Context<'_>, path: &str, label: &Label) -> Option<Key> {
    label
        .text
        .parse()
        .map_err(|error| context.report(label.at, format!("{path}: {error}"), None))
        .ok()
}

fn mesh(mut fields: Fields<'_>) -> Mesh {
    let tls = fields.block("tls").map(tls::policy);
    let mesh = Mesh {
        tls: tls.unwrap_or_default(),
        default_intention: fields.word("default_intention", &["allow", "deny"], Action::parse),
        outbound: fields
            .word(
                "outbound",
                &Outbound::ALL.map(Outbound::as_str),
                Outbound::parse,
            )
            .unwrap_or_default(),
    };
    fields.finish();
    mesh
}

#[cfg(test)]
mod tests;

//! The documentation says what the parsers do: its HCL is read by the parser it is for, and the
//! tables of keys in `docs/reference/hcl.md` have those keys that the parser knows, no more and no
//! fewer.
//!
//! A fenced block says after `hcl` whose file it is: `entries` (also when nothing is said),
//! `instance`, `server`, `agent` or `consul`. A table is checked that stands below a comment
//! `<!-- keys: PARSER: FILE -->`, in which `;` is a new line and `?` the place where the keys
//! stand. There a key is put that nobody knows, and the parser's answer lists what it would take.
//! `plus TABLE` adds the keys of the table above whose head begins so, `without A, B` takes keys
//! away. A paragraph below `<!-- later: … -->` names, in code, keys that are refused as not supported yet.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mesh_model::config::{AgentConfig, ServerConfig};
use mesh_model::consul::parse_config_entry;
use mesh_model::hcl::parse_entries;
use mesh_model::instance::parse_instances;
use mesh_model::validate::{self, View};
use mesh_model::{
    Diagnostic, Diagnostics, Entry, EntryKey, Gateway, Intention, Key, Mesh, Route, Service,
};

/// A key that no parser knows, and that is near to none that it knows.
const NOBODYS: &str = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

#[test]
fn every_hcl_block_is_read() {
    let mut read = 0;
    for (file, text) in documents() {
        for block in fenced(&text) {
            let name = format!("{}:{}", file.display(), block.line);
            if let Err(wrong) = parse(block.parser, &name, &block.text) {
                panic!("{wrong}");
            }
            if block.parser == "entries" {
                validated(&name, &block.text);
            }
            read += 1;
        }
    }
    assert!(read >= 5, "only {read} blocks found");
}

#[test]
fn the_tables_of_keys_are_complete() {
    let text = reference();
    let mut headed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut checked = 0;
    for section in marked(&text, "keys") {
        let (head, mut keys) = table(section.below);
        let own = keys.clone();
        let (probe, plus, without) = modifiers(section.probe);
        for plus in plus {
            let more = headed.iter().find(|(head, _)| head.starts_with(plus));
            let (_, more) = more.unwrap_or_else(|| panic!("no table `{plus}` above"));
            keys.extend(more.iter().cloned());
        }
        for key in without {
            assert!(keys.remove(key), "{key}: `{}`", section.probe);
        }
        let (parser, probe) = probe.split_once(':').unwrap();
        let known = known(parser.trim(), probe, &section);
        assert_eq!(keys, known, "the table below `{}`", section.probe);
        headed.insert(head, own);
        checked += 1;
    }
    assert!(checked >= 30, "only {checked} tables found");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let text = reference();
    let mut checked = 0;
    for section in marked(&text, "later") {
        let (parser, probe) = section.probe.split_once(':').unwrap();
        let paragraph: Vec<&str> = section
            .below
            .lines()
            .take_while(|line| !line.is_empty())
            .collect();
        let paragraph = paragraph.join(" ");
        // `Not yet in `Splits`: …` names the place before the colon.
        let listed = match paragraph.strip_prefix("Not yet") {
            Some(rest) => rest.split_once(':').map_or(rest, |(_, rest)| rest),
            None => &paragraph,
        };
        let listed = listed.split("; and").next().unwrap_or_default();
        let listed = listed.split("(").next().unwrap_or_default();
        for key in code(listed) {
            let wrong = said(parser.trim(), probe, key);
            let refused = wrong
                .iter()
                .any(|one| one.message.contains(key) && one.message.contains("not supported yet"));
            assert!(refused, "{key} below `{}`: {wrong:?}", section.probe);
            checked += 1;
        }
    }
    assert!(checked >= 60, "only {checked} keys found");
}

/// README.md and everything in docs.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = files.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    });
    read.collect()
}

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/hcl.md");
    std::fs::read_to_string(path).unwrap()
}

struct Fenced<'a> {
    parser: &'a str,
    line: usize,
    text: String,
}

/// The fenced blocks of HCL.
fn fenced(text: &str) -> Vec<Fenced<'_>> {
    let mut all = Vec::new();
    let mut open: Option<(&str, Fenced<'_>)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            Some((_, _)) if line.trim() == "```" => {
                if let Some((language, block)) = open.take()
                    && language == "hcl"
                {
                    all.push(block);
                }
            }
            Some((_, block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {
                if let Some(info) = line.trim().strip_prefix("```") {
                    let mut words = info.split_whitespace();
                    let block = Fenced {
                        line: index + 1,
                        text: String::new(),
                        parser: match (words.next(), words.next()) {
                            (Some("hcl"), parser) => parser.unwrap_or("entries"),
                            (language, _) => language.unwrap_or_default(),
                        },
                    };
                    let language = info.split_whitespace().next().unwrap_or_default();
                    open = Some((language, block));
                }
            }
        }
    }
    all
}

fn parse(parser: &str, name: &str, text: &str) -> Result<(), Diagnostics> {
    match parser {
        "entries" => parse_entries(name, text).map(drop),
        "instance" => parse_instances(name, text).map(drop),
        "server" => ServerConfig::parse(&[(name, text)]).map(drop),
        "agent" => AgentConfig::parse(&[(name, text)]).map(drop),
        "consul" => parse_config_entry(name, text).map(drop),
        other => panic!("{name}: no parser is called `{other}`"),
    }
}

/// A file of entries must do as a whole: whoever copies it writes it.
fn validated(name: &str, text: &str) {
    let entries = parse_entries(name, text).unwrap();
    let entries: Vec<Entry> = entries.into_iter().map(|entry| entry.value).collect();
    let keys: Vec<EntryKey> = entries.iter().map(Entry::key).collect();
    let findings = validate::check(&Set(entries), &keys);
    assert!(findings.is_ok(), "{name}: {findings:?}");
}

struct Set(Vec<Entry>);

impl View for Set {
    fn mesh(&self) -> Option<&Mesh> {
        self.0.iter().find_map(|entry| match entry {
            Entry::Mesh(mesh) => Some(mesh),
            _ => None,
        })
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        self.0.iter().find_map(|entry| match entry {
            Entry::Service(service) if service.key() == *key => Some(service),
            _ => None,
        })
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        self.routes().find(|route| route.key() == *key)
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        self.intentions()
            .find(|one| one.source == *source && one.destination == *destination)
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(self.0.iter().filter_map(|entry| match entry {
            Entry::Route(route) => Some(route),
            _ => None,
        }))
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(self.0.iter().filter_map(|entry| match entry {
            Entry::Intention(intention) => Some(intention),
            _ => None,
        }))
    }

    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.gateways().find(|gateway| gateway.key() == *key)
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        Box::new(self.0.iter().filter_map(|entry| match entry {
            Entry::Gateway(gateway) => Some(gateway),
            _ => None,
        }))
    }
}

/// A comment that says how to check what stands below it.
struct Marked<'a> {
    probe: &'a str,
    below: &'a str,
}

fn marked<'a>(text: &'a str, kind: &str) -> Vec<Marked<'a>> {
    let opening = format!("<!-- {kind}: ");
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(&opening) {
        rest = &rest[at + opening.len()..];
        let (probe, after) = rest.split_once(" -->\n").unwrap();
        // Several comments may stand above one table.
        let mut below = after;
        while below.starts_with("<!--") {
            below = below.split_once('\n').unwrap().1;
        }
        all.push(Marked { probe, below });
        rest = after;
    }
    all
}

/// `PROBE plus TABLE plus TABLE without A, B`.
fn modifiers(text: &str) -> (&str, Vec<&str>, Vec<&str>) {
    let (text, without) = match text.split_once(" without ") {
        Some((text, keys)) => (text, keys.split(", ").collect()),
        None => (text, Vec::new()),
    };
    let mut parts = text.split(" plus ");
    (parts.next().unwrap_or_default(), parts.collect(), without)
}

/// The head of the first column of a table, and the keys in it.
fn table(text: &str) -> (String, BTreeSet<String>) {
    let mut rows = text
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cell = line
                .trim_start_matches('|')
                .split('|')
                .next()
                .unwrap_or_default();
            cell.trim()
        });
    let head = rows.next().expect("a table").to_owned();
    let mut keys = BTreeSet::new();
    for row in rows.skip(1) {
        // `subset "LABEL"` is the key subset.
        let words = code(row)
            .into_iter()
            .filter_map(|code| code.split_whitespace().next());
        keys.extend(words.map(str::to_owned));
    }
    (head, keys)
}

/// What stands in backquotes.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What the parser takes in the place of `?`.
fn known(parser: &str, probe: &str, section: &Marked<'_>) -> BTreeSet<String> {
    let wrong = said(parser, probe, NOBODYS);
    let hint = wrong.iter().find_map(|one| {
        let hint = one.hint.as_deref()?;
        one.message
            .contains(NOBODYS)
            .then(|| hint.strip_prefix("known here: "))
            .flatten()
    });
    let hint = hint.unwrap_or_else(|| panic!("`{}`: {wrong:?}", section.probe));
    code(hint).into_iter().map(str::to_owned).collect()
}

/// What the parser says of a file with `key` in the place of `?`.
fn said(parser: &str, probe: &str, key: &str) -> Vec<Diagnostic> {
    let mut text = probe
        .replace(';', "\n")
        .replace('?', &format!("\n{key} = 1\n"));
    if parser != "consul" {
        text = text.replace('{', "{\n").replace('}', "\n}");
    }
    match parse(parser, "probe.hcl", &text) {
        Ok(()) => panic!("{text}\nis taken"),
        Err(wrong) => wrong.into_iter().collect(),
    }
}

//! Conditions on a request, the same in a rule's `match` and in a
//! `permission`.

use crate::fields::Fields;
use crate::{
    HeaderMatch, MatchError, PathMatch, QueryMatch, RequestMatch, StringMatch, parse_methods,
};

const PATHS: [&str; 3] = ["path_exact", "path_prefix", "path_regex"];

/// Reads the conditions that stand in the block; the rest of it is the
/// caller's.
pub(super) fn request(fields: &mut Fields<'_>) -> RequestMatch {
    let mut headers = Vec::new();
    for (name, at, value, invert) in conditions(fields, "header") {
        match HeaderMatch::new(name, value, invert) {
            Ok(header) => headers.push(header),
            Err(error) => fields.wrong(at, &format!("header {name}"), error),
        }
    }
    let query = conditions(fields, "query")
        .into_iter()
        .map(|(name, _, value, invert)| QueryMatch {
            name: name.to_owned(),
            value,
            invert,
        })
        .collect();
    RequestMatch {
        path: path(fields),
        methods: methods(fields),
        headers,
        query,
    }
}

fn path(fields: &mut Fields<'_>) -> Option<PathMatch> {
    let [exact, prefix, regex] = PATHS.map(|key| fields.string(key));
    match PathMatch::from_keys(exact, prefix, regex) {
        Ok(path) => path,
        Err(error) => {
            let hint = match &error {
                MatchError::RelativePath(path) => Some(format!("write \"/{path}\"")),
                _ => None,
            };
            let at = PATHS.iter().rev().find_map(|key| fields.where_is(key));
            fields.wrong_with(at.unwrap_or(fields.at()), "", error, hint);
            None
        }
    }
}

fn methods(fields: &mut Fields<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for (text, at) in fields.texts("methods") {
        match parse_methods(vec![text.to_owned()]) {
            Ok(method) => out.extend(method),
            Err(error) => fields.wrong(at, "methods", error),
        }
    }
    out
}

/// The `header "name" {}` or `query "name" {}` blocks: name, place, condition,
/// and whether it is turned around. A name may stand several times: all of its
/// conditions must hold.
fn conditions<'a>(
    fields: &mut Fields<'a>,
    key: &'static str,
) -> Vec<(&'a str, usize, StringMatch, bool)> {
    let mut out = Vec::new();
    for item in fields.blocks(key) {
        let [label] = item.labels.as_slice() else {
            let hint = Some(format!("write `{key} \"name\" {{ … }}`"));
            fields.wrong_with(item.at, key, "must have one label, the name", hint);
            continue;
        };
        let Some(mut inner) = fields.enter(item, &format!("{key} {}", label.text)) else {
            continue;
        };
        let present = inner.bool("present");
        let [exact, prefix, suffix, contains, regex] =
            ["exact", "prefix", "suffix", "contains", "regex"].map(|key| inner.string(key));
        let invert = inner.bool("invert").unwrap_or_default();
        let value =
            StringMatch::from_keys(&label.text, present, exact, prefix, suffix, contains, regex);
        match value {
            Ok(value) => out.push((label.text.as_str(), label.at, value, invert)),
            Err(error) => inner.wrong(item.at, "", error),
        }
        inner.finish();
    }
    out
}

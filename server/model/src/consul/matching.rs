//! Conditions on a request: `HTTP { PathPrefix, Header, QueryParam, Methods }`
//! of a router's match and of a permission.

use crate::fields::Fields;
use crate::{HeaderMatch, PathMatch, QueryMatch, RequestMatch, StringMatch, parse_methods};

const PATHS: [&str; 3] = ["PathExact", "PathPrefix", "PathRegex"];

/// Reads all of the object.
pub(super) fn request(mut fields: Fields<'_>) -> RequestMatch {
    fields.later(&["CaseInsensitive"]);
    let mut request = RequestMatch {
        path: path(&mut fields),
        ..RequestMatch::default()
    };
    for (text, at) in fields.texts("Methods") {
        match parse_methods(vec![text.to_owned()]) {
            Ok(method) => request.methods.extend(method),
            Err(error) => fields.wrong(at, "Methods", error),
        }
    }
    for inner in fields.objects("Header") {
        let at = inner.at();
        let Some((name, value, invert)) = condition(inner) else {
            continue;
        };
        match HeaderMatch::new(&name, value, invert) {
            Ok(header) => request.headers.push(header),
            Err(error) => fields.wrong(at, "Header", error),
        }
    }
    for inner in fields.objects("QueryParam") {
        if let Some((name, value, invert)) = condition(inner) {
            request.query.push(QueryMatch {
                name,
                value,
                invert,
            });
        }
    }
    fields.finish();
    request
}

fn path(fields: &mut Fields<'_>) -> Option<PathMatch> {
    let [exact, prefix, regex] = PATHS.map(|key| fields.string(key));
    match PathMatch::from_keys(exact, prefix, regex) {
        Ok(path) => path,
        Err(error) => {
            let at = PATHS.iter().rev().find_map(|key| fields.where_is(key));
            fields.wrong(at.unwrap_or(fields.at()), "", error);
            None
        }
    }
}

fn condition(mut fields: Fields<'_>) -> Option<(String, StringMatch, bool)> {
    fields.later(&["IgnoreCase"]);
    let name = fields.string("Name");
    let name = fields.required("Name", name, "Name = \"x-header\"");
    let present = fields.bool("Present").filter(|present| *present);
    let [exact, prefix, suffix, contains, regex] =
        ["Exact", "Prefix", "Suffix", "Contains", "Regex"].map(|key| fields.string(key));
    let invert = fields.bool("Invert").unwrap_or_default();
    let shown = name.as_deref().unwrap_or_default();
    let value = StringMatch::from_keys(shown, present, exact, prefix, suffix, contains, regex);
    let value = match value {
        Ok(value) => Some(value),
        Err(error) => {
            fields.wrong(fields.at(), "", error);
            None
        }
    };
    fields.finish();
    Some((name?, value?, invert))
}

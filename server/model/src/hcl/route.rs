//! The `route` block.

use super::matching;
use crate::fields::Fields;
use crate::tree::Item;
use crate::validate::destination_name;
use crate::{Destination, Key, Retries, RetryOn, Route, Rule, Weight, check_label};

/// More only makes an outage worse.
pub(crate) const MAX_ATTEMPTS: u32 = 100;

pub(super) fn route(mut fields: Fields<'_>, key: Option<Key>) -> Option<Route> {
    let mut rules = Vec::new();
    for (label, inner) in fields.labelled("rule") {
        if let Err(error) = check_label(&label.text) {
            inner.wrong(label.at, "", error);
        }
        rules.push(rule(inner, label.text.clone()));
    }
    fields.finish();
    key.map(|key| Route {
        namespace: key.namespace,
        name: key.name,
        rules,
    })
}

fn rule(mut fields: Fields<'_>, name: String) -> Rule {
    fields.mark(format!("rule {name}"));
    let mut matches = Vec::new();
    for mut inner in fields.bare_blocks("match") {
        matches.push(matching::request(&mut inner));
        inner.finish();
    }
    let mut to = Vec::new();
    for item in fields.blocks("to") {
        to.extend(destination(&fields, item, &name));
    }
    let rule = Rule {
        name,
        matches,
        to,
        timeout: fields.duration("timeout"),
        retries: fields.block("retries").and_then(retries),
    };
    fields.finish();
    rule
}

/// `to "v1" {}`, `to "v1" { service = "other" }` or `to { service = "other" }`.
fn destination(fields: &Fields<'_>, item: &Item, rule: &str) -> Option<Destination> {
    let (name, subset) = match item.labels.as_slice() {
        [] => ("to".to_owned(), None),
        [label] => (format!("to {}", label.text), Some(label)),
        [_, second, ..] => {
            let hint = Some("write `to \"subset\" { service = \"name\" }`".to_owned());
            fields.wrong_with(second.at, "to", "has more than one label", hint);
            return None;
        }
    };
    if let Some(label) = subset
        && let Err(error) = check_label(&label.text)
    {
        fields.wrong(label.at, &name, error);
    }
    let mut inner = fields.enter(item, &name)?;
    let service = inner.parsed("service", |text| {
        text.parse::<Key>()
            .and_then(|key| key.check().map(|()| key))
    });
    let weight = inner.number("weight").and_then(|(number, at)| {
        Weight::from_percent(number)
            .map_err(|error| inner.wrong(at, "", error))
            .ok()
    });
    let destination = Destination {
        service,
        subset: subset.map(|label| label.text.clone()),
        weight: weight.unwrap_or_default(),
    };
    inner.mark(format!("rule {rule}: {}", destination_name(&destination)));
    inner.finish();
    Some(destination)
}

fn retries(mut fields: Fields<'_>) -> Option<Retries> {
    let attempts = fields
        .whole("attempts", 1, u64::from(MAX_ATTEMPTS))
        .and_then(|attempts| u32::try_from(attempts).ok());
    let attempts = fields.required("attempts", attempts, "attempts = 2");
    let per_try_timeout = fields.duration("per_try_timeout");
    let choices = RetryOn::ALL.map(RetryOn::as_str);
    let mut on = Vec::new();
    for (text, at) in fields.texts("on") {
        match RetryOn::parse(text) {
            Some(word) => on.push(word),
            None => fields.bad_word(at, "on", text, &choices),
        }
    }
    let status_codes = fields
        .numbers("status_codes", 100, 599)
        .into_iter()
        .filter_map(|code| u16::try_from(code).ok())
        .collect();
    fields.finish();
    Some(Retries {
        attempts: attempts?,
        per_try_timeout,
        on,
        status_codes,
    })
}

//! service-router and service-splitter: the rules of a `route`.

use super::compile::SPLITTER;
use super::matching;
use super::other;
use super::service::timeout;
use crate::fields::Fields;
use crate::hcl::MAX_ATTEMPTS;
use crate::validate::destination_name;
use crate::{Destination, Key, Retries, RetryOn, Rule, Weight};

pub(super) fn router(fields: &mut Fields<'_>, own: &Key) -> Vec<Rule> {
    let routes = fields.objects("Routes");
    let rules = routes.into_iter().enumerate();
    rules
        .map(|(index, inner)| {
            inner.mark(format!("route {own}: rule router-{index}"));
            rule(inner, own, index)
        })
        .collect()
}

/// Consul's routes have no names; ours are their places.
fn rule(mut fields: Fields<'_>, own: &Key, index: usize) -> Rule {
    let mut rule = Rule {
        name: format!("router-{index}"),
        ..Rule::default()
    };
    if let Some(mut inner) = fields.object("Match") {
        if let Some(http) = inner.object("HTTP") {
            rule.matches.push(matching::request(http));
        }
        inner.finish();
    }
    if let Some(inner) = fields.object("Destination") {
        destination(inner, own, &mut rule);
    }
    fields.finish();
    rule
}

fn destination(mut fields: Fields<'_>, own: &Key, rule: &mut Rule) {
    fields.later(&[
        "IdleTimeout",
        "PrefixRewrite",
        "RequestHeaders",
        "ResponseHeaders",
    ]);
    let service = other(&mut fields, own);
    let subset = fields.string("ServiceSubset");
    rule.timeout = timeout(&mut fields, "RequestTimeout");
    rule.retries = retries(&mut fields);
    fields.finish();
    // A destination that is the whole of this service is none: what is last in
    // the route, a splitter perhaps, decides.
    if service.is_some() || subset.is_some() {
        rule.to.push(Destination {
            service,
            subset,
            weight: Weight::FULL,
        });
    }
}

/// Consul retries once when it is said on what and not how often.
fn retries(fields: &mut Fields<'_>) -> Option<Retries> {
    let attempts = fields
        .whole("NumRetries", 0, u64::from(MAX_ATTEMPTS))
        .and_then(|attempts| u32::try_from(attempts).ok())
        .filter(|attempts| *attempts > 0);
    let mut on = Vec::new();
    if fields.bool("RetryOnConnectFailure") == Some(true) {
        on.push(RetryOn::ConnectFailure);
    }
    let choices = RetryOn::ALL.map(RetryOn::as_str);
    for (text, at) in fields.texts("RetryOn") {
        match RetryOn::parse(text) {
            Some(word) if on.contains(&word) => {}
            Some(word) => on.push(word),
            None if text == "envoy-ratelimited" => {
                fields.wrong(at, "RetryOn", format!("`{text}` is not supported yet"));
            }
            None => fields.bad_word(at, "RetryOn", text, &choices),
        }
    }
    let status_codes: Vec<u16> = fields
        .numbers("RetryOnStatusCodes", 100, 599)
        .into_iter()
        .filter_map(|code| u16::try_from(code).ok())
        .collect();
    let wanted = attempts.is_some() || !on.is_empty() || !status_codes.is_empty();
    wanted.then(|| Retries {
        attempts: attempts.unwrap_or(1),
        per_try_timeout: None,
        on,
        status_codes,
    })
}

pub(super) fn splitter(fields: &mut Fields<'_>, own: &Key) -> Vec<Destination> {
    fields.mark_key("Splits", format!("route {own}: rule {SPLITTER}"));
    let mut splits = Vec::new();
    for mut inner in fields.objects("Splits") {
        inner.later(&["RequestHeaders", "ResponseHeaders"]);
        let weight = inner.number("Weight");
        let weight = inner
            .required("Weight", weight, "Weight = 50")
            .and_then(|(number, at)| {
                Weight::from_percent(number)
                    .map_err(|error| inner.wrong(at, "Weight", error))
                    .ok()
            });
        let split = Destination {
            service: other(&mut inner, own),
            subset: inner.string("ServiceSubset"),
            weight: weight.unwrap_or_default(),
        };
        let name = destination_name(&split);
        inner.mark(format!("route {own}: rule {SPLITTER}: {name}"));
        inner.finish();
        splits.push(split);
    }
    if splits.is_empty() {
        let hint = Some("add `Splits = [{ Weight = 100 }]`".to_owned());
        fields.wrong_with(fields.at(), "Splits", "has no split", hint);
    }
    splits
}

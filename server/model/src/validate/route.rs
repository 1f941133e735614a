//! A route and the services that it names.

use std::collections::HashSet;

use super::{MOST, Notes, View, check_paths, matches_all, protocol, speaks_tcp};
use crate::hcl::MAX_ATTEMPTS;
use crate::{Destination, Duration, Key, Retries, Route, Rule, Service, Weight, check_label};

pub(super) fn check(view: &dyn View, route: &Route, notes: &mut Notes) {
    if let Err(error) = route.key().check() {
        notes.error(error);
    }
    if route.rules.len() > MOST {
        let count = route.rules.len();
        notes.error(format!("{count} rules; at most {MOST} are taken"));
    }
    let mut names = HashSet::new();
    let mut catch_all: Option<&Rule> = None;
    for rule in &route.rules {
        let place = format!("rule {}", rule.name);
        if let Err(error) = check_label(&rule.name) {
            notes.error(format!("{place}: {error}"));
        }
        if !names.insert(&rule.name) {
            notes.error(format!(
                "{place}: two rules have this name; it stands in logs and metrics, so each needs its own"
            ));
        }
        if let Some(before) = catch_all {
            notes.warn(format!(
                "{place}: is never reached, since rule {} before it matches every request",
                before.name
            ));
        } else if rule.matches.is_empty() || rule.matches.iter().any(matches_all) {
            catch_all = Some(rule);
        }
        check_paths(&rule.matches, &place, notes);
        destinations(view, route, rule, &place, notes);
        if let Some(retries) = &rule.retries {
            check_retries(view, route, rule, retries, &place, notes);
        }
    }
    let key = notes.key.to_string();
    for message in missing(view, route, None) {
        let message = message.strip_prefix(&format!("{key}: "));
        notes.error(message.unwrap_or_default());
    }
}

/// What the route needs and the set has not, each with its place; only of one
/// service where one is given.
pub(super) fn missing(view: &dyn View, route: &Route, of: Option<&Key>) -> Vec<String> {
    let own = route.key();
    let mut all = Vec::new();
    if of.is_none_or(|of| *of == own) && !protocol(view, &own).is_http() {
        all.push(format!(
            "route {own}: {}",
            speaks_tcp(view, &own, "a route's rules")
        ));
    }
    for rule in &route.rules {
        for destination in &rule.to {
            let service = destination.service.as_ref().unwrap_or(&own);
            let Some(subset) = &destination.subset else {
                continue;
            };
            if of.is_some_and(|of| of != service) {
                continue;
            }
            let why = match view.service(service) {
                Some(found) if found.subsets.contains_key(subset) => continue,
                Some(_) => String::new(),
                None => format!(" (service {service} has no `service` block)"),
            };
            all.push(format!(
                "route {own}: rule {}: {}: subset {subset} of service {service} is not \
                 defined{why}; add subset \"{subset}\" {{ … }} to service \"{service}\"",
                rule.name,
                name(destination),
            ));
        }
    }
    all
}

/// As messages name a destination: `to v1`, `to v1 of other`, `to other`.
pub(crate) fn name(destination: &Destination) -> String {
    match (&destination.subset, &destination.service) {
        (Some(subset), Some(service)) => format!("to {subset} of {service}"),
        (Some(subset), None) => format!("to {subset}"),
        (None, Some(service)) => format!("to {service}"),
        (None, None) => "to".to_owned(),
    }
}

fn destinations(view: &dyn View, route: &Route, rule: &Rule, place: &str, notes: &mut Notes) {
    if rule.to.is_empty() {
        return;
    }
    if rule.to.len() > MOST {
        let count = rule.to.len();
        notes.error(format!(
            "{place}: {count} destinations; at most {MOST} are taken"
        ));
    }
    let sum: u32 = rule.to.iter().map(|to| to.weight.hundredths()).sum();
    if sum != Weight::FULL.hundredths() {
        let sum = match sum % 100 {
            0 => format!("{}", sum / 100),
            part => format!("{}.{part:02}", sum / 100),
        };
        notes.error(format!("{place}: weights sum to {sum}, not 100"));
    }
    let mut seen = HashSet::new();
    for destination in &rule.to {
        let service = destination.service.clone().unwrap_or(route.key());
        let name = name(destination);
        if let Err(error) = service.check() {
            notes.error(format!("{place}: {name}: {error}"));
        }
        if let Some(found) = view.service(&service)
            && service != route.key()
            && !found.protocol.is_http()
        {
            notes.warn(format!(
                "{place}: {name}: service {service} speaks tcp, and gets HTTP from this rule"
            ));
        }
        if !seen.insert((service, &destination.subset)) {
            notes.warn(format!(
                "{place}: {name}: stands twice; one with the sum of the weights is the same"
            ));
        }
    }
}

fn check_retries(
    view: &dyn View,
    route: &Route,
    rule: &Rule,
    retries: &Retries,
    place: &str,
    notes: &mut Notes,
) {
    if retries.attempts == 0 {
        notes.error(format!(
            "{place}: retries: attempts is 0; leave the block out for no retries"
        ));
    }
    if retries.attempts > MAX_ATTEMPTS {
        notes.error(format!(
            "{place}: retries: attempts is {}; at most {MAX_ATTEMPTS} are made",
            retries.attempts
        ));
    }
    let of_service = || view.service(&route.key()).map(Service::request_timeout);
    let timeout = rule.timeout.or_else(of_service).unwrap_or_default();
    if let Some(each) = retries.per_try_timeout {
        if each.is_zero() {
            notes.error(format!(
                "{place}: retries: per_try_timeout must be more than 0"
            ));
        }
        if !timeout.is_zero() && each > timeout {
            notes.warn(format!(
                "{place}: retries: per_try_timeout {each} is more than the timeout of the whole, {timeout}"
            ));
        }
    }
    if let Some(code) = retries
        .status_codes
        .iter()
        .find(|code| !(100..=599).contains(*code))
    {
        notes.error(format!(
            "{place}: retries: status code {code} is not between 100 and 599"
        ));
    }
    if rule.timeout.is_some_and(Duration::is_zero) && retries.per_try_timeout.is_none() {
        notes.warn(format!(
            "{place}: retries: without a timeout an instance that hangs is never given up; set per_try_timeout"
        ));
    }
}

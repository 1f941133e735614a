//! An intention, the service that it protects, and the mesh's default.

use super::{MOST, Notes, View, check_paths, matches_all, needs_requests, protocol, speaks_tcp};
use crate::{Action, Intention, IntentionRule, Permission};

pub(super) fn check(view: &dyn View, intention: &Intention, notes: &mut Notes) {
    for (side, key) in [
        ("source", &intention.source),
        ("destination", &intention.destination),
    ] {
        if let Err(error) = key.check_pattern() {
            notes.error(format!("{side}: {error}"));
        }
    }
    let IntentionRule::Permissions(permissions) = &intention.rule else {
        return;
    };
    if permissions.is_empty() {
        notes.error("has neither an action nor permissions; add action = \"allow\" or \"deny\"");
    }
    if permissions.len() > MOST {
        let count = permissions.len();
        notes.error(format!("{count} permissions; at most {MOST} are taken"));
    }
    if !intention.destination.is_exact() {
        notes.error(format!(
            "destination: permissions need one service, whose protocol is known, not `{}`; write \
             one intention for each",
            intention.destination
        ));
    } else if let Some(message) = missing(view, intention) {
        let prefix = format!("{}: ", notes.key);
        notes.error(message.strip_prefix(&prefix).unwrap_or(&message));
    }
    let mut catch_all = None;
    for (index, permission) in permissions.iter().enumerate() {
        let place = format!("permission {}", index + 1);
        check_paths([&permission.request], &place, notes);
        if let Some(before) = catch_all {
            notes.warn(format!(
                "{place}: is never reached, since permission {before} matches every request"
            ));
        } else if matches_all(&permission.request) {
            catch_all = Some(index + 1);
        }
    }
    changes_nothing(view, permissions, notes);
}

/// The destination must have requests that can be looked at.
pub(super) fn missing(view: &dyn View, intention: &Intention) -> Option<String> {
    let destination = &intention.destination;
    let misses = needs_requests(intention)
        && destination.is_exact()
        && !protocol(view, destination).is_http();
    misses.then(|| {
        format!(
            "intention {} => {destination}: {}",
            intention.source,
            speaks_tcp(view, destination, "permissions")
        )
    })
}

/// A list that only says what holds anyhow.
fn changes_nothing(view: &dyn View, permissions: &[Permission], notes: &mut Notes) {
    let default = view.default_intention();
    if permissions.is_empty() || permissions.iter().any(|one| one.action != default) {
        return;
    }
    let (said, remedy) = match default {
        Action::Allow => (
            "allow",
            "nothing is denied; end it with permission { action = \"deny\" }",
        ),
        Action::Deny => (
            "deny",
            "nothing is allowed; write action = \"deny\" if that is meant",
        ),
    };
    notes.warn(format!(
        "every permission is {said}, and so is the default of the mesh for what none matches: {remedy}"
    ));
}

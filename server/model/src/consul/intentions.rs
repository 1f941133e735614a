//! service-intentions: one `intention` for each source.

use std::collections::{BTreeMap, HashSet};

use super::{matching, partition};
use crate::fields::Fields;
use crate::{Action, Intention, IntentionRule, Key, Permission};

const ACTIONS: [&str; 2] = ["allow", "deny"];

pub(super) fn intentions(fields: &mut Fields<'_>, destination: &Key) -> Vec<Intention> {
    fields.later(&["JWT"]);
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for inner in fields.objects("Sources") {
        let at = inner.at();
        let Some(intention) = source(inner, destination) else {
            continue;
        };
        if !seen.insert(intention.source.clone()) {
            let message = format!("the source {} stands twice", intention.source);
            fields.wrong(at, "Sources", message);
        }
        all.push(intention);
    }
    all
}

fn source(mut fields: Fields<'_>, destination: &Key) -> Option<Intention> {
    fields.later(&["Peer", "SamenessGroup"]);
    fields.ignore(&[
        "LegacyCreateTime",
        "LegacyID",
        "LegacyMeta",
        "LegacyUpdateTime",
        "Precedence",
    ]);
    partition(&mut fields);
    if let Some((text, at)) = fields.text("Type")
        && text != "consul"
    {
        fields.wrong(at, "Type", format!("`{text}` is not known; leave it out"));
    }
    let name = fields.text("Name");
    let name = fields.required("Name", name, "Name = \"web\"");
    let namespace = fields.text("Namespace").map(|(text, _)| text);
    let key = name.map(|(name, at)| {
        let key = Key::new(namespace.unwrap_or(crate::DEFAULT_NAMESPACE), name);
        if let Err(error) = key.check_pattern() {
            fields.wrong(at, "Name", error);
        }
        key
    });
    let said = fields.where_is("Action");
    let at = said.unwrap_or(fields.at());
    let action = fields.word("Action", &ACTIONS, Action::parse);
    let permissions: Vec<_> = fields.objects("Permissions");
    if let Some(source) = &key {
        let path = format!("intention {source} => {destination}");
        for (index, permission) in permissions.iter().enumerate() {
            permission.mark(format!("{path}: permission {}", index + 1));
        }
        fields.mark(path);
    }
    let rule = match (said.is_some(), permissions.is_empty()) {
        (true, false) => {
            fields.wrong(at, "", "has both an Action and Permissions; keep one");
            None
        }
        (false, true) => {
            let hint = Some("add `Action = \"allow\"` or `Action = \"deny\"`".to_owned());
            fields.wrong_with(at, "", "has neither an Action nor Permissions", hint);
            None
        }
        (true, true) => action.map(IntentionRule::Action),
        (false, false) => Some(IntentionRule::Permissions(
            permissions.into_iter().filter_map(permission).collect(),
        )),
    };
    let description = fields.string("Description").unwrap_or_default();
    fields.finish();
    Some(Intention {
        source: key?,
        destination: destination.clone(),
        rule: rule?,
        description,
        meta: BTreeMap::new(),
    })
}

fn permission(mut fields: Fields<'_>) -> Option<Permission> {
    fields.later(&["JWT"]);
    let action = fields.word("Action", &ACTIONS, Action::parse);
    let action = fields.required("Action", action, "Action = \"allow\"");
    let request = fields.object("HTTP").map(matching::request);
    fields.finish();
    Some(Permission {
        action: action?,
        request: request.unwrap_or_default(),
    })
}

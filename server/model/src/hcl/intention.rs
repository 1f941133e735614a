//! The `intention` block.

use super::matching;
use crate::fields::Fields;
use crate::{Action, Entry, Intention, IntentionRule, Key, Permission};

const ACTIONS: [&str; 2] = ["allow", "deny"];

pub(super) fn intention(mut fields: Fields<'_>, sides: [Option<Key>; 2]) -> Option<Entry> {
    let has_action = fields.where_is("action");
    let action = fields.word("action", &ACTIONS, Action::parse);
    let description = fields.string("description").unwrap_or_default();
    let meta = fields.map("meta");
    let blocks = fields.bare_blocks("permission");
    for (index, block) in blocks.iter().enumerate() {
        block.mark(format!("permission {}", index + 1));
    }
    let rule = match (has_action, blocks.is_empty()) {
        (Some(at), false) => {
            let hint = Some("keep one of the two".to_owned());
            fields.wrong_with(at, "", "has both an action and permissions", hint);
            None
        }
        (None, true) => {
            let hint = Some("add `action = \"allow\"` or `action = \"deny\"`".to_owned());
            let message = "has neither an action nor permissions";
            fields.wrong_with(fields.at(), "", message, hint);
            None
        }
        (Some(_), true) => action.map(IntentionRule::Action),
        (None, false) => Some(IntentionRule::Permissions(
            blocks.into_iter().filter_map(permission).collect(),
        )),
    };
    fields.finish();
    let [source, destination] = sides;
    Some(Entry::Intention(Intention {
        source: source?,
        destination: destination?,
        rule: rule?,
        description,
        meta,
    }))
}

fn permission(mut fields: Fields<'_>) -> Option<Permission> {
    let action = fields.word("action", &ACTIONS, Action::parse);
    let action = fields.required("action", action, "action = \"allow\"");
    let request = matching::request(&mut fields);
    fields.finish();
    Some(Permission {
        action: action?,
        request,
    })
}

//! The evaluator.

use mesh_model::{Action, Intention, IntentionRule, Key};

use crate::form::{Reading, read};
use crate::{
    ConnectionDecision, Decider, Decision, Features, NotUnderstood, PolicyForm, RequestFacts,
    RequestMatcher,
};

/// The compiled intentions for one destination.
#[derive(Clone, Debug)]
pub struct Policy {
    default: Action,
    /// Highest precedence first.
    intentions: Vec<Compiled>,
    /// There is an intention of which not even the pair could be read.
    unreadable: bool,
}

#[derive(Clone, Debug)]
struct Compiled {
    source: Key,
    destination: Key,
    precedence: u8,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Action(Action),
    Permissions(Vec<(Action, RequestMatcher)>),
    NotUnderstood,
}

impl Policy {
    /// The policy of a form, and what of it is denied because it was not
    /// understood.
    pub fn compile(form: &PolicyForm, features: &Features) -> (Self, Vec<NotUnderstood>) {
        let mut denied = Vec::new();
        let mut intentions = Vec::with_capacity(form.intentions.len());
        for value in &form.intentions {
            let not_understood = match read(value, features) {
                Reading::Whole(intention) => match Compiled::of(&intention) {
                    Ok(compiled) => {
                        intentions.push(compiled);
                        continue;
                    }
                    Err(what) => NotUnderstood {
                        pair: Some((intention.source, intention.destination)),
                        what,
                    },
                },
                Reading::Denied(not_understood) => not_understood,
            };
            if let Some((source, destination)) = &not_understood.pair {
                intentions.push(Compiled::new(source, destination, Rule::NotUnderstood));
            }
            denied.push(not_understood);
        }
        let default = Action::parse(&form.default).unwrap_or(Action::Deny);
        let unreadable = denied.iter().any(|one| one.pair.is_none());
        (Self::sorted(default, intentions, unreadable), denied)
    }

    /// The policy of known intentions, those for one destination. The error is
    /// that of a regular expression, which a checked intention does not have.
    pub fn of<'a>(
        default: Action,
        intentions: impl IntoIterator<Item = &'a Intention>,
    ) -> Result<Self, String> {
        let intentions = intentions
            .into_iter()
            .map(Compiled::of)
            .collect::<Result<_, _>>()?;
        Ok(Self::sorted(default, intentions, false))
    }

    /// A policy that denies everything: before there is another.
    pub fn deny_all() -> Self {
        Self::sorted(Action::Deny, Vec::new(), false)
    }

    fn sorted(default: Action, mut intentions: Vec<Compiled>, unreadable: bool) -> Self {
        intentions.sort_by(|a, b| {
            b.precedence
                .cmp(&a.precedence)
                .then_with(|| a.rule.is_allow().cmp(&b.rule.is_allow()))
                .then_with(|| a.destination.cmp(&b.destination))
                .then_with(|| a.source.cmp(&b.source))
        });
        Self {
            default,
            intentions,
            unreadable,
        }
    }

    /// What holds for a connection of `source`.
    pub fn connection(&self, source: &Key) -> ConnectionDecision {
        if self.unreadable {
            return ConnectionDecision::Whole(self.refusal(None));
        }
        let Some(governing) = self.governing(source) else {
            return ConnectionDecision::Whole(self.by_default());
        };
        match &governing.rule {
            Rule::Action(action) => ConnectionDecision::Whole(governing.decision(*action)),
            Rule::NotUnderstood => ConnectionDecision::Whole(self.refusal(Some(governing))),
            Rule::Permissions(permissions) => ConnectionDecision::ByRequest {
                source: governing.source.clone(),
                destination: governing.destination.clone(),
                permissions: permissions.len(),
            },
        }
    }

    /// What holds for a byte stream of `source`: as its connection, but
    /// permissions, which cannot be seen to hold, deny.
    pub fn stream(&self, source: &Key) -> Decision {
        match self.connection(source) {
            ConnectionDecision::Whole(decision) => decision,
            ConnectionDecision::ByRequest {
                source,
                destination,
                ..
            } => Decision {
                action: Action::Deny,
                by: Decider::ByteStream {
                    source,
                    destination,
                },
            },
        }
    }

    /// What holds for a request of `source`.
    pub fn request(&self, source: &Key, request: &RequestFacts<'_>) -> Decision {
        if self.unreadable {
            return self.refusal(None);
        }
        let Some(governing) = self.governing(source) else {
            return self.by_default();
        };
        let permissions = match &governing.rule {
            Rule::Action(action) => return governing.decision(*action),
            Rule::NotUnderstood => return self.refusal(Some(governing)),
            Rule::Permissions(permissions) => permissions,
        };
        let found = permissions
            .iter()
            .enumerate()
            .find(|(_, (_, matcher))| matcher.matches(request));
        let (source, destination) = (governing.source.clone(), governing.destination.clone());
        match found {
            Some((at, (action, _))) => Decision {
                action: *action,
                by: Decider::Permission {
                    source,
                    destination,
                    number: at + 1,
                    action: *action,
                },
            },
            None => Decision {
                action: self.default,
                by: Decider::NoPermission {
                    source,
                    destination,
                    default: self.default,
                },
            },
        }
    }

    fn governing(&self, source: &Key) -> Option<&Compiled> {
        self.intentions.iter().find(|one| one.source.covers(source))
    }

    fn by_default(&self) -> Decision {
        Decision {
            action: self.default,
            by: Decider::Default {
                action: self.default,
            },
        }
    }

    fn refusal(&self, governing: Option<&Compiled>) -> Decision {
        Decision {
            action: Action::Deny,
            by: Decider::NotUnderstood {
                pair: governing.map(|one| (one.source.clone(), one.destination.clone())),
            },
        }
    }
}

impl Compiled {
    fn of(intention: &Intention) -> Result<Self, String> {
        let rule = match &intention.rule {
            IntentionRule::Action(action) => Rule::Action(*action),
            IntentionRule::Permissions(permissions) => Rule::Permissions(
                permissions
                    .iter()
                    .map(|one| Ok((one.action, RequestMatcher::compile(&one.request)?)))
                    .collect::<Result<_, String>>()?,
            ),
        };
        Ok(Self::new(&intention.source, &intention.destination, rule))
    }

    fn new(source: &Key, destination: &Key, rule: Rule) -> Self {
        let precedence = Intention {
            source: source.clone(),
            destination: destination.clone(),
            rule: IntentionRule::Action(Action::Deny),
            description: String::new(),
            meta: Default::default(),
        }
        .precedence();
        Self {
            source: source.clone(),
            destination: destination.clone(),
            precedence,
            rule,
        }
    }

    fn decision(&self, action: Action) -> Decision {
        Decision {
            action,
            by: Decider::Intention {
                source: self.source.clone(),
                destination: self.destination.clone(),
                action,
            },
        }
    }
}

impl Rule {
    fn is_allow(&self) -> bool {
        matches!(self, Self::Action(Action::Allow))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn form(default: &str, intentions: serde_json::Value) -> PolicyForm {
        PolicyForm {
            default: default.to_owned(),
            intentions: intentions.as_array().unwrap().clone(),
        }
    }

    fn key(text: &str) -> serde_json::Value {
        serde_json::to_value(text.parse::<Key>().unwrap()).unwrap()
    }

    fn get<'a>(
        path: &'a str,
        method: &'a str,
        headers: &'a Vec<(String, String)>,
    ) -> RequestFacts<'a> {
        RequestFacts {
            method,
            path,
            query: "",
            headers,
        }
    }

    // A slice is unsized, so the lookup is also given for its vector.
    impl crate::HeaderLookup for Vec<(String, String)> {
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
            self.as_slice().header(name)
        }
    }

    #[test]
    fn the_more_exact_governs() {
        let form = form(
            "allow",
            json!([
                {"source": key("*"), "destination": key("db"), "action": "deny"},
                {"source": key("web"), "destination": key("db"), "action": "allow"},
                {"source": key("web"), "destination": key("*"), "action": "deny"},
            ]),
        );
        let (policy, denied) = Policy::compile(&form, &Features::default());
        assert!(denied.is_empty());
        assert!(policy.stream(&Key::of("web")).is_allowed());
        let other = policy.stream(&Key::of("other"));
        assert!(!other.is_allowed());
        assert_eq!(other.by.to_string(), "intention * => db (deny)");
        // `*` of a namespace does not cover another namespace.
        let foreign = policy.stream(&Key::new("team", "other"));
        assert_eq!(
            foreign.by.to_string(),
            "no intention matches; the mesh's default is allow"
        );
    }

    #[test]
    fn permissions_end_at_the_first_match_or_the_default() {
        let form = form(
            "deny",
            json!([
                {"source": key("web"), "destination": key("db"), "permissions": [
                    {"action": "deny", "path_prefix": "/admin"},
                    {"action": "allow", "methods": ["GET"]},
                ]},
                {"source": key("*"), "destination": key("db"), "action": "allow"},
            ]),
        );
        let (policy, _) = Policy::compile(&form, &Features::default());
        let web = Key::of("web");
        let none = Vec::new();
        let decide = |path, method| policy.request(&web, &get(path, method, &none));
        assert!(decide("/x", "GET").is_allowed());
        assert_eq!(
            decide("/admin/x", "GET").by.to_string(),
            "intention web => db, permission 1 (deny)"
        );
        // Not the lower intention, which would allow.
        assert_eq!(
            decide("/x", "POST").by.to_string(),
            "intention web => db: no permission matches; the mesh's default is deny"
        );
        assert!(matches!(
            policy.connection(&web),
            ConnectionDecision::ByRequest { permissions: 2, .. }
        ));
        assert!(!policy.stream(&web).is_allowed());
    }

    #[test]
    fn what_is_not_understood_denies_what_it_covers() {
        let form = form(
            "allow",
            json!([
                {"source": key("web"), "destination": key("db"), "permissions": [
                    {"action": "allow", "phase_of_moon": "full"}]},
                {"source": key("job"), "destination": key("db"), "action": "allow"},
            ]),
        );
        let (policy, denied) = Policy::compile(&form, &Features::default());
        assert_eq!(denied.len(), 1);
        assert!(denied[0].what.contains("phase_of_moon"), "{}", denied[0]);
        assert!(!policy.stream(&Key::of("web")).is_allowed());
        assert!(policy.stream(&Key::of("job")).is_allowed());
        assert!(policy.stream(&Key::of("other")).is_allowed());
    }

    #[test]
    fn an_unreadable_pair_denies_everything() {
        let form = form("allow", json!([{"from": "somewhere", "action": "allow"}]));
        let (policy, denied) = Policy::compile(&form, &Features::default());
        assert_eq!(denied[0].pair, None);
        assert!(!policy.stream(&Key::of("web")).is_allowed());
        assert!(
            !policy
                .request(&Key::of("web"), &get("/", "GET", &Vec::new()))
                .is_allowed()
        );
    }

    #[test]
    fn an_older_part_denies_permissions() {
        let form = form(
            "allow",
            json!([{"source": key("web"), "destination": key("db"),
                "permissions": [{"action": "allow", "path_prefix": "/"}]}]),
        );
        let older = Features::default().without("permissions");
        let (policy, denied) = Policy::compile(&form, &older);
        assert_eq!(denied[0].what, "needs permissions");
        assert!(
            !policy
                .request(&Key::of("web"), &get("/", "GET", &Vec::new()))
                .is_allowed()
        );
    }

    #[test]
    fn an_unknown_default_denies() {
        let (policy, _) = Policy::compile(&form("perhaps", json!([])), &Features::default());
        assert!(!policy.stream(&Key::of("web")).is_allowed());
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("a"),
            Just("b"),
            Just("*"),
            Just("n/a"),
            Just("n/*"),
            Just("*/*")
        ]
        .prop_map(str::to_owned)
    }

    proptest! {
        /// Against the rule said plainly: of those that cover the pair, the one
        /// with the highest precedence, a deny before an allow.
        #[test]
        fn agrees_with_the_table(
            rows in proptest::collection::vec((name(), any::<bool>()), 0..12),
            source in prop_oneof![Just("a"), Just("b"), Just("n/a"), Just("n/c"), Just("m/x")],
            default in any::<bool>(),
        ) {
            let action = |allow| if allow { Action::Allow } else { Action::Deny };
            let source: Key = source.parse().unwrap();
            let intentions: Vec<Intention> = rows.iter().map(|(name, allow)| Intention {
                source: name.parse().unwrap(),
                destination: Key::of("db"),
                rule: IntentionRule::Action(action(*allow)),
                description: String::new(),
                meta: Default::default(),
            }).collect();
            let best = intentions.iter().filter(|one| one.source.covers(&source))
                .map(Intention::precedence).max();
            let expected = match best {
                None => default,
                Some(best) => intentions.iter()
                    .filter(|one| one.source.covers(&source) && one.precedence() == best)
                    .all(|one| one.rule == IntentionRule::Action(Action::Allow)),
            };
            let (policy, _) = Policy::compile(
                &PolicyForm::new(action(default), &intentions), &Features::default());
            prop_assert_eq!(policy.stream(&source).is_allowed(), expected);
        }

        #[test]
        fn never_panics_on_json(text in "[\\[\\]{}\":,a-z*/0-9 ]{0,120}") {
            if let Ok(value) = serde_json::from_str(&text) {
                let form = PolicyForm { default: "allow".into(), intentions: vec![value] };
                let (policy, denied) = Policy::compile(&form, &Features::default());
                prop_assert_eq!(denied.is_empty(), policy.stream(&Key::of("web")).is_allowed());
            }
        }
    }
}

#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;
use crate::hcl::parse_entries;

/// A set, from HCL.
struct Set {
    entries: BTreeMap<EntryKey, Entry>,
    default: Action,
}

impl Set {
    fn of(text: &str) -> Self {
        let entries = parse_entries("set.hcl", text).unwrap_or_else(|error| panic!("{error}"));
        Self {
            entries: entries
                .into_iter()
                .map(|entry| (entry.value.key(), entry.value))
                .collect(),
            default: Action::Deny,
        }
    }

    fn keys(&self) -> Vec<EntryKey> {
        self.entries.keys().cloned().collect()
    }
}

impl View for Set {
    fn mesh(&self) -> Option<&Mesh> {
        match self.entries.get(&EntryKey::Mesh)? {
            Entry::Mesh(mesh) => Some(mesh),
            _ => None,
        }
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        match self.entries.get(&EntryKey::Service(key.clone()))? {
            Entry::Service(service) => Some(service),
            _ => None,
        }
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        match self.entries.get(&EntryKey::Route(key.clone()))? {
            Entry::Route(route) => Some(route),
            _ => None,
        }
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        let key = EntryKey::Intention {
            source: source.clone(),
            destination: destination.clone(),
        };
        match self.entries.get(&key)? {
            Entry::Intention(intention) => Some(intention),
            _ => None,
        }
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(self.entries.values().filter_map(|entry| match entry {
            Entry::Route(route) => Some(route),
            _ => None,
        }))
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(self.entries.values().filter_map(|entry| match entry {
            Entry::Intention(intention) => Some(intention),
            _ => None,
        }))
    }

    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.gateways().find(|gateway| gateway.key() == *key)
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        Box::new(self.entries.values().filter_map(|entry| match entry {
            Entry::Gateway(gateway) => Some(gateway),
            _ => None,
        }))
    }

    fn default_intention(&self) -> Action {
        self.mesh()
            .and_then(|mesh| mesh.default_intention)
            .unwrap_or(self.default)
    }
}

#[test]
fn the_example_is_right() {
    let set = Set::of(crate::hcl::EXAMPLE);
    assert_eq!(check(&set, &set.keys()), Findings::default());
}

#[test]
fn what_is_said_of_sets() {
    let sets = [
        "route \"web\" {\n rule \"canary\" {\n to \"v1\" { weight = 90 }\n to \"v2\" { weight = 0.5 }\n }\n}\nservice \"web\" {\n protocol = \"http\"\n subset \"v1\" { tags = [\"a\"] }\n}",
        "route \"web\" {\n rule \"all\" {}\n rule \"late\" {}\n}",
        "service \"web\" {}\nroute \"web\" {\n rule \"r\" {\n match { path_prefix = \"/\" }\n to \"v1\" { service = \"db\" }\n timeout = \"1s\"\n retries {\n attempts = 1\n per_try_timeout = \"2s\"\n }\n }\n rule \"s\" {}\n}",
        "service \"web\" { protocol = \"grpc\" }\nservice \"db\" {}\nroute \"web\" {\n rule \"r\" {\n to { service = \"db\" }\n timeout = \"0s\"\n retries { attempts = 1 }\n }\n}",
        "service \"web\" { protocol = \"http\" }\nroute \"web\" {\n rule \"r\" {\n to { weight = 50 }\n to { weight = 50 }\n }\n}",
        "intention \"a\" \"tcp\" {\n permission { action = \"allow\" }\n}",
        "service \"web\" { protocol = \"http\" }\nmesh { default_intention = \"allow\" }\nintention \"a\" \"web\" {\n permission {\n action = \"allow\"\n path_prefix = \"/x\"\n }\n}",
        "service \"web\" { protocol = \"http\" }\nintention \"a\" \"web\" {\n permission { action = \"deny\" }\n permission {\n action = \"deny\"\n path_prefix = \"/x\"\n }\n}",
        "service \"web\" { protocol = \"http\" }\ngateway \"edge\" {\n ingress {\n tls { enabled = true }\n listener {\n port = 80\n service { name = \"web\" }\n }\n listener {\n port = 80\n protocol = \"http\"\n service {\n name = \"db\"\n hosts = [\"*\", \"A.example\"]\n }\n service {\n name = \"web\"\n hosts = [\"a.example\"]\n }\n service {\n name = \"*\"\n hosts = [\"b\"]\n }\n service { name = \"edge\" }\n }\n listener {\n port = 81\n service { name = \"*\" }\n }\n listener {\n port = 82\n service {\n name = \"x\"\n hosts = [\"x\"]\n }\n }\n listener { port = 83 }\n }\n}",
        "gateway \"out\" {\n terminating {\n service { name = \"*\" }\n service {\n name = \"a\"\n cert_file = \"/c\"\n ca_file = \"ca\"\n }\n service {\n name = \"a\"\n cert_file = \"/c\"\n key_file = \"/k\"\n }\n service {\n name = \"b\"\n sni = \"*.b\"\n }\n }\n}\ngateway \"none\" {\n ingress {}\n}\ngateway \"nor\" {\n terminating {}\n}",
        "intention \"a\" \"*\" {\n permission { action = \"allow\" }\n}",
        "service \"web\" {\n subset \"all\" {}\n connect_timeout = \"0s\"\n outlier_detection { base_ejection_time = \"0s\" }\n}",
    ];
    let said: Vec<String> = sets
        .iter()
        .map(|text| {
            let set = Set::of(text);
            let found = check(&set, &set.keys());
            assert!(found.dangling.is_empty());
            let mut lines = vec![(*text).to_owned(), "----".to_owned()];
            lines.extend(found.errors.iter().map(|one| format!("error: {one}")));
            lines.extend(found.warnings.iter().map(|one| format!("warning: {one}")));
            lines.join("\n")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n\n========\n"));
}

#[test]
fn what_did_not_come_through_hcl_is_checked_too() {
    let mut set = Set::of(
        "service \"web\" { protocol = \"http\" }\nroute \"web\" {\n rule \"r\" {}\n rule \"s\" {\n retries { attempts = 1 }\n }\n}\nintention \"a\" \"web\" {\n permission { action = \"allow\" }\n}",
    );
    for entry in set.entries.values_mut() {
        match entry {
            Entry::Gateway(_) => {}
            Entry::Service(service) => {
                service.default_subset = Some("gone".into());
                service.outlier_detection = Some(crate::OutlierDetection {
                    consecutive_5xx: 0,
                    base_ejection_time: None,
                    max_ejection_percent: Some(101),
                });
            }
            Entry::Route(route) => {
                let rule = &mut route.rules[0];
                rule.name = "s".into();
                rule.matches.push(RequestMatch {
                    path: Some(PathMatch::Exact("/a//b".into())),
                    ..RequestMatch::default()
                });
                let retries = route.rules[1].retries.as_mut().unwrap();
                retries.attempts = 0;
                retries.status_codes = vec![999];
            }
            Entry::Intention(intention) => {
                intention.rule = IntentionRule::Permissions(Vec::new());
                intention.source = Key::new("*", "web");
            }
            Entry::Mesh(_) => {}
        }
    }
    let keys: Vec<EntryKey> = set.entries.keys().cloned().collect();
    // The intention's key in the set is the old one, which no more finds it by
    // its own; that is enough to look at it.
    let found = check(&set, &keys);
    let said: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
}

const LINKED: &str = "service \"web\" {\n protocol = \"http\"\n subset \"v1\" { tags = [\"a\"] }\n}\nroute \"web\" {\n rule \"r\" {\n to \"v1\" {}\n }\n}\nroute \"front\" {\n rule \"r\" {\n to \"v1\" { service = \"web\" }\n }\n}\nservice \"front\" { protocol = \"http\" }\nintention \"a\" \"web\" {\n permission { action = \"allow\" }\n}\nintention \"a\" \"front\" { action = \"allow\" }\n";

#[test]
fn a_delete_that_leaves_something_behind_is_refused() {
    let set = Set::of(LINKED);
    let web = EntryKey::Service(Key::of("web"));
    let refused = check_delete(&set, &web).unwrap_err();
    let said: Vec<String> = refused.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(check_delete(&set, &EntryKey::Route(Key::of("web"))), Ok(()));
    assert_eq!(check_delete(&set, &EntryKey::Mesh), Ok(()));
}

#[test]
fn a_write_that_leaves_something_behind_is_refused() {
    let mut set = Set::of(LINKED);
    let key = EntryKey::Service(Key::of("web"));
    let smaller = Service {
        protocol: Protocol::Http,
        ..Service::named(&Key::of("web"))
    };
    set.entries.insert(key.clone(), Entry::Service(smaller));
    let found = check(&set, std::slice::from_ref(&key));
    assert!(!found.is_ok());
    assert!(found.errors.is_empty());
    assert_eq!(
        found.dangling[0].to_string(),
        "service web: is still referred to by route front, route web; change or delete these \
         first, or in the same write"
    );
    // Who is written in the same write has errors of its own.
    let with_route = [key, EntryKey::Route(Key::of("web"))];
    let found = check(&set, &with_route);
    assert_eq!(found.errors.len(), 1);
    assert_eq!(found.dangling[0].referrers.len(), 1);
}

#[test]
fn references_are_what_is_needed() {
    let set = Set::of(LINKED);
    let all: Vec<_> = set
        .entries
        .values()
        .map(|entry| (entry.key().to_string(), references(entry)))
        .collect();
    insta::assert_debug_snapshot!(all);
}

#[test]
fn a_gateway_needs_the_protocol_of_its_services() {
    let gateway = "gateway \"edge\" {\n ingress {\n listener {\n port = 80\n protocol = \"http\"\n service { name = \"web\" }\n }\n }\n}";
    let set = Set::of(&format!(
        "service \"web\" {{ protocol = \"http\" }}\n{gateway}"
    ));
    assert_eq!(check(&set, &set.keys()), Findings::default());
    let key = EntryKey::Service(Key::of("web"));
    let referrers = check_delete(&set, &key).unwrap_err();
    assert_eq!(referrers.len(), 1, "{referrers:?}");
    assert_eq!(referrers[0].by, EntryKey::Gateway(Key::of("edge")));
    let changed = Set::of(&format!("service \"web\" {{}}\n{gateway}"));
    let found = check(&changed, &[key]);
    assert!(
        found.dangling[0].to_string().contains("gateway edge"),
        "{found:?}"
    );
    let needed: Vec<_> = changed.entries.values().flat_map(references).collect();
    assert_eq!(needed.len(), 1, "{needed:?}");
}

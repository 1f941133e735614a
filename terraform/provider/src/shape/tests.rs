#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use mesh_model::{
    Action, CipherSuite, Destination, Entry, HeaderMatch, Intention, IntentionRule, Key,
    KeyExchange, LoadBalancer, Mesh, Outbound, OutlierDetection, PathMatch, Permission, Protocol,
    QueryMatch, RequestMatch, Retries, RetryOn, Route, Rule, Service, StringMatch, Subset,
    TlsPolicy, TlsVersion, Weight,
};
use mesh_tfprotocol::Kind;

use super::words::{ARE_NOT_ATTRIBUTES, WORDS};
use super::*;
use crate::names::Names;

/// One row of each noun in which every field says something. No `..` stands here: a field that the
/// model gets does not compile until it is here, and then must have an attribute.
fn full() -> Vec<Entry> {
    let second = Some(mesh_model::Duration::from_secs(7));
    let meta = || [("k".to_owned(), "v".to_owned())].into();
    let other = || Some(Key::new("team", "other"));
    let request = RequestMatch {
        path: Some(PathMatch::Prefix("/a/".into())),
        methods: vec!["GET".into()],
        headers: vec![HeaderMatch {
            name: "x-a".into(),
            value: StringMatch::Suffix("b".into()),
            invert: true,
        }],
        query: vec![QueryMatch {
            name: "q".into(),
            value: StringMatch::Present,
            invert: true,
        }],
    };
    vec![
        Entry::Service(Service {
            namespace: "team".into(),
            name: "web".into(),
            protocol: Protocol::Http,
            load_balancer: LoadBalancer::RoundRobin,
            connect_timeout: second,
            request_timeout: second,
            outlier_detection: Some(OutlierDetection {
                consecutive_5xx: 3,
                base_ejection_time: second,
                max_ejection_percent: Some(20),
            }),
            subsets: [(
                "v1".to_owned(),
                Subset {
                    meta: meta(),
                    tags: vec!["t".into()],
                    only_passing: true,
                },
            )]
            .into(),
            default_subset: Some("v1".into()),
            meta: meta(),
        }),
        Entry::Route(Route {
            namespace: "team".into(),
            name: "web".into(),
            rules: vec![Rule {
                name: "r".into(),
                matches: vec![request.clone()],
                to: vec![Destination {
                    service: other(),
                    subset: Some("v1".into()),
                    weight: Weight::from_percent(33.33).unwrap(),
                }],
                timeout: second,
                retries: Some(Retries {
                    attempts: 2,
                    per_try_timeout: second,
                    on: vec![RetryOn::ServerError],
                    status_codes: vec![503],
                }),
            }],
        }),
        Entry::Intention(Intention {
            source: Key::of("*"),
            destination: Key::new("team", "web"),
            rule: IntentionRule::Permissions(vec![Permission {
                action: Action::Deny,
                request,
            }]),
            description: "text".into(),
            meta: meta(),
        }),
        Entry::Intention(Intention {
            source: Key::of("a"),
            destination: Key::of("b"),
            rule: IntentionRule::Action(Action::Allow),
            description: String::new(),
            meta: Default::default(),
        }),
        Entry::Mesh(Mesh {
            default_intention: Some(Action::Deny),
            outbound: Outbound::MeshOnly,
            tls: TlsPolicy {
                min_version: Some(TlsVersion::V1_3),
                cipher_suites: vec![CipherSuite::Aes256Gcm],
                key_exchange: vec![KeyExchange::X25519MlKem768],
            },
        }),
    ]
}

#[test]
fn every_field_of_the_model_is_an_attribute_and_comes_back_as_it_was() {
    let names = Names::default();
    for entry in full() {
        let json = serde_json::json!(entry);
        let name = match &entry {
            Entry::Service(_) => "Service",
            Entry::Route(_) => "Route",
            Entry::Intention(_) => "Intention",
            Entry::Mesh(_) => "Mesh",
            Entry::Gateway(_) => "Gateway",
        };
        let shape = Shape::Object(object(name));
        let value = to_value(&json["value"], &shape, &names);
        let again = to_json(&value, &shape, &names);
        assert_eq!(
            again, json["value"],
            "a field of {name} has no attribute, or is lost"
        );
    }
}

/// Every field of every noun that is a resource, as `object.field`.
fn fields() -> BTreeSet<(String, String)> {
    fn walk(object: &Object, all: &mut BTreeSet<(String, String)>) {
        for (name, field) in &object.fields {
            all.insert((object.name.clone(), name.clone()));
            let mut shape = &field.shape;
            while let Shape::List(of) | Shape::Map(of) = shape {
                shape = of;
            }
            if let Shape::Object(inner) = shape {
                let mut inner = inner.clone();
                if inner.name.is_empty() {
                    inner.name = name.clone();
                }
                walk(&inner, all);
            }
        }
    }
    let mut all = BTreeSet::new();
    for name in ["Service", "Route", "Intention", "Mesh", "CaConfig"] {
        let object = object(name);
        assert!(
            !object.fields.is_empty(),
            "{name} is not in the API's description"
        );
        walk(&object, &mut all);
    }
    all
}

#[test]
fn every_field_has_a_text_and_every_text_a_field() {
    let all = fields();
    for (of, field) in &all {
        let is_key = ARE_NOT_ATTRIBUTES.contains(&(of, field));
        assert!(
            is_key || !words::text(of, field).is_empty(),
            "{of}.{field} has no text"
        );
    }
    for word in WORDS {
        let of = |known: &&(String, String)| {
            (word.of == "*" || known.0 == word.of) && known.1 == word.field
        };
        assert!(
            all.iter().any(|one| of(&one)),
            "{}.{} is no field",
            word.of,
            word.field
        );
    }
    for (of, field) in ARE_NOT_ATTRIBUTES {
        assert!(
            all.contains(&(of.to_owned(), field.to_owned())),
            "{of}.{field} is no field"
        );
    }
}

#[test]
fn defaults_are_those_of_the_model() {
    // What is left out of the least that can be written is what the model has for it.
    let names = Names::default();
    for (name, least) in [
        ("Service", serde_json::json!({"name": "web"})),
        ("Mesh", serde_json::json!({})),
    ] {
        let object = object(name);
        let schema = mesh_tfprotocol::Schema::new("", attributes(&object, &names));
        let full = schema.with_defaults(&to_value(&least, &Shape::Object(object.clone()), &names));
        let mut json = to_json(&full, &Shape::Object(object), &names);
        json["name"] = least["name"].clone();
        if least["name"].is_null() {
            json.as_object_mut().unwrap().remove("name");
        }
        let kind = name.to_lowercase();
        let read = |value: &Json| {
            serde_json::from_value::<Entry>(serde_json::json!({"kind": kind, "value": value}))
                .unwrap()
        };
        assert_eq!(read(&json), read(&least));
    }
}

#[test]
fn only_nested_attributes_have_attributes() {
    // A nested attribute within a map's element, two levels down, as the description has it.
    let all = attributes(&object("Service"), &Names::default());
    let subsets = all.iter().find(|one| one.name == "subsets").unwrap();
    let Kind::Nested(nesting, inner) = &subsets.kind else {
        panic!("subsets are nested");
    };
    assert_eq!(*nesting, mesh_tfprotocol::Nesting::Map);
    assert!(inner.iter().any(|one| one.name == "only_passing"));
}

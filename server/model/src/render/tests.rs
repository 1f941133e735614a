#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::hcl::{EXAMPLE, parse_entries};
use crate::{Action, Duration, HeaderMatch, Outbound, Permission, QueryMatch, RetryOn};
use crate::{
    ExposedService, Ingress, IngressTls, LinkedService, Listener, Terminating, TlsVersion,
};

fn read(text: &str) -> Vec<Entry> {
    let read = parse_entries("rendered.hcl", text);
    let read = read.unwrap_or_else(|error| panic!("{}\n{text}", error.excerpts()));
    read.into_iter().map(|entry| entry.value).collect()
}

#[test]
fn the_example_comes_back() {
    let entries = read(EXAMPLE);
    let text = render_all(&entries);
    insta::assert_snapshot!(text);
    assert_eq!(read(&text), entries);
}

#[test]
fn text_with_a_meaning_of_its_own_has_none() {
    for text in [
        "${x}",
        "$${x}",
        "$$${x}",
        "%{if}",
        "%%{",
        "$",
        "\\",
        "\"",
        "a\nb\r\t\u{1}\u{7f}",
        "\u{85}",
        "# x",
        "*/",
        "é😀",
    ] {
        let mut service = Service::named(&Key::of("a"));
        service.meta.insert("k".into(), text.into());
        service.meta.insert(text.into(), "v".into());
        let entry = Entry::Service(service);
        assert_eq!(read(&render(&entry)), [entry], "{text:?}");
    }
    for key in ["for", "null", "true", "if", "1", "a-b", "", "-", "é"] {
        let mut service = Service::named(&Key::of("a"));
        service.meta.insert(key.into(), "v".into());
        let entry = Entry::Service(service);
        assert_eq!(read(&render(&entry)), [entry], "{key:?}");
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?"
}

fn key() -> impl Strategy<Value = Key> {
    (prop_oneof![Just("default".to_owned()), name()], name())
        .prop_map(|(namespace, name)| Key { namespace, name })
}

fn pattern() -> impl Strategy<Value = Key> {
    prop_oneof![
        key(),
        Just(Key::of("*")),
        Just(Key::new("*", "*")),
        name().prop_map(|namespace| Key::new(namespace, "*")),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z${}%\"\\\\\n ]{0,8}", any::<String>()]
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..3)
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of(any::<u64>().prop_map(Duration::from_nanos))
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        Just(StringMatch::Present),
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        text().prop_map(StringMatch::Suffix),
        text().prop_map(StringMatch::Contains),
        text().prop_map(|text| StringMatch::Regex(regex::escape(&text))),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        "(/[a-z0-9~]{1,4}){1,3}/?".prop_map(PathMatch::Exact),
        "(/[a-z0-9~]{1,4}){0,3}/".prop_map(PathMatch::Prefix),
        "[/a-z.*]{1,6}"
            .prop_filter("a regex", |text| PathMatch::Regex(text.clone())
                .check()
                .is_ok())
            .prop_map(PathMatch::Regex),
    ]
}

fn request() -> impl Strategy<Value = RequestMatch> {
    let header = ("[a-z][a-z0-9-]{0,6}", string_match(), any::<bool>())
        .prop_map(|(name, value, invert)| HeaderMatch::new(&name, value, invert).unwrap());
    let query =
        (text(), string_match(), any::<bool>()).prop_map(|(name, value, invert)| QueryMatch {
            name,
            value,
            invert,
        });
    (
        prop::option::of(path_match()),
        prop::sample::subsequence(vec!["GET", "POST", "DELETE"], 0..3),
        prop::collection::vec(header, 0..3),
        prop::collection::vec(query, 0..2),
    )
        .prop_map(|(path, methods, headers, query)| RequestMatch {
            path,
            methods: methods.into_iter().map(str::to_owned).collect(),
            headers,
            query,
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let to = (
        prop::option::of(key()),
        prop::option::of(name()),
        0..=10_000u32,
    )
        .prop_map(|(service, subset, weight)| Destination {
            service,
            subset,
            weight: Weight::from_hundredths(weight).unwrap(),
        });
    let retries = (
        1..=100u32,
        duration(),
        prop::sample::subsequence(RetryOn::ALL.to_vec(), 0..4),
        prop::collection::vec(100..=599u16, 0..3),
    )
        .prop_map(|(attempts, per_try_timeout, on, status_codes)| Retries {
            attempts,
            per_try_timeout,
            on,
            status_codes,
        });
    (
        prop::collection::vec(request(), 0..3),
        prop::collection::vec(to, 0..3),
        duration(),
        prop::option::of(retries),
    )
        .prop_map(|(matches, to, timeout, retries)| Rule {
            name: String::new(),
            matches,
            to,
            timeout,
            retries,
        })
}

fn entry() -> impl Strategy<Value = Entry> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let mesh = (
        prop::option::of(action.clone()),
        prop::sample::select(Outbound::ALL.to_vec()),
        prop::option::of(Just(TlsVersion::V1_3)),
        prop::sample::subsequence(CipherSuite::ALL.to_vec(), 0..=3).prop_shuffle(),
        prop::sample::subsequence(KeyExchange::ALL.to_vec(), 0..=5).prop_shuffle(),
    )
        .prop_map(
            |(default_intention, outbound, min_version, cipher_suites, key_exchange)| {
                Entry::Mesh(Mesh {
                    default_intention,
                    outbound,
                    tls: TlsPolicy {
                        min_version,
                        cipher_suites,
                        key_exchange,
                    },
                })
            },
        );
    let subset = (map(), prop::collection::vec(text(), 0..3), any::<bool>()).prop_map(
        |(meta, tags, only_passing)| Subset {
            meta,
            tags,
            only_passing,
        },
    );
    let outlier = (1..=u32::MAX, duration(), prop::option::of(1..=100u32)).prop_map(
        |(consecutive_5xx, base_ejection_time, max_ejection_percent)| OutlierDetection {
            consecutive_5xx,
            base_ejection_time,
            max_ejection_percent,
        },
    );
    let service = (
        key(),
        prop::sample::select(vec![
            Protocol::Tcp,
            Protocol::Http,
            Protocol::Http2,
            Protocol::Grpc,
        ]),
        prop::sample::select(vec![
            LoadBalancer::RoundRobin,
            LoadBalancer::LeastRequest,
            LoadBalancer::Random,
        ]),
        duration(),
        duration(),
        prop::option::of(outlier),
        prop::collection::btree_map(name(), subset, 0..3),
        map(),
        any::<bool>(),
    )
        .prop_map(
            |(key, protocol, load_balancer, connect, request, outlier, subsets, meta, default)| {
                let default_subset = subsets.keys().next().filter(|_| default).cloned();
                Entry::Service(Service {
                    protocol,
                    load_balancer,
                    connect_timeout: connect,
                    request_timeout: request,
                    outlier_detection: outlier,
                    subsets,
                    default_subset,
                    meta,
                    ..Service::named(&key)
                })
            },
        );
    let route = (key(), prop::collection::vec(rule(), 0..3)).prop_map(|(key, rules)| {
        let named = rules.into_iter().enumerate().map(|(index, rule)| Rule {
            name: format!("r{index}"),
            ..rule
        });
        Entry::Route(Route {
            namespace: key.namespace,
            name: key.name,
            rules: named.collect(),
        })
    });
    let permission =
        (action.clone(), request()).prop_map(|(action, request)| Permission { action, request });
    let rule = prop_oneof![
        action.prop_map(IntentionRule::Action),
        prop::collection::vec(permission, 1..3).prop_map(IntentionRule::Permissions),
    ];
    let intention = (pattern(), pattern(), rule, text(), map()).prop_map(
        |(source, destination, rule, description, meta)| {
            Entry::Intention(Intention {
                source,
                destination,
                rule,
                description,
                meta,
            })
        },
    );
    let exposed = (key(), prop::collection::vec("[a-z]{1,8}", 0..3));
    let exposed = exposed.prop_map(|(service, hosts)| ExposedService { service, hosts });
    let listener = (
        1..=u16::MAX,
        prop::sample::select(vec![Protocol::Tcp, Protocol::Http, Protocol::Grpc]),
        prop::collection::vec(exposed, 0..3),
    );
    let listener = listener.prop_map(|(port, protocol, services)| Listener {
        port,
        protocol,
        services,
    });
    let ingress = (any::<bool>(), prop::collection::vec(listener, 0..3));
    let ingress = ingress.prop_map(|(enabled, listeners)| {
        let tls = IngressTls { enabled };
        Edge::Ingress(Ingress { tls, listeners })
    });
    let linked = (key(), text(), text(), text(), text());
    let linked = linked.prop_map(
        |(service, ca_file, cert_file, key_file, sni)| LinkedService {
            service,
            ca_file,
            cert_file,
            key_file,
            sni,
        },
    );
    let terminating = prop::collection::vec(linked, 0..3)
        .prop_map(|services| Edge::Terminating(Terminating { services }));
    let gateway = (key(), prop_oneof![ingress, terminating], map());
    let gateway = gateway.prop_map(|(key, edge, meta)| {
        Entry::Gateway(Gateway {
            namespace: key.namespace,
            name: key.name,
            edge,
            meta,
        })
    });
    prop_oneof![mesh, service, route, intention, gateway]
}

proptest! {
    #[test]
    fn what_is_written_is_read(entry in entry()) {
        let text = render(&entry);
        prop_assert_eq!(read(&text), vec![entry.clone()]);
        // JSON is the other form of the same.
        let json = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }
}

#![allow(clippy::unwrap_used)]
use super::*;
use crate::Entry;

const ROUTER: &str = r#"
Kind = "service-router"
Name = "web"
Routes = [
  {
    Match {
      HTTP {
        PathPrefix = "/admin/"
        Methods    = ["GET", "post"]
        Header = [
          { Name = "X-Debug", Exact = "1" },
          { Name = "x-b", Present = true, Invert = true },
        ]
        QueryParam = [{ Name = "q", Regex = "a+" }]
      }
    }
    Destination {
      Service               = "admin"
      RequestTimeout        = "10s"
      NumRetries            = 5
      RetryOnConnectFailure = true
      RetryOn               = ["5xx"]
      RetryOnStatusCodes    = [429]
    }
  },
  # which goes through the splitter
  { Match { HTTP { PathExact = "/x" } } },
  {
    Match { HTTP { PathRegex = "/y.*" } }
    Destination { ServiceSubset = "v2", Service = "web" }
  },
]
"#;

const SPLITTER: &str = r#"{
  "Kind": "service-splitter",
  "Name": "web",
  "Namespace": "default",
  "Splits": [
    {"Weight": 90, "ServiceSubset": "v1", "RequestHeaders": null},
    {"Weight": 9.5, "ServiceSubset": "v2"},
    {"Weight": 0.5, "Service": "web-next"}
  ],
  "CreateIndex": 12,
  "ModifyIndex": 13
}"#;

const RESOLVER: &str = r#"
kind            = "service-resolver"
name            = "web"
connect_timeout = "15s"
request_timeout = 5000000000
default_subset  = "v1"
subsets = {
  v1 = { filter = "Service.Meta.version == v1" }
  "v2" = {
    filter       = "Service.Meta[\"version\"] == \"v2\" and \"blue\" in Service.Tags"
    only_passing = true
  }
}
load_balancer = {
  policy = "round_robin"
  least_request_config = { choice_count = 2 }
}
failover = {}
"#;

const DEFAULTS: &str = r#"
Kind     = "service-defaults"
Name     = "web"
Protocol = "HTTP"
Mode     = "direct"
Meta     = { team = "x" }
MeshGateway = {}
RateLimits  = null
"#;

const INTENTIONS: &str = r#"
Kind = "service-intentions"
Name = "web"
Sources = [
  {
    Name   = "front"
    Action = "allow"
    Type = "consul"
    Description = "because"
    Precedence = 9
  },
  {
    Name = "*"
    Action = ""
    Permissions = [
      {
        Action = "deny"
        HTTP {
          PathPrefix = "/admin"
          Header = [{ Name = "x-a", Suffix = "z" }]
        }
      },
      { Action = "allow" }
    ]
  },
]
"#;

fn read(text: &str) -> ConfigEntry {
    parse_config_entry("e.hcl", text).unwrap_or_else(|error| panic!("{error}"))
}

fn all() -> Vec<ConfigEntry> {
    [ROUTER, SPLITTER, RESOLVER, DEFAULTS, INTENTIONS]
        .map(read)
        .to_vec()
}

#[test]
fn entries_of_a_service_become_ours() {
    insta::assert_json_snapshot!(compile(&all()));
}

#[test]
fn the_order_does_not_matter() {
    let mut entries = all();
    let forth = compile(&entries);
    entries.reverse();
    assert_eq!(compile(&entries), forth);
}

#[test]
fn without_its_neighbours_an_entry_means_less() {
    let entries = compile(&[read(ROUTER)]);
    let [Entry::Route(route)] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    assert_eq!(route.rules.len(), 3);
    assert!(route.rules[1].to.is_empty());
    assert_eq!(compile(&[]), []);
}

#[test]
fn an_entry_is_kept_as_it_was_written() {
    for text in [ROUTER, SPLITTER, RESOLVER, DEFAULTS, INTENTIONS] {
        let entry = read(text);
        assert_eq!(from_json(&entry.raw).unwrap(), entry);
    }
    let json: serde_json::Value = serde_json::from_str(SPLITTER).unwrap();
    assert_eq!(read(SPLITTER).raw, json);
    assert_eq!(read(RESOLVER).raw["load_balancer"]["policy"], "round_robin");
}

#[test]
fn json_is_read_as_json() {
    let text = r#"{"Kind":"service-defaults","Name":"web","Meta":{"a":"\u00e9\ud83d\ude00\n\/"}}"#;
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(read(text).raw, json);
}

#[test]
fn blocks_are_objects_and_repeated_ones_lists() {
    let text = "Kind = \"service-splitter\"\nName = \"web\"\nSplits {\n Weight = 50\n}\nSplits { Weight = 50 }\n";
    let Fragment::Splitter(splits) = read(text).fragment else {
        panic!();
    };
    assert_eq!(splits.len(), 2);
}

#[test]
fn ours_and_theirs_are_told_apart() {
    assert!(is_config_entry(ROUTER));
    assert!(is_config_entry(SPLITTER));
    assert!(is_config_entry("{ broken"));
    assert!(!is_config_entry(crate::hcl::EXAMPLE));
    assert!(!is_config_entry(""));
}

const WRONG: &[&str] = &[
    "",
    "Kind = \"service-defaults\"",
    "Name = \"web\"",
    "Kind = \"service-defaults\"\nName = \"\"",
    "Kind = \"service-intentions\"\nName = \"web\"\nSources = [{ Name = \"a\", Action = null }, { Name = null, Action = \"deny\" }, { Name = \"c\", Permissions = [{ Action = \"\" }] }]",
    "Kind = \"proxy-defaults\"\nName = \"global\"",
    "Kind = \"service-default\"\nName = \"web\"",
    "Kind = \"zebra\"\nName = \"web\"",
    "Kind = service-defaults",
    "Kind \"service-defaults\" {}",
    "Kind = \"a\nb\"",
    "Kind = \"a",
    "{\"Kind\": \"service-defaults\", \"Name\": \"web\"} x",
    "{\"Kind\": \"\\ud800\"}",
    "{\"Kind\": 1e999}",
    "[1]",
    "Name = [1 2]",
    "Name = <<EOT\nx\nEOT",
    "Kind = \"service-defaults\"\nKind = \"service-router\"",
    "Kind = \"service-defaults\"\nName = \"*\"\nPartition = \"x\"",
    "Kind = \"service-defaults\"\nName = \"web\"\nProtocol = \"htp\"\nMode = \"transparent\"\nMutualTLSMode = \"permissive\"\nUpstreamConfig { Defaults { ConnectTimeoutMs = 1 } }\nExternalSNI = \"x\"\nExternalSNI2 = \"x\"\nProtocl = \"http\"",
    "Kind = \"service-resolver\"\nName = \"web\"\nDefaultSubset = \"v9\"\nSubsets = {\n  v1 = { Filter = \"Service.Meta.v != 1\" }\n  \"v.2\" = { OnlyPassing = 1 }\n}\nFailover = { \"*\" = { Datacenters = [\"dc2\"] } }\nRedirect { Service = \"x\" }\nConnectTimeout = \"5\"\nLoadBalancer = {\n  Policy = \"maglev\"\n  HashPolicies = [{ Field = \"header\" }]\n  LeastRequestConfig { ChoiceCount = 5 }\n}",
    "Kind = \"service-router\"\nName = \"web\"\nRoutes = [{\n  Match { HTTP { PathPrefix = \"/a\", PathExact = \"/b\", CaseInsensitive = true, Header = [{ Name = \"x\" }, { Exact = \"y\", IgnoreCase = true }], Methods = [\"X\"] } }\n  Destination {\n    PrefixRewrite = \"/\"\n    IdleTimeout = \"1s\"\n    RequestHeaders { Add { x = \"y\" } }\n    NumRetries = 1000\n    RetryOn = [\"envoy-ratelimited\", \"5xxx\"]\n    Service = \"a b\"\n  }\n}]",
    "Kind = \"service-router\"\nName = \"web\"\nRoutes = \"x\"",
    "Kind = \"service-splitter\"\nName = \"web\"",
    "Kind = \"service-splitter\"\nName = \"web\"\nSplits = [{ Weight = 101 }, { Wait = 1 }, { Weight = \"50\" }]",
    "Kind = \"service-intentions\"\nName = \"web\"\nJWT { Providers = [{ Name = \"x\" }] }\nSources = [\n  { Name = \"a\" },\n  { Name = \"b\", Action = \"alow\" },\n  { Name = \"c\", Action = \"allow\", Permissions = [{ Action = \"deny\" }] },\n  { Name = \"d\", Action = \"deny\", Peer = \"x\", Type = \"k8s\" },\n  { Name = \"e\", Permissions = [{ HTTP { PathExact = \"b\" } }] },\n  { Action = \"allow\" },\n  { Name = \"g\", Action = \"allow\" },\n  { Name = \"g\", Action = \"deny\" },\n]",
];

#[test]
fn what_is_said_of_mistakes() {
    let said: Vec<String> = WRONG
        .iter()
        .map(|text| {
            let found = parse_config_entry("e.hcl", text).expect_err(text);
            assert!(!found.is_empty(), "{text}");
            format!("{text}\n----\n{found}\n")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n========\n"));
}

#[test]
fn deep_and_broken_values_end() {
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(parse_config_entry("a", &deep).is_err());
    let deep = "{\"a\":".repeat(100_000);
    assert!(parse_config_entry("a", &deep).is_err());
    let mut value = serde_json::json!(1);
    for _ in 0..200 {
        value = serde_json::json!([value]);
    }
    assert!(from_json(&serde_json::json!({ "Kind": value })).is_err());
    assert!(from_json(&serde_json::json!(1)).is_err());
}

/// What an operator wrote into an object is content, however empty it looks.
#[test]
fn what_is_written_into_a_later_field_is_refused() {
    let destination = |inner: &str| {
        format!(
            "Kind = \"service-router\"\nName = \"web\"\nRoutes = [{{ Destination = {{ {inner} }} }}]\n"
        )
    };
    for inner in [
        "RequestHeaders = { Add = { x-a = \"\" } }",
        "RequestHeaders { Add { x-a = \"\" } }",
        "ResponseHeaders = { Remove = [\"\"] }",
        "ResponseHeaders = { Set = {} }",
        "PrefixRewrite = \"/\"",
    ] {
        let error = parse_config_entry("e.hcl", &destination(inner)).unwrap_err();
        assert!(
            error.to_string().contains("is not supported yet"),
            "{inner}: {error}"
        );
    }
    for inner in [
        "RequestHeaders = {}",
        "RequestHeaders = null",
        "PrefixRewrite = \"\"",
        "IdleTimeout = 0",
    ] {
        let read = parse_config_entry("e.hcl", &destination(inner));
        assert!(read.is_ok(), "{inner}: {read:?}");
    }
}

#[test]
fn parts_have_their_places() {
    for (text, message, line) in [
        (ROUTER, "route web: rule router-1: is never reached", 27),
        (ROUTER, "service web: is odd", 2),
        (SPLITTER, "route web: rule splitter: weights sum to 1", 5),
        (SPLITTER, "route web: rule splitter: to v2: is odd", 7),
        (INTENTIONS, "intention front => web: is odd", 5),
        (INTENTIONS, "intention * => web: permission 2: is odd", 23),
    ] {
        let located = parse_located("e.hcl", text).unwrap();
        assert_eq!(located.place_of(message).line, line, "{message}");
    }
}

/// What Nomad's servers write for the gateway blocks of a job.
#[test]
fn the_gateways_of_nomads_jobs() {
    let ingress = r#"{"Kind":"ingress-gateway","Name":"edge","TLS":{"Enabled":false},
        "Listeners":[{"Port":8080,"Protocol":"tcp","Services":[{"Name":"uuid-api","Hosts":null,
        "TLS":{"SDS":{}},"RequestHeaders":{},"ResponseHeaders":{}}]},
        {"Port":8081,"Protocol":"http","TLS":null,"Services":[{"Name":"*"}]}],
        "CreateIndex":0,"ModifyIndex":0}"#;
    let terminating = r#"{"Kind":"terminating-gateway","Name":"out",
        "Services":[{"Name":"count-api"},{"Name":"tls","CAFile":"/ca","SNI":"a.example"}],
        "CreateIndex":0,"ModifyIndex":0}"#;
    let entries = [ingress, terminating].map(|text| parse_config_entry("body", text).unwrap());
    let compiled = compile(&entries);
    let read = |text: &str| crate::hcl::parse_entries("a.hcl", text).unwrap();
    let ours = read(
        "gateway \"edge\" {\n ingress {\n listener {\n port = 8080\n service { name = \"uuid-api\" }\n }\n listener {\n port = 8081\n protocol = \"http\"\n service { name = \"*\" }\n }\n }\n}\ngateway \"out\" {\n terminating {\n service { name = \"count-api\" }\n service {\n name = \"tls\"\n ca_file = \"/ca\"\n sni = \"a.example\"\n }\n }\n}",
    );
    let ours: Vec<Entry> = ours.into_iter().map(|one| one.value).collect();
    assert_eq!(compiled, ours);
}

#[test]
fn what_a_gateway_cannot_do_is_refused_by_name() {
    let text = r#"{"Kind":"ingress-gateway","Name":"edge","Defaults":{"MaxConnections":1},
        "TLS":{"Enabled":true,"TLSMinVersion":"TLSv1_3","SDS":{"ClusterName":"x"}},
        "Listeners":[{"Port":1,"TLS":{"Enabled":true},"MaxConnections":3,"Services":[{"Name":"web",
        "RequestHeaders":{"Add":{"a":"b"}},"ResponseHeaders":{"Remove":["c"]},
        "TLS":{"SDS":{"CertResource":"y"}}}]}]}"#;
    let wrong = parse_config_entry("body", text).unwrap_err();
    let said: Vec<String> = wrong.iter().map(|one| one.message.clone()).collect();
    for place in [
        "Defaults",
        "TLS.TLSMinVersion",
        "TLS.SDS.ClusterName",
        "Listeners[0].TLS.Enabled",
        "Listeners[0].MaxConnections",
        "Listeners[0].Services[0].RequestHeaders.Add",
        "Listeners[0].Services[0].ResponseHeaders.Remove",
        "Listeners[0].Services[0].TLS.SDS.CertResource",
    ] {
        let line = format!("ingress-gateway edge: {place} is not supported yet");
        assert!(said.contains(&line), "{place}: {said:#?}");
    }
    assert_eq!(said.len(), 8, "{said:#?}");
}

#![allow(clippy::unwrap_used)]
use super::*;
use crate::{IntentionRule, Protocol, Weight};

/// The file of the documentation; it must work as it stands.
pub(crate) const EXAMPLE: &str = r#"
mesh {
  default_intention = "deny"
}

service "user-service" {
  protocol      = "http"
  load_balancer = "round_robin" # least_request · random · ring_hash · maglev · peak_ewma

  subset "v1" { meta = { version = "v1" } }
  subset "v2" { meta = { version = "v2" } }

  outlier_detection {
    consecutive_5xx    = 5
    base_ejection_time = "30s"
  }
}

route "user-service" {
  rule "canary" {
    match { path_prefix = "/v1/" }

    to "v1" { weight = 90 }
    to "v2" { weight = 10 }

    timeout = "5s"
    retries {
      attempts        = 3
      per_try_timeout = "2s"
      on              = ["5xx", "connect-failure"]
    }
  }
}

intention "frontend" "user-service" { action = "allow" }
intention "frontend" "payment" { action = "deny" }

intention "*" "user-service" {
  permission {
    action      = "allow"
    methods     = ["GET"]
    path_prefix = "/public/"
  }
}
"#;

#[test]
fn the_example_works_as_it_stands() {
    let entries = parse_entries("example.hcl", EXAMPLE).unwrap();
    insta::assert_json_snapshot!(entries);
}

#[test]
fn every_key() {
    let text = r#"
mesh {
  default_intention = "allow"
  outbound = "mesh_only"
}
service "team/web" {
  namespace = "team"
  protocol = "grpc"
  load_balancer = "least_request"
  connect_timeout = "500ms"
  request_timeout = "0s"
  default_subset = "a-b_c"
  meta = { owner = "x", "with space" = "y" }
  subset "a-b_c" {
    meta { zone = "1" }
    tags = ["blue", "green"]
    only_passing = true
  }
  outlier_detection {
    consecutive_5xx = 1
    base_ejection_time = "1m30s"
    max_ejection_percent = 100
  }
}
route "web" {
  namespace = "team"
  rule "one" {
    match {
      path_exact = "/"
      methods = ["get", "POST"]
      header "X-A" { exact = "1" }
      header "x-b" {
        present = true
        invert = true
      }
      query "q" { regex = "a+" }
    }
    match { path_regex = "/v[0-9]+/.*" }
    to {
      service = "ops/other"
      weight = 33.33
    }
    to "v1" {
      service = "third"
      weight = 66.67
    }
    retries {
      attempts = 1
      status_codes = [503, 429]
    }
  }
  rule "rest" {}
}
intention "*/*" "*" {
  action = "deny"
  description = <<-EOT
    Because.
    It is so.
  EOT
  meta = { ticket = "1" }
}
"#;
    insta::assert_json_snapshot!(parse_entries("all.hcl", text).unwrap());
}

#[test]
fn places_are_kept() {
    let entries = parse_entries("a.hcl", "\nmesh {}\n  service \"web\" {}\n").unwrap();
    let places: Vec<_> = entries.iter().map(|e| (e.line, e.column)).collect();
    assert_eq!(places, [(2, 1), (3, 3)]);
}

#[test]
fn duplicates_name_both_places_across_files() {
    let one = "service \"web\" {}\nintention \"a\" \"b\" { action = \"allow\" }\n";
    let two = "\n  service \"default/web\" { protocol = \"http\" }\n";
    let found = parse_files(&[("one.hcl", one), ("two.hcl", two)]).unwrap_err();
    assert_eq!(
        found.to_string(),
        "two.hcl:2:3: service web: is defined twice; the first is at one.hcl:1:1\n  \
         hint: keep one of the two"
    );
}

#[test]
fn weights_and_defaults() {
    let text = "route \"a\" {\n rule \"r\" {\n  to \"x\" {}\n }\n}\nservice \"b\" {}\n";
    let entries = parse_entries("a", text).unwrap();
    let Entry::Route(route) = &entries[0].value else {
        panic!("{entries:?}");
    };
    assert_eq!(route.rules[0].to[0].weight, Weight::FULL);
    let Entry::Service(service) = &entries[1].value else {
        panic!("{entries:?}");
    };
    assert_eq!(service.protocol, Protocol::Tcp);
}

#[test]
fn byte_order_mark_and_crlf_are_taken() {
    let text = "\u{feff}mesh {\r\n  default_intention = \"allow\"\r\n}\r\n";
    assert_eq!(parse_entries("a", text).unwrap().len(), 1);
    assert!(parse_entries("a", "").unwrap().is_empty());
}

#[test]
fn permissions_keep_their_order() {
    let text = "intention \"a\" \"b\" {\n permission { action = \"deny\" }\n permission {\n action = \"allow\"\n methods = [\"GET\"]\n }\n}\n";
    let entries = parse_entries("a", text).unwrap();
    let Entry::Intention(intention) = &entries[0].value else {
        panic!("{entries:?}");
    };
    let IntentionRule::Permissions(permissions) = &intention.rule else {
        panic!("{intention:?}");
    };
    assert_eq!(permissions[0].action, Action::Deny);
    assert_eq!(permissions[1].action, Action::Allow);
}

/// Each of these is wrong; together they are the golden file of what is said.
const WRONG: &[&str] = &[
    // the syntax
    "service \"web\" {",
    "service web = 1\n=",
    "service \"web\" { protocol = \"http\" load_balancer = \"random\" }",
    "match \"web\" { to \"v1\" { weight = 1 } }",
    "service \"web\" {\n  protocol = \"http\"\n  protocol = \"tcp\"\n}",
    "service \"web\" {\n  meta = { a = \"1\", a = \"2\" }\n}",
    "service \"a\\d\" {}",
    "{}",
    "\"service\" {}",
    // the top of a file
    "default_intention = \"deny\"",
    "service = \"web\"",
    "Kind = \"service-router\"",
    "servise \"web\" {}",
    "zebra {}",
    "gateway \"edge\" {}",
    "instance \"web\" {}",
    "mesh \"x\" {}",
    "mesh {}\nmesh {}",
    "service {}",
    "service \"a\" \"b\" {}",
    "intention \"a\" { action = \"allow\" }",
    // names
    "service \"we b\" {}",
    "service \"*\" {}",
    "service \"a/b/c\" {}",
    "service \"a/b\" { namespace = \"c\" }",
    "route \"*/*\" {}",
    "intention \"*/web\" \"-\" { action = \"allow\" }",
    "service \"web\" {\n  subset \"v.1\" {}\n  subset \"v1\" {}\n  subset \"v1\" {}\n  subset {}\n}",
    // values
    "service \"web\" {\n  protocol = \"htp\"\n  load_balancer = \"maglev\"\n  connect_timeout = 5\n  request_timeout = \"5\"\n}",
    "service \"web\" {\n  protocol = http\n  load_balancer = lower(\"RANDOM\")\n  connect_timeout = \"${var.x}s\"\n  request_timeout = 1 + 1\n}",
    "service \"web\" {\n  meta = { a = 1, b = true, c = [\"x\"] }\n  outlier_detection = { consecutive_5xx = 1 }\n}",
    "service \"web\" {\n  outlier_detection {\n    consecutive_5xx = -1\n    max_ejection_percent = 101\n    base_ejection_time = null\n  }\n}",
    "service \"web\" {\n  outlier_detection {\n    consecutive_5xx = 1.5\n    max_ejection_percent = 99999999999999999999999999\n  }\n  outlier_detection {}\n}",
    "service \"web\" {\n  outlier_detection {\n    consecutive_5xx = \"5\"\n  }\n  default_subset = \"v3\"\n  protocol {}\n}",
    "service \"web\" {\n  subset \"v1\" {\n    tags = \"blue\"\n    only_passing = \"yes\"\n    filter = \"x\"\n  }\n  protcol = \"http\"\n  subsets = {}\n  circuit_breaker {}\n  failover {}\n}",
    "mesh {\n  default_intention = \"alow\"\n  namespaces = \"nomad\"\n}",
    "mesh {\n  outbound = \"mesh-only\"\n  outbond = \"any\"\n}",
    "mesh { outbound = \"permissive\" }",
    "mesh { outbound = true }",
    "mesh {\n  tls {\n    min_version = \"1.2\"\n    cipher_suites = []\n    key_exchange = [\"x25519mlkem768\", \"P-384\", \"P-384\", \"frodo\"]\n    max_version = \"1.3\"\n  }\n}",
    "mesh {\n  tls {\n    min_version = 1.3\n    cipher_suites = [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]\n    key_exchange = \"X25519\"\n  }\n  tls {}\n}",
    // routes
    "route \"web\" {\n  rule {}\n  rule \"a\" \"b\" {}\n  rule \"c d\" {}\n  rule \"e\" {}\n  rule \"e\" {}\n}",
    "route \"web\" {\n  rule \"r\" {\n    match {\n      path_prefx = \"/\"\n      path_exact = \"a\"\n    }\n    match \"x\" {}\n    match {\n      path_exact = \"/a\"\n      path_prefix = \"/b\"\n      methods = [\"FETCH\", 1]\n    }\n  }\n}",
    "route \"web\" {\n  rule \"r\" {\n    match { path_regex = \"(\" }\n    match { path_exact = \"/a/../b\" }\n    match { path_prefix = \"/%2f\" }\n  }\n}",
    "route \"web\" {\n  rule \"r\" {\n    match {\n      header \"a b\" { present = true }\n      header \"x\" {}\n      header \"y\" {\n        exact = \"1\"\n        prefix = \"2\"\n      }\n      header \"z\" { present = false }\n      header { exact = \"1\" }\n      query \"q\" { exat = \"1\" }\n    }\n  }\n}",
    "route \"web\" {\n  rule \"r\" {\n    to \"v1\" { weight = 101 }\n    to \"v2\" { weight = -1 }\n    to \"v3\" { weight = \"50\" }\n    to \"v4\" { wait = 1 }\n    to \"v5\" \"v6\" {}\n    to { service = \"*\" }\n    to \"v 7\" {}\n  }\n}",
    "route \"web\" {\n  rule \"r\" {\n    rewrite { path = \"/\" }\n    redirect {}\n    mirror {}\n    fault {}\n    timout = \"5s\"\n    retries { attempts = 0 }\n  }\n  rule \"s\" {\n    retries {\n      on = [\"5xxx\", \"reset\"]\n      status_codes = [99, 600, \"500\"]\n      retry_budget = 1\n    }\n  }\n}",
    // intentions
    "intention \"a\" \"b\" {}",
    "gateway \"edge\" {\n  mesh {}\n}",
    "gateway \"edge\" {\n  ingress {}\n  terminating {}\n  proxy {}\n}",
    "gateway \"edge\" {\n  ingress {\n    tls {\n      enabled = \"yes\"\n      sds {}\n    }\n    listener {}\n    listener {\n      port = 0\n      protocol = \"udp\"\n      service {}\n      service \"web\" {}\n      service {\n        name = \"we b\"\n        hosts = [\"a:80\", 1]\n        request_headers {}\n      }\n    }\n  }\n}",
    "gateway \"out\" {\n  terminating {\n    service {\n      name = \"a\"\n      ca_path = \"/x\"\n      sni = 1\n    }\n  }\n}",
    "intention \"a\" \"b\" {\n  action = \"allow\"\n  permission { action = \"deny\" }\n}",
    "intention \"a\" \"b\" {\n  permission { path_prefix = \"/\" }\n  permission {\n    action = \"alllow\"\n    path = \"/\"\n  }\n  permission {\n    action = \"allow\"\n    jwt { provider = \"x\" }\n  }\n}",
    "intention \"a\" \"b\" { action = \"denny\" }",
    "intention \"a\" \"b\" { action = null }",
    "intention \"a\" \"b\" {\n  permission { action = null }\n}",
    "route \"a\" {\n  rule \"r\" {\n    retries { attempts = null }\n  }\n}",
];

#[test]
fn what_is_said_of_mistakes() {
    let said: Vec<String> = WRONG
        .iter()
        .map(|text| {
            let found = parse_entries("f.hcl", text).expect_err(text);
            format!("{text}\n----\n{found}\n")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n========\n"));
}

#[test]
fn deep_and_long_files_end() {
    let deep = format!(
        "service \"a\" {{\n meta = {}1{}\n}}\n",
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    assert!(parse_entries("a", &deep).is_err());
    let blocks = "x {\n".repeat(5_000);
    assert!(parse_entries("a", &blocks).is_err());
    let big = "#".repeat(tree::MAX_FILE + 1);
    let found = parse_entries("a", &big).unwrap_err();
    assert!(found.to_string().contains("1048577 bytes"), "{found}");
    let keys: String = (0..50_000).map(|i| format!("k{i} = \"{{\"\n")).collect();
    let found = parse_entries(
        "a",
        &format!("service \"a\" {{\n meta = {{\n{keys}}}\n}}\n"),
    );
    let found = found.unwrap_err().to_string();
    assert!(found.contains("a:4099:"), "{found}");
    assert!(found.contains("more than 4096 keys"), "{found}");
    let many = "mesh {}\n".repeat(20_000);
    let found = parse_entries("a", &many).unwrap_err();
    assert!(found.to_string().contains("at most 10000"), "{found}");
}

#[test]
fn parts_have_their_places() {
    let text = "route \"web\" {\n  rule \"a\" {\n    to \"v1\" { service = \"team/other\" }\n    to {\n      \
                service = \"x\"\n    }\n  }\n}\nintention \"a\" \"web\" {\n  permission { action = \
                \"allow\" }\n  permission { action = \"deny\" }\n}\n";
    let entries = parse_entries("a.hcl", text).unwrap();
    for (entry, message, line, column) in [
        (0, "route web: is odd", 1, 1),
        (0, "route web: rule a: is odd", 2, 3),
        (0, "route web: rule a: to v1 of team/other: is odd", 3, 5),
        (0, "route web: rule a: to x: is odd", 4, 5),
        (1, "intention a => web: is odd", 9, 1),
        (1, "intention a => web: permission 2: is odd", 11, 3),
    ] {
        let place = entries[entry].place_of(message);
        assert_eq!((place.line, place.column), (line, column), "{message}");
    }
}

#![allow(clippy::unwrap_used)]
use super::*;

/// The file of the documentation; it must work as it stands.
pub(crate) const EXAMPLE: &str = r#"
instance "frontend" {
  port = 8080
  meta = { version = "v1" }

  check {
    type     = "http"
    path     = "/healthz"
    interval = "5s"
    timeout  = "1s"
  }

  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination_name = "user-service"
          local_bind_port  = 9001
        }
      }
    }
  }
}
"#;

#[test]
fn the_example_works_as_it_stands() {
    insta::assert_json_snapshot!(parse_instances("frontend.hcl", EXAMPLE).unwrap());
}

#[test]
fn every_key() {
    let text = r#"
instance "team/web" {
  id      = "web-1"
  address = "fd00::1"
  port    = 80
  tags    = ["blue"]
  meta {
    zone = "a"
  }
  weights {
    passing = 10
    warning = 0
  }
  tagged_address "lan" {
    address = "10.0.0.1"
    port    = 8080
  }
  check {
    type     = "http"
    name     = "alive"
    id       = "alive"
    protocol = "https"
    path     = "/x?y=1"
    port     = 81
    method   = "post"
    body     = "{}"
    header {
      Host = ["a", "b"]
      X-One = "1"
    }
    interval = "1s"
    timeout  = "500ms"
    tls_server_name = "web"
    tls_skip_verify = true
    initial_status = "passing"
    success_before_passing = 2
    failures_before_warning = 1
    failures_before_critical = 3
  }
  check {
    type = "http"
    url  = "http://127.0.0.1:9/"
  }
  check { type = "tcp" }
  check {
    type = "grpc"
    address = "10.0.0.9"
    grpc_service = "a.B"
    grpc_use_tls = true
  }
  check {
    type = "ttl"
    ttl  = "1m"
  }
  check {
    type = "alias"
    alias_service = "db"
  }
  connect {
    sidecar_service {
      id      = "web-1-proxy"
      address = "10.0.0.2"
      port    = 20000
      tags    = ["p"]
      meta    = { a = "b" }
      check { type = "tcp" }
      proxy {
        local_service_address = "127.0.0.2"
        local_service_port    = 8081
        config {
          bind_address = "0.0.0.0"
          bind_port    = 20001
          envoy_prometheus_bind_addr = "0.0.0.0:9102"
          nested = { a = [1, 2.5, true, null] }
        }
        upstreams {
          destination_name      = "db"
          destination_namespace = "ops"
          local_bind_address    = "127.0.0.3"
          local_bind_port       = 5432
          config { protocol = "tcp" }
        }
        upstreams {
          destination_name       = "cache"
          local_bind_socket_path = "/run/cache.sock"
          local_bind_socket_mode = "0660"
        }
        expose {
          path {
            path            = "/healthz"
            protocol        = "http2"
            local_path_port = 8080
            listener_port   = 21500
          }
        }
      }
    }
  }
}
"#;
    insta::assert_json_snapshot!(parse_instances("all.hcl", text).unwrap());
}

#[test]
fn a_sidecar_gets_its_port_later() {
    let text = "instance \"a\" {\n connect {\n sidecar_service {}\n }\n}\n";
    let mut read = parse_instances("a", text).unwrap();
    let sidecar = read[0].value.sidecar.as_mut().unwrap();
    let ids: Vec<_> = sidecar.checks.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(
        ids,
        ["service:a-sidecar-proxy:1", "service:a-sidecar-proxy:2"]
    );
    assert_eq!(sidecar.port, 0);
    set_sidecar_port(sidecar, 21003);
    assert_eq!(sidecar.port, 21003);
    assert_eq!(
        sidecar.checks[1].kind,
        CheckKind::Tcp {
            address: "127.0.0.1:21003".into()
        }
    );
}

#[test]
fn without_the_tcp_check_the_alias_is_the_only_one() {
    let text = "instance \"a\" {\n connect {\n sidecar_service { disable_default_tcp_check = true }\n }\n}\n";
    let read = parse_instances("a", text).unwrap();
    let checks = &read[0].value.sidecar.as_ref().unwrap().checks;
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0].id, "service:a-sidecar-proxy");
}

const WRONG: &[&str] = &[
    "service \"web\" {}",
    "instance {}",
    "instance = 1",
    "instance \"a\" { port = \"http\" }",
    "instance \"a\" { port = 65536 }",
    "instance \"a b\" {}",
    "instance \"a\" {}\ninstance \"a\" {}",
    "instance \"a\" {\n  id = \"a/b\"\n  address = \"10.0.0.1:80\"\n  enable_tag_override = true\n  weights { passing = -1 }\n}",
    "instance \"a\" {\n  check {}\n  check { type = \"script\" }\n  check { type = \"htp\" }\n  check { type = \"tcp\" }\n  check { type = \"ttl\" }\n  check { type = \"alias\" }\n}",
    "instance \"a\" {\n  port = 1\n  check { type = \"http\" }\n  check {\n    type = \"http\"\n    path = \"x\"\n    method = \"FETCH\"\n    interval = \"0s\"\n    timeout = \"0\"\n    initial_status = \"ok\"\n  }\n  check {\n    type = \"tcp\"\n    path = \"/\"\n  }\n  check {\n    type = \"http\"\n    url = \"ftp://x\"\n  }\n}",
    "instance \"a\" {\n  connect {}\n}",
    "instance \"a\" {\n  connect {\n    native = true\n    sidecar_task {}\n    sidecar_service {\n      id = \"a\"\n      proxy {\n        transparent_proxy {}\n        config { bind_port = \"x\" }\n        upstreams {}\n        upstreams {\n          destination_name = \"b\"\n          local_bind_port = 1\n        }\n        upstreams {\n          destination_name = \"c\"\n          local_bind_port = 1\n          local_bind_socket_path = \"x\"\n          local_bind_socket_mode = \"rw\"\n          mesh_gateway {}\n          datacenter = \"dc2\"\n        }\n        upstreams {\n          destination_name = \"d\"\n          local_bind_port = 1\n          local_bind_socket_mode = \"0600\"\n        }\n        expose {\n          path { path = \"/a/../b\" }\n        }\n      }\n    }\n  }\n}",
];

#[test]
fn what_is_said_of_mistakes() {
    let said: Vec<String> = WRONG
        .iter()
        .map(|text| {
            let found = parse_instances("i.hcl", text).expect_err(text);
            format!("{text}\n----\n{found}\n")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n========\n"));
}

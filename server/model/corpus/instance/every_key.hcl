
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

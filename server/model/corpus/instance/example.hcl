
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

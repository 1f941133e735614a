# What the demo's mesh is told. `meshctl config write` and `meshctl apply` take
# files like this one.

service "frontend" {
  protocol = "http"
}

service "payment" {
  protocol = "http"
}

service "user-service" {
  protocol = "http"

  subset "v1" { meta = { version = "v1" } }
  subset "v2" { meta = { version = "v2" } }
}

route "user-service" {
  rule "canary" {
    match { path_prefix = "/v1/" }

    to "v1" { weight = 90 }
    to "v2" { weight = 10 }

    timeout = "5s"
    retries {
      attempts        = 2
      per_try_timeout = "2s"
      on              = ["5xx", "connect-failure"]
    }
  }
}

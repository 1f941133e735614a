
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

# Half of the users' requests go to the new version.

route "user-service" {
  rule "canary" {
    match { path_prefix = "/v1/" }

    to "v1" { weight = 50 }
    to "v2" { weight = 50 }

    timeout = "5s"
    retries {
      attempts        = 2
      per_try_timeout = "2s"
      on              = ["5xx", "connect-failure"]
    }
  }
}

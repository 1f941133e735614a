
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

# For canary.nomad.hcl: meshctl apply -f jobspecs/canary.hcl

service "counter" {
  protocol = "http"

  subset "v1" { meta = { version = "v1" } }
  subset "v2" { meta = { version = "v2" } }
}

route "counter" {
  rule "canary" {
    to "v1" { weight = 90 }
    to "v2" { weight = 10 }
  }
}

intention "counter-dashboard" "counter" { action = "allow" }

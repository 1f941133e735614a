
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

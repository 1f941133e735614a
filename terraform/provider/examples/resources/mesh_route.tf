resource "mesh_service" "shop" {
  name     = "shop"
  protocol = "http"

  subsets = {
    v1 = { meta = { version = "v1" } }
    v2 = { meta = { version = "v2" } }
  }
}

resource "mesh_route" "shop" {
  name = mesh_service.shop.name

  rules = [
    {
      name  = "canary"
      match = [{ path_prefix = "/v1/" }]
      to = [
        { subset = "v1", weight = 90 },
        { subset = "v2", weight = 10 },
      ]
      timeout = "5s"
      retries = {
        attempts        = 3
        per_try_timeout = "2s"
        on              = ["5xx", "connect-failure"]
      }
    },
  ]
}

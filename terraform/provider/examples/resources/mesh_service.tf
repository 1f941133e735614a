resource "mesh_service" "user" {
  name          = "user-service"
  protocol      = "http"
  load_balancer = "round_robin"

  subsets = {
    v1 = { meta = { version = "v1" } }
    v2 = { meta = { version = "v2" } }
  }

  outlier_detection = {
    consecutive_5xx    = 5
    base_ejection_time = "30s"
  }
}

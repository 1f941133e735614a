resource "mesh_service" "api" {
  name     = "api"
  protocol = "http"
}

resource "mesh_intention" "frontend" {
  source      = "frontend"
  destination = mesh_service.api.name
  action      = "allow"
}

# Everybody else may read what is public.
resource "mesh_intention" "public" {
  source      = "*"
  destination = mesh_service.api.name

  permissions = [
    {
      action      = "allow"
      methods     = ["GET"]
      path_prefix = "/public/"
    },
  ]
}

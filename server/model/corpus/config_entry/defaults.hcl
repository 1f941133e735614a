
Kind     = "service-defaults"
Name     = "web"
Protocol = "HTTP"
Mode     = "direct"
Meta     = { team = "x" }
MeshGateway = { Mode = "" }

import {
  to = mesh_server.servers
  id = "mesh-server"
}

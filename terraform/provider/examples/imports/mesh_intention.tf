import {
  to = mesh_intention.frontend
  id = "frontend/api"
}

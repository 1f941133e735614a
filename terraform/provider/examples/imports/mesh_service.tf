import {
  to = mesh_service.user
  id = "user-service"
}

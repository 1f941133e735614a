import {
  to = mesh_defaults.this
  id = "mesh"
}

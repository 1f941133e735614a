import {
  to = mesh_ca.this
  id = "ca"
}

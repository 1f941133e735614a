# The settings of the CA that is in the servers; `ca_provider = "vault"` with a
# `vault` moves it into Vault, and begins a change of the mesh's root.
resource "mesh_ca" "this" {
  ca_provider = "built_in"
  leaf_ttl    = "12h"
}

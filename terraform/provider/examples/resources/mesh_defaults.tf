resource "mesh_defaults" "this" {
  default_intention = "deny"
}

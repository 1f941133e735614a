data "mesh_ca_roots" "this" {}

output "roots" {
  value = join("", data.mesh_ca_roots.this.roots[*].pem)
}

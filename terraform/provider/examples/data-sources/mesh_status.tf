data "mesh_status" "this" {}

output "trust_domain" {
  value = data.mesh_status.this.cluster.trust_domain
}

data "mesh_status" "cluster" {}

output "identity" {
  value = provider::mesh::spiffe_id(
    data.mesh_status.cluster.cluster.trust_domain,
    data.mesh_status.cluster.cluster.datacenter,
    "frontend",
  )
}

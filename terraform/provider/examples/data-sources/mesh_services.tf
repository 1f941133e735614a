data "mesh_services" "all" {}

output "services" {
  value = data.mesh_services.all.services[*].name
}

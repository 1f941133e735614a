resource "mesh_service" "seen" {
  name = "seen"
}

data "mesh_service" "seen" {
  name = mesh_service.seen.name
}

output "healthy" {
  value = [
    for one in data.mesh_service.seen.instances : "${one.address}:${one.port}"
    if one.status == "passing"
  ]
}

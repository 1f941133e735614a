locals {
  # Usually file("mesh.hcl").
  mesh = provider::mesh::config(<<-HCL
    service "orders" {
      protocol = "http"
    }

    intention "frontend" "orders" { action = "allow" }
  HCL
  )
}

resource "mesh_service" "of_file" {
  for_each  = local.mesh.services
  name      = each.value.name
  namespace = each.value.namespace
  protocol  = each.value.protocol
  subsets   = each.value.subsets
}

resource "mesh_intention" "of_file" {
  for_each    = local.mesh.intentions
  source      = each.value.source
  destination = each.value.destination
  action      = each.value.action
  permissions = each.value.permissions
  depends_on  = [mesh_service.of_file]
}

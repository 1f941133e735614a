terraform {
  required_providers {
    mesh = {
      source = "meshctl/mesh"
    }
  }
}

# What is not written here comes from MESH_HTTP_ADDR, MESH_CACERT,
# MESH_CLIENT_CERT, MESH_CLIENT_KEY and MESH_NAMESPACE, or else from
# meshctl's own variables (MESHCTL_HTTP_ADDR and so on):
#
#   address     = "https://mesh.internal:8700"
#   ca_file     = "cluster-ca.pem"
#   client_cert = "cli-terraform.pem"
#   client_key  = "cli-terraform.key"
provider "mesh" {
  owner = "terraform"
}

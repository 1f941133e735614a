terraform {
  required_providers {
    mesh = {
      source = "meshctl/mesh"
    }
  }
}

# What is not written here comes from MESHCTL_HTTP_ADDR, MESHCTL_CACERT,
# MESHCTL_CLIENT_CERT and MESHCTL_CLIENT_KEY, as for meshctl:
#
#   address     = "https://mesh.internal:8700"
#   ca_file     = "cluster-ca.pem"
#   client_cert = "cli-terraform.pem"
#   client_key  = "cli-terraform.key"
provider "mesh" {
  owner = "terraform"
}

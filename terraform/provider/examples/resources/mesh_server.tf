# Three servers on Nomad. The keys are only written: they are in no plan and no state.
resource "mesh_server" "servers" {
  server_count = 3
  volume       = "mesh-server"

  tls = {
    ca_pem = file("trust/cluster-ca.pem")
    ca_key = file("trust/cluster-ca.key")
  }
  sealing_key     = file("trust/sealing.key")
  secrets_version = "1"

  config = <<-EOT
    datacenter = "dc1"
  EOT
}

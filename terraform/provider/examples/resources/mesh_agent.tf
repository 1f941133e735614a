# An agent on every client of Nomad's, each with a certificate of its own.
resource "mesh_agent" "agents" {
  servers = "mesh-server"

  tls = {
    ca_pem = file("trust/cluster-ca.pem")
    ca_key = file("trust/cluster-ca.key")
  }
}

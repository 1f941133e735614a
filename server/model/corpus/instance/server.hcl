
datacenter       = "dc1"
data_dir         = "/var/lib/meshctl"
bootstrap_expect = 3
retry_join       = ["10.0.0.1", "10.0.0.2:9000", "server-3"]
sealing_key_file = "/etc/meshctl/sealing.key"

tls {
  ca_file   = "/etc/meshctl/cluster-ca.pem"
  cert_file = "/etc/meshctl/server.pem"
  key_file  = "/etc/meshctl/server.key"
}

ca {
  provider = "built_in"
  leaf_ttl = "12h"
}

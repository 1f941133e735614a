
node_name = "host-1.example.com"
servers = ["10.0.0.1:8701", "[fd00::1]:8701", "fd00::2"]
http_addr = "0.0.0.0"
meta { rack = "r1" }
sidecar_max_port = 21010
log_format = "json"
limits { proxies = 5 }

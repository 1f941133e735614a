# A mesh on a Nomad cluster: three servers with a leader, an agent on every client, and a
# service with its route and its intentions. README.md says what it needs.

terraform {
  required_version = ">= 1.11"

  required_providers {
    mesh = {
      source = "meshctl/mesh"
    }
  }
}

provider "mesh" {
  # Any server, or what stands before them: it must be known before they are made.
  address     = var.mesh_address
  ca_file     = "${var.trust}/cluster-ca.pem"
  client_cert = "${var.trust}/cli-me.pem"
  client_key  = "${var.trust}/cli-me.key"

  nomad = {
    address = var.nomad_address
  }
}

locals {
  # With `vault` the mesh's CA is there; without, it is built in.
  ca = var.vault == null ? "" : <<-EOT
    ca {
      provider = "vault"

      vault {
        address               = "${var.vault.address}"
        root_pki_path         = "${var.vault.root_pki_path}"
        intermediate_pki_path = "${var.vault.intermediate_pki_path}"

        auth "token" {
          token_file = "{secrets}/token-vault"
        }
      }
    }
  EOT
}

resource "mesh_server" "servers" {
  server_count = var.server_count
  binary       = var.binary
  version      = var.meshctl_version
  user         = var.server_user
  volume       = var.volume
  data_dir     = var.server_data_dir

  distinct_hosts = var.distinct_hosts
  http_port      = var.http_port
  grpc_port      = var.grpc_port
  memory         = var.server_memory

  # What is only written: in no plan, state or log. Another secrets_version has it taken anew.
  tls = {
    ca_pem = file("${var.trust}/cluster-ca.pem")
    ca_key = file("${var.trust}/cluster-ca.key")
  }
  sealing_key     = file("${var.trust}/sealing.key")
  tokens          = var.vault == null ? null : { vault = var.vault_token }
  secrets_version = var.secrets_version

  config        = local.ca
  force_destroy = var.force_destroy
}

resource "mesh_agent" "agents" {
  servers  = mesh_server.servers.name
  binary   = var.binary
  version  = var.meshctl_version
  user     = var.agent_user
  data_dir = var.agent_data_dir
  shim_dir = var.shim_dir
  cni_dir  = var.cni_dir

  tls = {
    ca_pem = file("${var.trust}/cluster-ca.pem")
    ca_key = file("${var.trust}/cluster-ca.key")
  }
  secrets_version = var.secrets_version
}

resource "mesh_service" "count_api" {
  name     = "count-api"
  protocol = "http"

  depends_on = [mesh_server.servers]
}

resource "mesh_route" "count_api" {
  name = mesh_service.count_api.name

  rules = [{
    name    = "everything"
    match   = [{ path_prefix = "/" }]
    timeout = var.timeout
    retries = {
      attempts = 2
      on       = ["connect-failure"]
    }
  }]
}

resource "mesh_intention" "dashboard" {
  source      = "count-dashboard"
  destination = mesh_service.count_api.name
  action      = var.dashboard_action
}

resource "mesh_intention" "others" {
  source      = "*"
  destination = mesh_service.count_api.name
  action      = "deny"
}

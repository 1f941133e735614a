variable "nomad_address" {
  description = "Nomad's API; NOMAD_ADDR where it is not set. A token is in NOMAD_TOKEN."
  type        = string
  default     = null
}

variable "mesh_address" {
  description = "The HTTP API of a server of the mesh, or of what stands before them, such as https://10.0.0.1:8700. Several with commas."
  type        = string
}

variable "trust" {
  description = "The folder with cluster-ca.pem, cluster-ca.key, cli-me.pem, cli-me.key and sealing.key (README.md)."
  type        = string
  default     = "trust"
}

variable "secrets_version" {
  description = "Change it when a file in the folder `trust`, or the token, is another one."
  type        = string
  default     = "1"
}

variable "server_count" {
  description = "1, 3 or 5."
  type        = number
  default     = 3
}

variable "binary" {
  description = "meshctl on the machines."
  type        = string
  default     = "/usr/local/bin/meshctl"
}

variable "meshctl_version" {
  description = "Change it when the program at that path is another one: servers and agents restart, one by one."
  type        = string
  default     = ""
}

variable "server_user" {
  description = "The user of the machines that runs the servers."
  type        = string
  default     = "meshctl"
}

variable "agent_user" {
  description = "The same for the agents."
  type        = string
  default     = "meshctl-agent"
}

variable "volume" {
  description = "A host volume of Nomad's that says which machines may have a server; none: every one."
  type        = string
  default     = null
}

variable "server_data_dir" {
  description = "Where servers keep their data on the machines."
  type        = string
  default     = "/var/lib/meshctl"
}

variable "agent_data_dir" {
  description = "The same for the agents."
  type        = string
  default     = "/var/lib/meshctl-agent"
}

variable "shim_dir" {
  description = "The folder of the program `consul` on the machines: Nomad's PATH begins with it."
  type        = string
  default     = "/usr/lib/meshctl/nomad"
}

variable "cni_dir" {
  description = "The folder of the plugin consul-cni on the machines."
  type        = string
  default     = "/opt/cni/bin"
}

variable "distinct_hosts" {
  description = "Never two servers on one machine. Only a trial on one machine sets this to false, and both ports to 0."
  type        = bool
  default     = true
}

variable "http_port" {
  description = "The servers' HTTP API."
  type        = number
  default     = 8700
}

variable "grpc_port" {
  description = "Where servers and agents connect."
  type        = number
  default     = 8701
}

variable "server_memory" {
  description = "MB for each server."
  type        = number
  default     = 512
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may take the mesh's state with it."
  type        = bool
  default     = false
}

variable "timeout" {
  description = "How long a call of the count API may take."
  type        = string
  default     = "5s"
}

variable "dashboard_action" {
  description = "Whether the dashboard may call the count API."
  type        = string
  default     = "allow"
}

variable "vault" {
  description = "The mesh's CA in Vault: where, and at which mounts. Without it the CA is built in."
  type = object({
    address               = string
    root_pki_path         = string
    intermediate_pki_path = string
  })
  default = null
}

variable "vault_token" {
  description = "A token for it (docs/vault.md)."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

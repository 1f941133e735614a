# The servers of the mesh: three, each on a machine of its own.
#
# A machine takes one when it has the host volume `mesh-server` in its client's
# configuration, and on it the user, the certificate and the sealing key of
# docs/nomad.md. What a server keeps is in data_dir, on the machine, and outlives
# the allocation. The servers find each other through Nomad: each asks it for the
# instances of this job's service, whenever it looks for another.
#
# No secret is in this file, in an argument or in the environment: only the names
# of the files on the machine.

variable "bin" {
  description = "The folder of meshctl on the machines."
  type        = string
  default     = "/usr/local/bin"
}

variable "user" {
  description = "Who runs it; the owner of data_dir, of server.key and of sealing.key."
  type        = string
  default     = "meshctl"
}

variable "count" {
  description = "How many servers: 1, 3 or 5."
  type        = number
  default     = 3
}

variable "distinct_hosts" {
  description = "Never two on one machine. Only a trial on one machine sets this to false."
  type        = bool
  default     = true
}

variable "volume" {
  description = "The host volume of Nomad's that says which machines may have a server."
  type        = string
  default     = "mesh-server"
}

variable "data_dir" {
  description = "Where a server keeps its state: the path of that volume."
  type        = string
  default     = "/var/lib/meshctl"
}

variable "certificates" {
  description = "The folder with cluster-ca.pem, server.pem, server.key and sealing.key."
  type        = string
  default     = "/etc/meshctl"
}

variable "node_name" {
  description = "A server's name, for people."
  type        = string
  default     = "$${node.unique.name}"
}

variable "http_port" {
  description = "The port of the HTTP API; 0: any that is free."
  type        = number
  default     = 8700
}

variable "grpc_port" {
  description = "The port for agents and servers; 0: any that is free."
  type        = number
  default     = 8701
}

variable "config" {
  description = "More of a server's configuration: `datacenter`, `ca`, `default_intention` ..."
  type        = string
  default     = ""
}

job "mesh-server" {
  datacenters = ["*"]
  priority    = 90

  # One after the other, each when the one before is a member again.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "5m"
  }

  migrate {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "5m"
  }

  group "server" {
    count = var.count

    constraint {
      operator = "distinct_hosts"
      value    = "${var.distinct_hosts}"
    }

    # Where Nomad loses sight of a machine its server may be well: no other takes
    # its place, and it goes on when the machine is seen again.
    disconnect {
      lost_after = "24h"
      replace    = false
      reconcile  = "keep_original"
    }

    restart {
      attempts = 5
      interval = "1m"
      delay    = "2s"
      mode     = "delay"
    }

    # For the choice of the machine: raw_exec has the path itself.
    volume "state" {
      type   = "host"
      source = var.volume
    }

    network {
      port "http" {
        static = var.http_port
      }

      port "grpc" {
        static = var.grpc_port
      }
    }

    task "server" {
      driver       = "raw_exec"
      user         = var.user
      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      # Out of Nomad's list before it ends.
      shutdown_delay = "1s"

      # Of the task and not of the group: a group whose services Nomad cannot
      # register is ended, and a Nomad client that restarts while its servers are
      # away could not.
      service {
        provider = "nomad"
        name     = "mesh-server"
        port     = "grpc"

        # Nomad does not know the cluster's CA, and asks only whether it may be used.
        check {
          type            = "http"
          protocol        = "https"
          tls_skip_verify = true
          port            = "http"
          path            = "/v1/status/ready"
          interval        = "5s"
          timeout         = "3s"
        }
      }

      service {
        provider = "nomad"
        name     = "mesh-server-http"
        port     = "http"
      }

      config {
        command = "${var.bin}/meshctl"
        args = [
          "server",
          "-config", "${NOMAD_TASK_DIR}/nomad.hcl",
          "-config", "${NOMAD_TASK_DIR}/more.hcl",
          "-node-name", var.node_name,
          "-bootstrap-expect", "${var.count}",
          "-data-dir", var.data_dir,
          "-http-addr", "${NOMAD_ADDR_http}",
          "-grpc-addr", "${NOMAD_ADDR_grpc}",
          "-advertise-addr", "${NOMAD_ADDR_grpc}",
          "-sealing-key-file", "${var.certificates}/sealing.key",
          "-ca-file", "${var.certificates}/cluster-ca.pem",
          "-cert-file", "${var.certificates}/server.pem",
          "-key-file", "${var.certificates}/server.key",
        ]
      }

      # With what it asks Nomad, over the socket that Nomad gives each task.
      identity {
        file = true
      }

      # The others are asked for, and not written here: Nomad ends a task whose
      # template it cannot renew, and the mesh would go when Nomad's servers do.
      template {
        destination = "local/nomad.hcl"
        data        = <<EOT
nomad {
  address    = "unix://{{ env "NOMAD_SECRETS_DIR" }}/api.sock"
  token_file = "{{ env "NOMAD_SECRETS_DIR" }}/nomad_token"
  service    = "mesh-server"
}
EOT
      }

      # Read after it, and wins key by key.
      template {
        destination = "local/more.hcl"
        data        = "${var.config}\n"
      }

      resources {
        cpu    = 200
        memory = 512
      }
    }
  }
}

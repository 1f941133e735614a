# The agent of the mesh, on every Nomad client.
#
# A machine needs the user and the certificate of docs/nomad.md, and Nomad's own
# PATH must begin with shim_dir: that this job cannot change, and its task
# `doctor` says what is missing. State, socket and links stand on the machine, so
# that a new allocation goes on where the last one ended: sidecars run on
# meanwhile.
#
# No secret is in this file, in an argument or in the environment: only the names
# of the files on the machine.

variable "bin" {
  description = "The folder of meshctl on the machines."
  type        = string
  default     = "/usr/local/bin"
}

variable "user" {
  description = "Who runs it; the owner of agent.key."
  type        = string
  default     = "meshctl-agent"
}

variable "certificates" {
  description = "The folder with cluster-ca.pem, agent.pem and agent.key."
  type        = string
  default     = "/etc/meshctl"
}

variable "data_dir" {
  description = "Where the agent keeps what it knows."
  type        = string
  default     = "/var/lib/meshctl-agent"
}

variable "socket" {
  description = "The agent's own socket, in a folder of its own."
  type        = string
  default     = "/run/meshctl/agent.sock"
}

variable "shim_dir" {
  description = "The folder of the program `consul` that Nomad runs for a sidecar."
  type        = string
  default     = "/usr/lib/meshctl/nomad"
}

variable "cni_dir" {
  description = "The folder of the plugin `consul-cni`, one of the client's cni_path."
  type        = string
  default     = "/opt/cni/bin"
}

variable "nomad_addr" {
  description = "Where Nomad's agent on the machine is asked by `doctor`."
  type        = string
  default     = "http://127.0.0.1:4646"
}

variable "config" {
  description = "More of an agent's configuration: `attestation`, `dns`, `meta` ..."
  type        = string
  default     = ""
}

job "mesh-agent" {
  datacenters = ["*"]
  type        = "system"
  priority    = 95

  update {
    max_parallel     = 1
    min_healthy_time = "5s"
  }

  group "agent" {
    restart {
      attempts = 5
      interval = "1m"
      delay    = "2s"
      mode     = "delay"
    }

    # Taken, so that Nomad gives them to nobody else.
    network {
      port "consul_http" {
        static = 8500
      }

      port "consul_grpc" {
        static = 8502
      }

      port "dns" {
        static = 8600
      }
    }

    # As root, before each start: the folders, and the two names of meshctl.
    task "links" {
      driver = "raw_exec"
      user   = "root"

      lifecycle {
        hook = "prestart"
      }

      config {
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/links.sh"]
      }

      template {
        destination = "local/links.sh"
        data        = <<EOT
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
program='${var.bin}/meshctl'
user='${var.user}'
socket='${var.socket}'

# Replaces a link in one step, and nothing that is not one.
link() {
  if [ -e "$1" ] && [ ! -L "$1" ]; then
    echo "$1: another program is there, and stays; move it away for ours" >&2
    return
  fi
  install -d -m 0755 "$${1%/*}"
  ln -s "$program" "$1.new.$$"
  mv -fT "$1.new.$$" "$1"
}

[ -x "$program" ] || { echo "$program: is not there; copy it to each machine" >&2; exit 1; }
id "$user" >/dev/null || { echo "user $user: is not there; useradd --system $user" >&2; exit 1; }
runuser -u "$user" -- test -x "$NOMAD_TASK_DIR/.." || {
  echo "user $user cannot reach $NOMAD_TASK_DIR; chmod o+x the data_dir of Nomad" >&2
  exit 1
}
install -d -m 0700 -o "$user" '${var.data_dir}'
install -d -m 0755 -o "$user" "$${socket%/*}"
link '${var.shim_dir}/consul'
link '${var.cni_dir}/consul-cni'
EOT
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "agent" {
      driver       = "raw_exec"
      user         = var.user
      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      config {
        command = "${var.bin}/meshctl"
        args = [
          "agent",
          "-config", "${NOMAD_TASK_DIR}/nomad.hcl",
          "-config", "${NOMAD_TASK_DIR}/more.hcl",
          "-node-name", "${node.unique.name}",
          "-advertise-addr", "${attr.unique.network.ip-address}",
          "-data-dir", var.data_dir,
          "-socket", var.socket,
          "-ca-file", "${var.certificates}/cluster-ca.pem",
          "-cert-file", "${var.certificates}/agent.pem",
          "-key-file", "${var.certificates}/agent.key",
        ]
      }

      # With what it asks Nomad, over the socket that Nomad gives each task.
      identity {
        file = true
      }

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
        cpu    = 100
        memory = 128
      }
    }

    # Says in its log what the machine lacks for connect blocks. Nomad finds the
    # agent within 15 s of its start, so it looks for a minute.
    task "doctor" {
      driver = "raw_exec"
      user   = "root"

      lifecycle {
        hook = "poststart"
      }

      config {
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/doctor.sh"]
      }

      env {
        NOMAD_ADDR = var.nomad_addr
      }

      template {
        destination = "local/doctor.sh"
        data        = <<EOT
PATH=/usr/sbin:/usr/bin:/sbin:/bin
plugins='${var.cni_dir}:/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni'
for try in 1 2 3 4 5 6 7 8 9 10 11 12; do
  said=$('${var.bin}/meshctl' doctor -cni-path "$plugins" 2>&1) && break
  sleep 5
done
printf '%s\n' "$said"
EOT
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}

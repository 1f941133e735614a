# The count dashboard with transparent_proxy: it calls the API by its name, and
# no upstream is declared. The Nomad client needs the plugin `consul-cni`, a link
# to meshctl in a folder of its cni_path.
#
# A sidecar's own connections must pass the rules that send everybody else's to
# it. It is told by its user (the dashboard's is `nobody`, and no application of
# the group may be), or by the mark that root sets on them (the API's). Where
# Docker runs, leave sidecar_task and transparent_proxy's uid out.

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "transparent" {
  group "api" {
    network {
      mode = "bridge"
    }

    service {
      name = "count-api"
      port = "9001"

      check {
        type     = "http"
        path     = "/health"
        expose   = true
        interval = "5s"
        timeout  = "2s"
      }

      connect {
        sidecar_service {
          proxy {
            transparent_proxy {
              uid = "0"
            }
          }
        }

        sidecar_task {
          driver = "raw_exec"

          config {
            command = "${var.bin}/mesh-proxy"
            args    = ["-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json"]
          }
        }
      }
    }

    task "web" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["api"]
      }

      env {
        PORT = "9001"
      }
    }
  }

  group "dashboard" {
    network {
      mode = "bridge"

      port "http" {
        static = 9002
        to     = 9002
      }
    }

    service {
      name = "count-dashboard"
      port = "9002"

      connect {
        sidecar_service {
          proxy {
            transparent_proxy {
              uid = "65534"
            }
          }
        }

        sidecar_task {
          driver = "raw_exec"
          user   = "nobody"

          config {
            command = "${var.bin}/mesh-proxy"
            args    = ["-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json"]
          }
        }
      }
    }

    task "dashboard" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["dashboard"]
      }

      env {
        PORT                 = "9002"
        COUNTING_SERVICE_URL = "http://count-api.virtual.consul"
      }
    }
  }
}

# A terminating gateway, as Nomad's documentation has it: the API is no part of the
# mesh (it has no connect block), and the dashboard calls it through the gateway,
# whose intentions are the API's own.
#
#   meshctl intention create -allow count-dashboard-out count-api-out

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "terminating" {
  group "api" {
    # Out of the catalog before it ends.
    shutdown_delay = "2s"

    network {
      mode = "host"

      port "http" {
        static = 9004
      }
    }

    service {
      name = "count-api-out"
      port = "http"

      check {
        type     = "http"
        path     = "/health"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "web" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["api"]
      }

      env {
        PORT = "${NOMAD_PORT_http}"
      }
    }
  }

  group "gateway" {
    network {
      mode = "bridge"
    }

    service {
      name = "out"

      connect {
        gateway {
          proxy {}

          terminating {
            service {
              name = "count-api-out"
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
  }

  group "dashboard" {
    network {
      mode = "bridge"

      port "http" {
        static = 9005
        to     = 9002
      }
    }

    service {
      name = "count-dashboard-out"
      port = "9002"

      connect {
        sidecar_service {
          proxy {
            upstreams {
              destination_name = "count-api-out"
              local_bind_port  = 8080
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

    task "dashboard" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["dashboard"]
      }

      env {
        PORT                 = "9002"
        COUNTING_SERVICE_URL = "http://${NOMAD_UPSTREAM_ADDR_count_api_out}"
      }
    }
  }
}

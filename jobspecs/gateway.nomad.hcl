# An ingress gateway in front of the count API, as Nomad's documentation has it,
# with mesh-proxy as the gateway's program and a program of ours as the API.
# Nomad's servers write the gateway's entry themselves, when the job is
# registered. Where Docker runs, leave sidecar_task out and set the client's meta
# connect.gateway_image.
#
#   meshctl intention create -allow edge count-api
#   curl http://CLIENT:9003/api

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "gateway" {
  group "edge" {
    network {
      mode = "bridge"

      port "inbound" {
        static = 9003
        to     = 9003
      }
    }

    service {
      name = "edge"
      port = "9003"

      connect {
        gateway {
          proxy {}

          ingress {
            listener {
              port     = 9003
              protocol = "tcp"

              service {
                name = "count-api"
              }
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

  group "api" {
    network {
      mode = "bridge"
    }

    service {
      name = "count-api"
      port = "9001"

      connect {
        sidecar_service {}

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
}

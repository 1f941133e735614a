# A batch job that calls the count API of countdash.nomad.hcl and ends: the
# allocation is complete when its main task is, and its sidecar goes with it.

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "count-batch" {
  type = "batch"

  group "batch" {
    network {
      mode = "bridge"
    }

    service {
      name = "count-batch"

      connect {
        sidecar_service {
          proxy {
            upstreams {
              destination_name = "count-api"
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

    task "count" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["batch"]
      }

      env {
        COUNTING_SERVICE_URL = "http://${NOMAD_UPSTREAM_ADDR_count_api}"
      }
    }
  }
}

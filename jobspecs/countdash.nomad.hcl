# The count dashboard of `nomad job init -connect`, with a program of ours in
# place of the two images and mesh-proxy as the sidecar's program. The connect
# blocks are as Nomad writes them. Where Docker runs, leave sidecar_task out and
# set the client's meta connect.sidecar_image.

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "countdash" {
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

    task "dashboard" {
      driver = "raw_exec"

      config {
        command = "${var.bin}/mesh-demo"
        args    = ["dashboard"]
      }

      env {
        PORT                 = "9002"
        COUNTING_SERVICE_URL = "http://${NOMAD_UPSTREAM_ADDR_count_api}"
      }
    }
  }
}

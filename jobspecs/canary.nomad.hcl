# Two versions of one service, told apart by meta. canary.hcl beside this file
# makes subsets of them and sends one call in ten to the new one.

variable "bin" {
  description = "The folder of mesh-proxy and mesh-demo on the Nomad clients."
  type        = string
  default     = "/usr/local/bin"
}

job "canary" {
  group "v1" {
    network {
      mode = "bridge"
    }

    service {
      name = "counter"
      port = "9001"

      meta {
        version = "v1"
      }

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
        PORT    = "9001"
        VERSION = "v1"
      }
    }
  }

  group "v2" {
    network {
      mode = "bridge"
    }

    service {
      name = "counter"
      port = "9001"

      meta {
        version = "v2"
      }

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
        PORT    = "9001"
        VERSION = "v2"
      }
    }
  }

  group "dashboard" {
    network {
      mode = "bridge"

      port "http" {
        static = 9012
        to     = 9002
      }
    }

    service {
      name = "counter-dashboard"
      port = "9002"

      connect {
        sidecar_service {
          proxy {
            upstreams {
              destination_name = "counter"
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
        COUNTING_SERVICE_URL = "http://${NOMAD_UPSTREAM_ADDR_counter}"
      }
    }
  }
}

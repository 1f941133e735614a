"""Groups in the host's own network: what Nomad permits of connect blocks there."""

import json
import pathlib
import socket
import subprocess
import sys
import unittest

from jobtext import check, service, task
from jobtext import job as job_text
from mesh import BIN, http_get, until
from nomad import NODE, NomadMesh, binary, missing

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "lib" / "native.py"
NATIVE = '''
job "native" {
  group "pay" {
    network {
      mode = "host"
      port "mesh" {}
    }
    service {
      name = "pay"
      port = "mesh"
      task = "pay"
      connect {
        native = true
      }
    }
    task "pay" {
      driver = "raw_exec"
      config {
        command = "PYTHON"
        args    = ["PROGRAM", "serve", "pay", "0.0.0.0", "${NOMAD_PORT_mesh}"]
      }
      resources {
        memory = 60
      }
    }
  }
}
'''.replace("PYTHON", sys.executable).replace("PROGRAM", str(PROGRAM))
GATEWAY = '''
  group "NAME" {
    network {
      mode = "host"
      port "at" {
        static = PORT
      }
    }
    service {
      name = "NAME"
      port = "LABEL"
      connect {
        gateway {
          proxy {}
          ingress {
            listener {
              port     = PORT
              protocol = "tcp"
              service {
                name = "inner"
              }
            }
          }
        }
        sidecar_task {
          driver = "raw_exec"
          config {
            command = "BIN/mesh-proxy"
            args    = ["-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json"]
          }
        }
      }
    }
  }
'''


def ingress(name, port, label=None):
    """label: what the service says its port is; else the number."""
    text = GATEWAY.replace("NAME", name).replace("LABEL", label or str(port)).replace("BIN", str(BIN))
    return text.replace("PORT", str(port))


@unittest.skipIf(missing(), missing())
class Host(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("host", default="allow")
        try:
            identity = '  token = "any"\n  service_identity {\n    aud = ["consul.io"]\n    ttl = "1h"\n  }\n'
            mesh.begin(consul=identity, server_extra="agents_write_gateways = true",
                       agent_extra=f'nomad {{\n  address = "http://{NODE}:4646"\n}}\n')
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def run_job(self, name, text):
        self.mesh.run_job(self.mesh.write_job(name, text), deadline=150, variables={})
        self.addCleanup(self.mesh.stop_job, name)

    def test_a_sidecar_is_refused_by_nomad(self):
        text = job_text("sidecar", ("one", "", service("one", 9001) + task("one", "api", 9001)))
        path = self.mesh.write_job("sidecar", text.replace('mode = "bridge"', 'mode = "host"'))
        run = subprocess.run([binary(), "job", "run", str(path)], capture_output=True, text=True, timeout=60,
                             env={"NOMAD_ADDR": f"http://{NODE}:4646"})
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("network mode", run.stderr)

    def test_a_native_service(self):
        mesh = self.mesh
        self.run_job("native", NATIVE)
        allocation = mesh.allocation("native", "pay")
        until("the task has its certificate, and listens", lambda: "listening" in mesh.task_log(allocation, "pay"))
        at = next(mesh.ports)
        mesh.instance("web", upstreams=[("pay", at)])
        (mesh.run / "a10.sock").symlink_to("/run/meshctl/agent.sock")
        mesh.sidecar("web")

        def echoed():
            with socket.create_connection((mesh.address(10), at), timeout=20) as stream:
                stream.sendall(b"hello\n")
                stream.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: stream.recv(1000), b"")) == b"hello\n"

        until("the native task answers", echoed)

    def test_gateways(self):
        """One says its port as a number, where Nomad has none for its admin listener; one by a label."""
        inner = service("inner", 9001, more=check()) + task("inner", "api", 9001)
        self.run_job("ingress", job_text("ingress", ingress("number", 9033), ingress("label", 9034, "at"),
                                         ("inner", "", inner)))
        for port in (9033, 9034):
            until(f"the count is reached by the host's port {port}",
                  lambda at=port: "count" in json.loads(http_get(f"http://{NODE}:{at}/api")[2]))
        self.assertEqual(http_get("http://127.0.0.2:9034/ready")[0], 200)

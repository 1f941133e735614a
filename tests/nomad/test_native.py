"""Connect native: a job whose task speaks mTLS itself, with what the agent gives to its workload."""

import json
import pathlib
import socket
import sys
import unittest

from mesh import until
from nomad import NODE, NomadMesh, missing

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "lib" / "native.py"
JOB = '''
job "native" {
  group "pay" {
    network {
      mode = "bridge"
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
      env {
        # raw_exec has no /alloc of its own.
        CONSUL_HTTP_ADDR = "unix://${NOMAD_ALLOC_DIR}/tmp/consul_http.sock"
      }
      resources {
        memory = 60
      }
    }
  }
}
'''.replace("PYTHON", sys.executable).replace("PROGRAM", str(PROGRAM))


@unittest.skipIf(missing(), missing())
class Native(unittest.TestCase):
    def test_a_native_job_gets_its_certificate_and_is_called_by_a_sidecar(self):
        identity = '  token = "any"\n  service_identity {\n    aud = ["consul.io"]\n    ttl = "1h"\n  }\n'
        with NomadMesh("native") as mesh:
            mesh.begin(consul=identity, agent_extra=(
                f'attestation = "workload"\nnomad {{\n  address = "http://{NODE}:4646"\n}}\n'))
            mesh.command("intention", "create", "-allow", "web", "pay")
            mesh.run_job(mesh.write_job("native", JOB), deadline=150, variables={})
            allocation = mesh.allocation("native", "pay")
            until("the task has its certificate, and listens",
                  lambda: "listening" in mesh.task_log(allocation, "pay"))
            before = mesh.registrations()
            at = next(mesh.ports)
            mesh.instance("web", upstreams=[("pay", at)])
            (mesh.run / "a10.sock").symlink_to("/run/meshctl/agent.sock")
            mesh.sidecar("web")

            def echoed():
                with socket.create_connection((mesh.address(10), at), timeout=20) as stream:
                    stream.sendall(b"hello\n")
                    stream.shutdown(socket.SHUT_WR)
                    got = b""
                    while data := stream.recv(1000):
                        got += data
                    return got == b"hello\n"

            until("the native task answers", echoed)
            def authorized():
                lines = mesh.task_log(allocation, "pay").splitlines()
                seen = [json.loads(line) for line in lines if line[:1] == "{"]
                return any(one.get("Authorized") and one["caller"].endswith("/svc/web") for one in seen)

            until("it had asked whom it may let in", authorized)
            # Nomad finds what it registered: it does not register it anew.
            services = json.loads(mesh.agent_api("GET", "/v1/agent/services")[1])
            own = [one for id, one in services.items() if id.startswith("_nomad-task-")]
            self.assertEqual([one.get("Connect") for one in own], [{"Native": True}])
            self.assertEqual(mesh.registrations(), before)
            # Nobody else gets the certificate: not root, nor with the token of Nomad's client.
            for headers in ({}, {"X-Consul-Token": "any"}):
                status, answer = mesh.agent_api("GET", "/v1/agent/connect/ca/leaf/pay", headers=headers)
                self.assertEqual(status, 403, answer)
                self.assertNotIn(b"PRIVATE", answer)
            mesh.stop_job("native")
            until("nothing is registered",
                  lambda: b"_nomad-task" not in mesh.agent_api("GET", "/v1/agent/services")[1], 60)

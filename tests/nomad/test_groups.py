"""Shapes of groups: several services with connect, upstreams on sockets, services that only call, drains."""

import json
import unittest

from mesh import BIN, Load, http_get, until
from nomad import NODE, NomadMesh, missing

SIDECAR = f'''
        sidecar_task {{
          driver = "raw_exec"
          config {{
            command = "{BIN}/mesh-proxy"
            args    = ["-c", "${{NOMAD_SECRETS_DIR}}/envoy_bootstrap.json"]
          }}
        }}
'''


def service(name, port, upstreams="", more="", proxy=""):
    at = f'      port = "{port}"\n' if port else ""
    inner = f"          proxy {{\n{proxy}{upstreams}          }}\n" if upstreams or proxy else ""
    return f'''
    service {{
      name = "{name}"
{at}{more}
      connect {{
        sidecar_service {{
{inner}        }}
{SIDECAR}      }}
    }}
'''


def task(name, mode, port, more=""):
    return f'''
    task "{name}" {{
      driver = "raw_exec"
      config {{
        command = "{BIN}/mesh-demo"
        args    = ["{mode}"]
      }}
      env {{
        PORT = "{port}"
{more}
      }}
    }}
'''


def upstream(name, port):
    return f'''            upstreams {{
              destination_name = "{name}"
              local_bind_port  = {port}
            }}
'''


@unittest.skipIf(missing(), missing())
class Groups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("groups", default="allow")
        try:
            mesh.begin()
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def run_groups(self, job, *groups):
        text = f'job "{job}" {{\n' + "".join(
            f'  group "{name}" {{\n    network {{\n      mode = "bridge"\n{network}    }}\n{body}  }}\n'
            for name, network, body in groups) + "}\n"
        path = self.mesh.write_job(job, text)
        self.mesh.run_job(path, deadline=150, variables={})
        self.addCleanup(self.mesh.stop_job, job)

    def test_two_services_in_one_group_and_one_that_only_calls(self):
        both = (service("left", 9001, more='      tags = ["a", "b"]\n      meta {\n        side = "left"\n      }\n')
                + service("right", 9003) + task("left", "api", 9001, '        VERSION = "left"')
                + task("right", "api", 9003, '        VERSION = "right"'))
        caller = (service("caller", "", upstream("left", 8081) + upstream("right", 8082))
                  + task("via-left", "dashboard", 9010, '        COUNTING_SERVICE_URL = "http://127.0.0.1:8081"')
                  + task("via-right", "dashboard", 9011, '        COUNTING_SERVICE_URL = "http://127.0.0.1:8082"'))
        ports = ('      port "l" {\n        static = 9010\n        to = 9010\n      }\n'
                 '      port "r" {\n        static = 9011\n        to = 9011\n      }\n')
        self.run_groups("pairs", ("both", "", both), ("caller", ports, caller))
        for port, side in ((9010, "left"), (9011, "right")):
            until(f"{side} answers", lambda at=port: http_get(f"http://{NODE}:{at}/api")[0] == 200)
            self.assertEqual(json.loads(http_get(f"http://{NODE}:{port}/api")[2])["version"], side)
        # Nomad dials each sidecar, also of the one that has no port.
        checks = json.loads(self.mesh.agent_api("GET", "/v1/agent/checks")[1]).values()
        self.assertEqual({one["Status"] for one in checks}, {"passing"}, checks)
        rows = self.mesh.api("GET", "/v1/catalog/services/left")[1]
        row = (rows if isinstance(rows, list) else rows["instances"])[0]
        self.assertEqual(sorted(row["tags"]), ["a", "b"])
        self.assertEqual(row["meta"]["side"], "left")

    def test_an_instance_that_stops_fails_no_call(self):
        def group(name):
            # Without a check an instance counts as soon as its sidecar does, before its program listens.
            check = ('      check {\n        type = "http"\n        path = "/health"\n        expose = true\n'
                     '        interval = "1s"\n        timeout = "1s"\n      }\n')
            return (name, "", service("many", 9001, more=check) + task("web", "api", 9001).replace(
                "driver = \"raw_exec\"", "driver = \"raw_exec\"\n      shutdown_delay = \"3s\"", 1))
        caller = (service("user", 9002, upstream("many", 8080))
                  + task("user", "dashboard", 9002, '        COUNTING_SERVICE_URL = "http://127.0.0.1:8080"'))
        port = '      port "http" {\n        static = 9020\n        to = 9002\n      }\n'
        # A byte stream ends with its instance, whoever carries it; a request finishes.
        file = self.mesh.folder / "many.hcl"
        file.write_text('service "many" {\n  protocol = "http"\n}\n')
        self.mesh.command("config", "write", file)
        self.run_groups("drains", group("one"), group("two"), ("user", port, caller))
        self.mesh.wait_passing("many", 2)
        until("it answers", lambda: http_get(f"http://{NODE}:9020/api")[0] == 200)
        load = Load(NODE, 9020, "/api", threads=2, pause=0.01)
        load.more(50)
        stopped = self.mesh.allocation("drains", "one")
        self.mesh.api_nomad(f"/v1/allocation/{stopped['ID']}/stop", method="PUT")
        # Nomad starts another in its place.
        until("it is gone", lambda: not any(
            one["ID"] == stopped["ID"] for one in self.mesh.allocations("drains")), deadline=60)
        load.more(100)
        self.assertEqual(load.stop(), [])

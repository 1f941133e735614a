"""Shapes of groups: several services with connect, upstreams on sockets, services that only call, drains."""

import json
import os
import signal
import socket
import unittest

from jobtext import check, service, task, upstream
from jobtext import job as job_text
from mesh import Load, http_get, until
from nomad import NODE, NomadMesh, missing


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
        path = self.mesh.write_job(job, job_text(job, *groups))
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

    def test_an_upstream_on_a_socket(self):
        path = self.mesh.run / "left.sock"
        at = (f'            upstreams {{\n              destination_name       = "far"\n'
              f'              local_bind_socket_path = "{path}"\n              local_bind_socket_mode = "0600"\n'
              '            }\n')
        self.run_groups("sockets", ("far", "", service("far", 9001, more=check()) + task("far", "api", 9001)),
                        ("near", "", service("near", "", at) + task("near", "api", 9002)))

        def call():
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(10)
                stream.connect(str(path))
                stream.sendall(b"GET / HTTP/1.1\r\nHost: far\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: stream.recv(4096), b""))
        self.assertIn(b'"count"', until("the socket answers", lambda: call().startswith(b"HTTP/1.1 200") and call()))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        # Killed, a sidecar leaves its socket behind; the next one takes its place.
        near = self.mesh.allocation("sockets", "near")
        pid = self.mesh.sidecars()[near["ID"]]
        os.kill(pid, signal.SIGKILL)
        until("another sidecar serves it", lambda: self.mesh.sidecars().get(near["ID"], pid) != pid
              and call().startswith(b"HTTP/1.1 200"), deadline=60)

    def test_the_sidecars_task_is_as_the_job_says(self):
        more = ('          name           = "own-name"\n          kill_timeout   = "7s"\n          shutdown_delay = "1s"\n'
                '          env {\n            MESH_TEST = "given"\n          }\n'
                '          resources {\n            cpu    = 77\n            memory = 99\n          }\n'
                '          meta {\n            side = "car"\n          }\n')
        self.run_groups("overrides", ("one", "", service("one", 9001, task=more) + task("one", "api", 9001)))
        tasks = self.mesh.api_nomad("/v1/job/overrides")["TaskGroups"][0]["Tasks"]
        sidecar = next(one for one in tasks if one["Kind"] == "connect-proxy:one")
        self.assertEqual((sidecar["Name"], sidecar["KillTimeout"], sidecar["ShutdownDelay"], sidecar["Meta"],
                          sidecar["Resources"]["CPU"], sidecar["Resources"]["MemoryMB"]),
                         ("own-name", 7 * 10 ** 9, 10 ** 9, {"side": "car"}, 77, 99))
        pid = self.mesh.sidecars()[self.mesh.allocation("overrides", "one")["ID"]]
        with open(f"/proc/{pid}/environ", "rb") as file:
            self.assertIn(b"MESH_TEST=given", file.read().split(b"\0"))
        self.mesh.wait_passing("one")

    def test_an_instance_that_stops_fails_no_call(self):
        def group(name):
            # Without a check an instance counts as soon as its sidecar does, before its program listens.
            return (name, "", service("many", 9001, more=check()) + task("web", "api", 9001).replace(
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

"""After trouble the mesh comes back by itself: nothing live was restarted, nothing stale is left.

Nomad's client is ended by SIGTERM, as an upgrade does, and not killed: it writes an allocation's
network to its own disk once a minute, and one that is killed before cannot take that up again.
"""

import json
import os
import shutil
import signal
import unittest

from mesh import Load, http_get, until
from nomad import NODE, NomadMesh, job_file, missing, quiet


@unittest.skipIf(missing(), missing())
class Trouble(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("trouble", default="allow")
        try:
            mesh.begin()
            mesh.run_job(job_file("countdash"))
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def setUp(self):
        self.settled()
        self.before = self.sidecars()
        self.load = Load(NODE, 9002, "/api", threads=2, pause=0.02)
        self.load.more(20)

    def tearDown(self):
        self.load.stop()

    def settled(self):
        """Both allocations run, their sidecars are connected, and the dashboard counts."""
        until("both allocations run", lambda: len(self.mesh.allocations("countdash")) == 2, deadline=90)
        until("both sidecars are connected", self.connected, deadline=90)
        until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200, deadline=60)

    def connected(self):
        _, answer = self.mesh.api("GET", "/v1/proxies")
        rows = answer if isinstance(answer, list) else answer["proxies"]
        return len(rows) == 2 and all(row.get("connected") for row in rows)

    def sidecars(self):
        """The processes of the sidecars, by their bootstrap: as they are, not as anyone says."""
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/mesh-proxy"):
                found[words[2].decode()] = int(entry)
        return found

    def unharmed(self):
        self.settled()
        self.load.more(50)
        failures = self.load.stop()
        self.assertEqual(failures, [], f"{len(failures)} of {self.load.done} requests failed")
        self.assertEqual(self.sidecars(), self.before, "a live sidecar was restarted")
        self.nothing_stale()

    def nothing_stale(self):
        ids = {one["ID"] for one in self.mesh.allocations("countdash")}

        def probe():
            rows = []
            for service in ("count-api", "count-dashboard"):
                _, found = self.mesh.api("GET", f"/v1/catalog/services/{service}")
                rows += found if isinstance(found, list) else found["instances"]
            return len(rows) == 2 and all(any(one in row["id"] for one in ids) for row in rows)
        until("the catalog has these two instances and no other", probe, deadline=60)

    def test_the_agent_restarts(self):
        self.mesh.processes["a10"].stop()
        self.load.more(30)
        self.mesh.processes["a10"].restart()
        self.unharmed()

    def test_the_agent_is_killed_and_loses_its_data(self):
        agent = self.mesh.processes["a10"]
        agent.kill()
        shutil.rmtree(self.mesh.folder / "a10")
        agent.restart()
        # Nomad registers again with its next look, within 30 s.
        until("Nomad registers again", lambda: self.mesh.agent_api("GET", "/v1/agent/services")[1] != b"{}", 45)
        self.unharmed()

    def test_the_nomad_client_restarts(self):
        self.mesh.processes["nomad"].stop()
        self.load.more(30)
        self.mesh.start_nomad()
        self.unharmed()

    def test_both_restart_together(self):
        self.mesh.processes["nomad"].stop()
        self.mesh.processes["a10"].kill()
        self.mesh.processes["a10"].restart()
        self.mesh.start_nomad()
        self.unharmed()

    def test_the_client_restarts_while_the_agent_is_away(self):
        self.mesh.processes["nomad"].stop()
        self.mesh.processes["a10"].kill()
        self.mesh.processes["nomad"].restart()
        quiet(30)
        self.mesh.processes["a10"].restart()
        self.mesh.until_ready()
        self.unharmed()

    def test_an_allocation_is_killed(self):
        allocation = self.mesh.allocation("countdash", "api")
        victims = [pid for path, pid in self.before.items() if allocation["ID"] in path]
        self.assertEqual(len(victims), 1)
        self.load.stop()
        os.kill(victims[0], signal.SIGKILL)
        until("another sidecar runs", lambda: any(
            allocation["ID"] in path and pid != victims[0] for path, pid in self.sidecars().items()), deadline=60)
        self.settled()
        self.nothing_stale()
        services = json.loads(self.mesh.agent_api("GET", "/v1/agent/services")[1])
        self.assertEqual(len(services), 4, sorted(services))

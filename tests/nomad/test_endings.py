"""How things end, and come back: an application that drains, an allocation that is killed, a machine that reboots."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import time
import unittest

from jobtext import check, group, job, program, service, task, upstream
from mesh import http_get, until
from nomad import NODE, NomadMesh, job_file, missing, quiet, sh

# An application that goes on calling its upstream for a while when it is told to end, as one does
# that finishes its work. Prints the number of calls, and what failed.
DRAINS = '''
import http.client, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(drain()))
signal.signal(signal.SIGINT, lambda *_: sys.exit(drain()))
def drain():
    calls, failed, end = 0, [], time.monotonic() + 4
    while time.monotonic() < end:
        calls += 1
        try:
            far = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
            far.request("GET", "/")
            status = far.getresponse().status
            if status != 200:
                failed.append(status)
        except OSError as error:
            failed.append(repr(error))
        time.sleep(0.02)
    print("drained", calls, failed[:5], flush=True)
    return 0
print("ready", flush=True)
while True:
    signal.pause()
'''


@unittest.skipIf(missing(), missing())
class Endings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("endings", default="allow")
        try:
            mesh.begin()
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def run_job(self, name, path, **options):
        self.mesh.run_job(path, **options)
        self.addCleanup(self.stop_job, name)

    def stop_job(self, name):
        self.mesh.stop_job(name)
        until("nothing of it is left", lambda: not self.mesh.sidecars() and self.mesh.agent_api(
            "GET", "/v1/agent/services")[1] == b"{}", deadline=90)

    def counts(self):
        return http_get(f"http://{NODE}:9002/api")[0] == 200

    def test_an_application_that_drains_can_still_call(self):
        script = self.mesh.folder / "drains.py"
        script.write_text(DRAINS)
        drains = (service("drains", 9005, upstream("far", 8080))
                  + program("drains", [sys.executable, script, 8080], more='      kill_timeout = "15s"'))
        far = service("far", 9001, more=check()) + task("far", "api", 9001)
        text = job("drains", group("drains", drains), group("far", far))
        self.run_job("drains", self.mesh.write_job("drains", text), variables={}, deadline=120)
        self.mesh.wait_passing("far")
        one = self.mesh.allocation("drains", "drains")
        until("it listens", lambda: "ready" in self.mesh.task_log(one, "drains"))
        until("it can call", lambda: self.mesh.inside(
            one, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/", check=False) == "200")
        self.mesh.api_nomad(f"/v1/allocation/{one['ID']}/stop", method="PUT")
        # Nobody calls it any more, while it still calls.
        until("it is out of the catalog", lambda: not any(
            one["ID"] in row["id"] for row in self.mesh.instances("drains")), deadline=20)
        said = until("it has drained", lambda: next(
            (line for line in self.mesh.task_log(one, "drains").splitlines() if line.startswith("drained")), None),
            deadline=60)
        _, calls, failed = said.split(None, 2)
        self.assertGreater(int(calls), 20)
        self.assertEqual(failed, "[]", said)

    def test_all_of_an_allocation_is_killed(self):
        self.run_job("countdash", job_file("countdash"))
        until("the dashboard counts", self.counts)
        api = self.mesh.allocation("countdash", "api")
        before = self.processes_of(api)
        self.assertEqual(len(before), 2, before)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until("two others run", lambda: len(self.processes_of(api) - before) == 2, deadline=60)
        until("the dashboard counts again", self.counts, deadline=60)
        self.nothing_stale()

    def processes_of(self, allocation):
        """The programs of an allocation's tasks, by their place."""
        found = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes()
                at = os.readlink(f"/proc/{entry}/cwd")
                if allocation["ID"] in at and b"executor" not in words:
                    found.add(int(entry))
        return found

    def nothing_stale(self):
        def probe():
            ids = {one["ID"] for one in self.mesh.allocations("countdash")}
            rows = self.mesh.instances("count-api", "count-dashboard")
            return len(ids) == 2 and len(rows) == 2 and all(any(one in row["id"] for one in ids) for row in rows)
        until("the catalog has two instances, and no other", probe, deadline=90)
        services = json.loads(self.mesh.agent_api("GET", "/v1/agent/services")[1])
        self.assertEqual(len(services), 4, sorted(services))

    def test_the_machine_reboots(self):
        self.run_job("countdash", job_file("countdash"))
        until("the dashboard counts", self.counts)
        # Nomad writes down once a minute what an allocation's network is.
        quiet(65)
        self.power_off()
        self.assertRaises(OSError, self.counts)
        self.mesh.processes["a10"].restart()
        self.mesh.start_nomad()
        until("the dashboard counts again", self.counts, deadline=120)
        self.nothing_stale()
        until("both sidecars are connected, and no other is known", self.connected, deadline=60)

    def connected(self):
        _, answer = self.mesh.api("GET", "/v1/proxies")
        rows = answer if isinstance(answer, list) else answer["proxies"]
        return len(rows) == 2 and all(row.get("connected") for row in rows)

    def power_off(self):
        """All of this machine but its disk is gone; the mesh's server is another machine."""
        kept = {1, os.getpid(), os.getppid(), self.mesh.processes["s1"].pid}
        for name in ("nomad", "a10"):
            self.mesh.processes[name].kill()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            left = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} - kept
            left = {pid for pid in left if self.alive(pid)}
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self.assertFalse(left)
        for line in sh("ip", "netns", "list").splitlines():
            sh("ip", "netns", "delete", line.split()[0])
        sh("ip", "link", "delete", "nomad", check=False)
        for table in ("filter", "nat"):
            sh("iptables", "-t", table, "-F")
            sh("iptables", "-t", table, "-X")
        for folder in ("/run/meshctl", "/run/cni", "/run/netns"):
            for item in pathlib.Path(folder).iterdir():
                shutil.rmtree(item) if item.is_dir() else item.unlink()

    @staticmethod
    def alive(pid):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

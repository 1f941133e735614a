"""The mesh itself as jobs of Nomad: servers, then agents, then a job with connect blocks on top.

Three servers on one machine, which the job's variables allow: no fixed ports, folders by the
allocation's number. So a server that is replaced comes back at another address, with its data.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from mesh import ROOT, Load, http_get, until
from meshjobs import JobsMesh
from nomad import NODE, binary, job_file, missing, sh


class Specs(unittest.TestCase):
    """Needs nothing but the program: no root, no cluster."""

    @unittest.skipUnless(binary(), "no `nomad` on PATH, and NOMAD_BIN is not set")
    def test_each_job_is_formatted(self):
        for path in sorted((ROOT / "jobspecs").glob("*.nomad.hcl")):
            run = subprocess.run([binary(), "fmt", "-check", "-list", path], capture_output=True, text=True, timeout=60)
            self.assertEqual((run.returncode, run.stdout), (0, ""), f"{path.name}\n{run.stderr}")

    @unittest.skipUnless(binary(), "no `nomad` on PATH, and NOMAD_BIN is not set")
    def test_the_count_dashboard_is_wired_as_nomad_writes_it(self):
        with tempfile.TemporaryDirectory() as folder:
            made = subprocess.run([binary(), "job", "init", "-connect", "-short"], cwd=folder,
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(made.returncode, 0, made.stderr)
            theirs = self.wiring(next(pathlib.Path(folder).iterdir()))
        self.assertEqual(self.wiring(job_file("countdash")), theirs)
        self.assertEqual(set(theirs), {"api", "dashboard"})

    @staticmethod
    def wiring(path):
        """Networks, services and connect blocks of each group, without what starts the sidecar."""
        run = subprocess.run([binary(), "job", "run", "-output", path], capture_output=True, text=True, timeout=60)
        found = {}
        for group in json.loads(run.stdout)["Job"]["TaskGroups"]:
            services = [(one["Name"], one["PortLabel"], one["Connect"]["SidecarService"]) for one in group["Services"]]
            found[group["Name"]] = (group["Networks"], services)
        return found

    def test_none_names_a_secret(self):
        for path in sorted((ROOT / "jobspecs").glob("*.nomad.hcl")):
            for line in path.read_text().splitlines():
                self.assertNotRegex(line, r"(?i)(token|secret|password|key) *= *\"[^\"$]{8,}", f"{path.name}: {line}")


@unittest.skipIf(missing(), missing())
class MeshJobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = JobsMesh("mesh-jobs")
        try:
            mesh.prepare()
            mesh.nomad(client=mesh.volume(), ready=False)
            mesh.run_servers()
            mesh.run_agents()
            # Nomad looks for the agent every 15 s, and a job that needs it waits.
            mesh.run_job(job_file("countdash"), variables={"bin": mesh.bin}, deadline=150)
            mesh.command("intention", "create", "-allow", "-wait", "count-dashboard", "count-api")
            until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)
        except BaseException:
            for job in ("mesh-server", "mesh-agent"):
                cls.show(job)
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @classmethod
    def show(cls, job):
        """What a job's tasks said, for whoever looks for the fault."""
        for path in sorted((pathlib.Path(cls.mesh.run) / "nomad" / "alloc").glob("*/alloc/logs/*.std*.0")):
            if path.name.split(".")[0] in ("server", "agent", "links", "doctor"):
                print(f"--- {path.parts[-4][:8]} {path.name}\n{path.read_text(errors='replace')[-2000:]}")

    def sidecars(self):
        found = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/mesh-proxy"):
                found[words[2].decode()] = int(entry)
        return found

    def under_load(self, change):
        """Makes the change; no request failed, and no sidecar was started again."""
        before = self.sidecars()
        self.assertEqual(len(before), 2)
        load = Load(NODE, 9002, "/api", threads=2, pause=0.02)
        load.more(20)
        change()
        load.more(50)
        failures = load.stop()
        self.assertEqual(failures, [], f"{len(failures)} of {load.done} requests failed")
        self.assertEqual(self.sidecars(), before, "a live sidecar was restarted")

    def live(self):
        """A change of policy comes through, both ways."""
        self.mesh.command("intention", "create", "-deny", "-replace", "-wait", "count-dashboard", "count-api")
        self.assertEqual(http_get(f"http://{NODE}:9002/api")[0], 502)
        self.mesh.command("intention", "create", "-allow", "-replace", "-wait", "count-dashboard", "count-api")
        until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)

    def cluster(self):
        return self.mesh.api("GET", "/v1/status")[1]["cluster"]["id"]

    def test_each_job_is_valid(self):
        for path in sorted((ROOT / "jobspecs").glob("*.nomad.hcl")):
            run = subprocess.run([binary(), "job", "validate", path], capture_output=True, text=True, timeout=60,
                                 env={**os.environ, "NOMAD_ADDR": f"http://{NODE}:4646"})
            self.assertEqual(run.returncode, 0, f"{path.name}\n{run.stdout}{run.stderr}")
            self.assertNotIn("Warning", run.stdout)

    def test_the_machine_has_all_that_connect_blocks_need(self):
        agent = next(one for one in self.mesh.allocations("mesh-agent"))
        said = until("the doctor is through", lambda: self.mesh.task_log(agent, "doctor"), deadline=120)
        self.assertIn("Nomad's connect blocks can run on this node.", said)
        self.assertNotRegex(said, r"(?m)^missing")
        self.assertEqual(os.readlink(self.mesh.shim / "consul"), str(self.mesh.bin / "meshctl"))
        self.assertEqual(os.readlink(self.mesh.folder / "cni" / "consul-cni"), str(self.mesh.bin / "meshctl"))

    def test_no_part_runs_as_root_or_shows_a_secret(self):
        secret = self.mesh.sealing.read_text().strip()
        pids = self.mesh.processes_of("server") | self.mesh.processes_of("agent")
        self.assertEqual(len(pids), 4)
        for pid in pids:
            process = pathlib.Path("/proc", str(pid))
            self.assertEqual(process.stat().st_uid, self.mesh.owner.pw_uid)
            for file in ("cmdline", "environ"):
                text = (process / file).read_bytes().decode(errors="replace")
                self.assertNotIn("PRIVATE KEY", text)
                self.assertNotIn(secret, text)
                self.assertNotIn("NOMAD_TOKEN=", text)
        for job in ("mesh-server", "mesh-agent"):
            self.assertNotIn(secret, json.dumps(self.mesh.api_nomad(f"/v1/job/{job}")))

    def test_servers_one_after_the_other(self):
        before, cluster = {one["id"] for one in self.mesh.voters()}, self.cluster()
        self.assertEqual(len(before), 3)
        old = {one["ID"] for one in self.mesh.allocations("mesh-server")}
        self.under_load(lambda: self.mesh.run_servers(config='log_format = "json"'))
        now = {one["ID"] for one in self.mesh.allocations("mesh-server")}
        self.assertEqual((len(now), old & now), (3, set()))
        self.assertEqual({one["id"] for one in self.mesh.voters()}, before, "a server came back as another")
        self.assertEqual(self.cluster(), cluster)
        self.live()

    def test_a_server_restarts_in_place(self):
        one = self.mesh.allocations("mesh-server")[0]
        before = self.mesh.processes_of("server")
        self.assertEqual(len(before), 3)

        def restart():
            sh(binary(), "alloc", "restart", f"-address=http://{NODE}:4646", one["ID"])
            until("another process runs", lambda: len(self.mesh.processes_of("server") & before) == 2
                  and len(self.mesh.processes_of("server")) == 3)
            self.mesh.all_ready()
        self.under_load(restart)
        self.live()

    def test_the_agent_is_replaced(self):
        old = {one["ID"] for one in self.mesh.allocations("mesh-agent")}
        socket = os.stat("/run/meshctl/agent.sock").st_ino

        def replace():
            self.mesh.run_agents(config='log_format = "json"')
            until("another agent runs", lambda: {one["ID"] for one in self.mesh.allocations("mesh-agent")} - old)
            until("it answers", lambda: os.stat("/run/meshctl/agent.sock").st_ino != socket
                  and self.mesh.agent_api("GET", "/v1/agent/self")[0] == 200)
        self.under_load(replace)
        services = json.loads(self.mesh.agent_api("GET", "/v1/agent/services")[1])
        self.assertEqual(len(services), 4, sorted(services))
        self.live()

    def test_nomad_restarts(self):
        before = self.mesh.processes_of("server") | self.mesh.processes_of("agent")
        self.assertEqual(len(before), 4)

        def restart():
            self.mesh.processes["nomad"].stop()
            self.mesh.start_nomad()
        self.under_load(restart)
        after = self.mesh.processes_of("server") | self.mesh.processes_of("agent")
        self.assertEqual(after, before, "a part of the mesh was restarted")
        self.mesh.all_ready()
        self.live()

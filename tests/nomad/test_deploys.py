"""What Nomad changes of a running job: canaries and their tags, restarts by checks, an agent that comes late."""

import json
import subprocess
import sys
import unittest

from jobtext import check, group, job, program, service, task, upstream
from mesh import until
from nomad import NODE, NomadMesh, binary, missing, quiet

# An application that is ill when it is told so, until it is started again.
PATIENT = '''
import http.server, os, pathlib, sys
state = {"health": 200}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/ill":
            state["health"] = 500
        status = state["health"] if self.path == "/health" else 200
        body = str(os.getpid()).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("deploys", default="allow")
        try:
            cls.prepare(mesh)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def prepare(cls, mesh):
        mesh.begin()

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def begin_job(self, name, text):
        """Runs it, without waiting for the deployment."""
        path = self.mesh.write_job(name, text)
        run = subprocess.run([binary(), "job", "run", "-detach", f"-address=http://{NODE}:4646", path],
                             capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def call(self, allocation, port, path="/", *headers):
        """(status, body) of a call of an upstream, from within the allocation."""
        words = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", f"http://127.0.0.1:{port}{path}"]
        for header in headers:
            words += ["-H", header]
        body, _, status = self.mesh.inside(allocation, *words, check=False).rpartition("\n")
        return int(status or 0), body


@unittest.skipIf(missing(), missing())
class Deploys(Base):
    @classmethod
    def prepare(cls, mesh):
        mesh.begin()
        file = mesh.folder / "entries.hcl"
        file.write_text('''service "web" {
  protocol = "http"

  subset "now" { tags = ["now"] }
  subset "next" { tags = ["next"] }
  subset "blue" { meta = { color = "blue" } }
}

route "web" {
  rule "next" {
    match {
      header "x-next" { present = true }
    }

    to "next" {}
  }
  rule "blue" {
    match {
      header "x-blue" { present = true }
    }

    to "blue" {}
  }
  rule "now" {
    to "now" {}
  }
}
''')
        mesh.command("apply", "-f", file, "-auto-approve")
        caller = service("caller", "", upstream("web", 8080)) + task("caller", "api", 9002)
        mesh.run_job(mesh.write_job("caller", job("caller", ("caller", "", caller))), variables={})
        cls.caller = mesh.allocation("caller", "caller")

    def web(self, version):
        tags = ('      tags        = ["now", "all"]\n      canary_tags = ["next", "all"]\n'
                '      meta {\n        color = "red"\n      }\n      canary_meta {\n        color = "blue"\n      }\n')
        update = '    update {\n      canary           = 1\n      max_parallel     = 1\n      min_healthy_time = "1s"\n    }\n'
        body = service("web", 9001, more=tags + check()) + task("web", "api", 9001, f'        VERSION = "{version}"')
        return job("web", group("web", body, more=update))

    def version(self, *headers):
        status, body = self.call(self.caller, 8080, "/", *headers)
        return json.loads(body)["version"] if status == 200 else status

    def marks(self):
        """Tags and color of each instance that passes."""
        return sorted((tuple(sorted(row["tags"])), row["meta"]["color"]) for row in self.mesh.instances("web")
                      if row["status"] == "passing")

    def test_a_canarys_tags_and_meta_are_its_own_until_it_is_promoted(self):
        now, following = (("all", "now"), "red"), (("all", "next"), "blue")
        self.mesh.run_job(self.mesh.write_job("web", self.web("v1")), variables={}, deadline=120)
        self.addCleanup(self.mesh.stop_job, "web")
        until("the first is known", lambda: self.marks() == [now])
        until("it answers", lambda: self.version() == "v1")
        self.assertEqual(self.version("x-next: 1"), 503)

        self.begin_job("web", self.web("v2"))
        until("the canary is known by its tags", lambda: self.marks() == [following, now], deadline=90)
        for header in ("x-next: 1", "x-blue: 1"):
            until(f"{header} goes to it", lambda it=header: self.version(it) == "v2")
        self.assertEqual({self.version() for _ in range(10)}, {"v1"})

        deployment = until("it may be promoted", lambda: (lambda one: one if any(
            group["HealthyAllocs"] for group in one["TaskGroups"].values()) else None)(self.mesh.deployment("web")))
        self.mesh.api_nomad(f"/v1/deployment/promote/{deployment['ID']}", method="PUT",
                            body={"DeploymentID": deployment["ID"], "All": True})
        until("there is one again, by the ordinary tags", lambda: self.marks() == [now], deadline=90)
        until("all calls go to it", lambda: self.version() == "v2")
        self.assertEqual({self.version() for _ in range(10)}, {"v2"})
        until("nobody is next", lambda: self.version("x-next: 1") == 503)

    def test_a_check_that_fails_has_nomad_restart_the_task(self):
        script = self.mesh.folder / "patient.py"
        script.write_text(PATIENT)
        restart = '        check_restart {\n          limit = 2\n          grace = "10s"\n        }\n'
        body = (service("patient", 9005, more=check(more=restart))
                + program("patient", [sys.executable, script, 9005]))
        nurse = service("nurse", "", upstream("patient", 8081)) + task("nurse", "api", 9006)
        policy = '    restart {\n      attempts = 3\n      interval = "5m"\n      delay    = "1s"\n    }\n'
        text = job("ward", group("patient", body, more=policy), group("nurse", nurse))
        self.mesh.run_job(self.mesh.write_job("ward", text), variables={}, deadline=120)
        self.addCleanup(self.mesh.stop_job, "ward")
        nurse, patient = (self.mesh.allocation("ward", name) for name in ("nurse", "patient"))
        self.mesh.wait_passing("patient")
        status, before = until("it answers", lambda: (lambda it: it if it[0] == 200 else None)(self.call(nurse, 8081)))
        self.assertEqual(self.call(nurse, 8081, "/ill")[0], 200)
        until("the servers know that it is ill", lambda: [
            row["status"] for row in self.mesh.instances("patient")] == ["critical"])

        def again():
            status, pid = self.call(nurse, 8081)
            return status == 200 and pid != before
        until("another process answers", again, deadline=90)
        self.mesh.wait_passing("patient")
        state = self.mesh.api_nomad(f"/v1/allocation/{patient['ID']}")["TaskStates"]
        # Nomad restarts the whole group, its sidecar too, once.
        for name in ("patient", "connect-proxy-patient"):
            self.assertEqual(state[name]["Restarts"], 1)
            self.assertIn("Restart Signaled", [event["Type"] for event in state[name]["Events"]])


@unittest.skipIf(missing(), missing())
class Late(Base):
    """Nomad and the job are there before the agent is."""

    @classmethod
    def prepare(cls, mesh):
        mesh.servers()
        mesh.nomad(ready=False)

    def test_a_job_waits_for_an_agent_that_comes_later(self):
        callee = service("callee", 9001, more=check()) + task("callee", "api", 9001)
        caller = service("caller", "", upstream("callee", 8080)) + task("caller", "api", 9002)
        self.begin_job("late", job("late", ("callee", "", callee), ("caller", "", caller)))
        quiet(30)
        self.assertEqual(self.mesh.allocations("late", running=False), [])
        self.mesh.agent(door="127.0.0.1", advertise=NODE, socket="/run/meshctl/agent.sock")
        until("the deployment is healthy", lambda: self.mesh.deployment("late")["Status"] == "successful", deadline=120)
        at = self.mesh.allocation("late", "caller")
        until("calls go through", lambda: self.call(at, 8080)[0] == 200)

    def test_an_agent_that_is_away_when_an_allocation_starts(self):
        # Nomad found the agent before, so it places at once, and its hooks try for a minute.
        if "a10" not in self.mesh.processes:
            self.mesh.agent(door="127.0.0.1", advertise=NODE, socket="/run/meshctl/agent.sock")
        self.mesh.until_ready()
        self.mesh.processes["a10"].stop()
        self.begin_job("race", job("race", ("race", "", service("race", 9001, more=check()) + task("race", "api", 9001))))
        until("it is placed", lambda: self.mesh.allocations("race", running=False))
        quiet(30)
        self.mesh.processes["a10"].restart()
        until("the deployment is healthy", lambda: self.mesh.deployment("race")["Status"] == "successful", deadline=120)
        placed = self.mesh.allocations("race", running=False)
        self.assertEqual(len(placed), 1, "Nomad gave the allocation up, and made another")

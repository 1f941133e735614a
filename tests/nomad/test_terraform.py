"""The quickstart of terraform/examples with the real `terraform`, on a real Nomad: servers, agents, and
what the mesh's intentions are, from nothing and back to nothing.

Three servers on one machine, which the variables allow. The tests are one story, in their order.
"""

import contextlib
import json
import pathlib
import threading
import unittest

from mesh import until
from nomad import missing
from quickstart import QuickstartMesh
from terraform import missing as no_terraform


class Watch:
    """How many servers of the mesh run, at the least, while something is done."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.least = len(mesh.processes_of("server"))
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self.ending.wait(0.02):
            self.least = min(self.least, len(self.mesh.processes_of("server")))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Quickstart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = QuickstartMesh("terraform")
        try:
            mesh.quickstart()
        except BaseException:
            mesh.__exit__(True, None, None)
            raise
        cls.tf, cls.data = mesh.tf, mesh.data

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def voters(self):
        return sorted(one["name"] for one in self.mesh.voters())

    def names(self, count):
        return [f"mesh-server-{index}" for index in range(count)]

    def settled(self, count):
        """All is as it should be, by Nomad's word, the servers', and Terraform's."""
        self.assertEqual(self.voters(), self.names(count))
        self.assertEqual(len(self.mesh.processes_of("server")), count)
        jobs = {one["ID"] for one in self.mesh.api_nomad("/v1/jobs") if not one["Stop"]}
        self.assertEqual(jobs, {*self.names(count), "mesh-agent"})
        self.assertEqual(sorted(path.name.split(".")[0] for path in self.data.iterdir()), self.names(count))
        self.assertEqual(self.tf.planned(), {})

    def secrets(self):
        """What may stand nowhere: of each key a line that is only its own."""
        trust = self.mesh.folder / "trust"
        keys = [line for name in ("cluster-ca.key", "cli-me.key", "sealing.key")
                for line in (trust / name).read_text().splitlines() if line and not line.startswith(("-----", "#"))]
        made = [self.mesh.api_nomad(f"/v1/var/{one['Path'].replace('/', '%2F')}")["Items"]
                for one in self.mesh.api_nomad("/v1/vars")]
        for items in made:
            keys += [line for name, value in items.items() if name.startswith(("key", "sealing"))
                     for line in value.splitlines() if line and not line.startswith(("-----", "#"))]
        return {key.encode() for key in keys if len(key) > 20}

    def test_01_from_nothing_to_a_mesh(self):
        said = self.tf.apply()
        self.assertIn("Apply complete", said)
        self.settled(3)
        status = self.mesh.api("GET", "/v1/status")[1]
        self.assertIsNotNone(status["leader"])
        self.assertEqual(self.tf.state()["mesh_server.servers"]["trust_domain"], status["cluster"]["trust_domain"])
        # How it went can be followed.
        log = self.tf.log.read_text()
        for line in ("mesh-server-0: begins a cluster", "mesh-server: waiting for mesh-server-0", "mesh-server-2: is made",
                     "3 servers, each with a vote, and a leader"):
            self.assertIn(line, log)

    def test_02_an_agent_runs_and_the_entries_are_in_force(self):
        until("the agent is known", lambda: [one["state"] for one in self.mesh.api("GET", "/v1/catalog/nodes")[1]] == ["alive"])
        check = json.loads(self.mesh.command("intention", "check", "-output", "json", "count-dashboard", "count-api"))
        self.assertTrue(check["allowed"], check)
        route = self.mesh.api("GET", "/v1/routes/count-api")[1]
        self.assertEqual((route["rules"][0]["timeout"], route["owner"]), ("5s", "terraform"))

    def test_03_no_secret_is_in_plan_state_log_job_or_process(self):
        self.tf.run("plan", "-out=plan", "-refresh-only")
        (self.tf.folder / "plan.json").write_text(self.tf.run("show", "-json", "plan"))
        secrets = self.secrets()
        self.assertGreater(len(secrets), 6)
        places = list(self.tf.written())
        self.assertIn("terraform.tfstate", {path.name for path, _ in places})
        for job in (*self.names(3), "mesh-agent"):
            places.append((job, json.dumps(self.mesh.api_nomad(f"/v1/job/{job}")).encode()))
        for pid in self.mesh.processes_of("server") | self.mesh.processes_of("agent"):
            process = pathlib.Path("/proc", str(pid))
            self.assertEqual(process.stat().st_uid, self.mesh.owner.pw_uid, "runs as root")
            places += [(process / file, (process / file).read_bytes()) for file in ("cmdline", "environ")]
        for path in (self.mesh.run / "nomad" / "alloc").glob("*/alloc/logs/*"):
            if path.is_file():  # and no pipe
                places.append((path, path.read_bytes()))
        for path, text in places:
            for secret in secrets:
                self.assertNotIn(secret, text, f"{path}")
        # And the files are their user's alone.
        for path in (self.mesh.run / "nomad" / "alloc").glob("*/*/secrets/*"):
            if path.name in ("key.pem", "sealing.key"):
                self.assertEqual((path.stat().st_mode & 0o777, path.stat().st_uid), (0o600, self.mesh.owner.pw_uid), path)

    def test_04_a_change_is_planned_alone(self):
        self.tf.set(dashboard_action="deny")
        self.assertEqual(self.tf.planned(), {"mesh_intention.dashboard": "update"})
        before = self.mesh.processes_of("server") | self.mesh.processes_of("agent")
        self.tf.apply()
        self.assertEqual(self.mesh.processes_of("server") | self.mesh.processes_of("agent"), before)
        self.settled(3)

    def test_05_a_new_version_comes_to_one_after_the_other(self):
        before, ids = self.mesh.processes_of("server"), {one["id"] for one in self.mesh.voters()}
        self.tf.set(meshctl_version="2")
        self.assertEqual(set(self.tf.planned()), {"mesh_server.servers", "mesh_agent.agents"})
        with Watch(self.mesh) as watch:
            self.tf.apply()
        self.assertEqual(watch.least, 2, "two were away at once")
        self.assertEqual(self.mesh.processes_of("server") & before, set())
        self.assertEqual({one["id"] for one in self.mesh.voters()}, ids, "a server came back as another")
        self.settled(3)

    def test_06_more_and_fewer(self):
        self.tf.set(server_count=5)
        self.assertEqual(self.tf.planned(), {"mesh_server.servers": "update"})
        self.tf.apply()
        self.settled(5)
        with Watch(self.mesh) as watch:
            self.tf.set(server_count=3)
            self.tf.apply()
        self.assertGreaterEqual(watch.least, 3)
        self.settled(3)
        cluster = self.mesh.api("GET", "/v1/status")[1]["cluster"]["id"]
        for count in (1, 3):
            self.tf.set(server_count=count)
            self.tf.apply()
            self.settled(count)
        self.assertEqual(self.mesh.api("GET", "/v1/status")[1]["cluster"]["id"], cluster)

    def test_07_what_was_killed_in_the_middle_goes_on(self):
        self.tf.set(server_count=5, meshctl_version="3")
        for line in ("mesh-server-3: is made", "mesh-server-4: is made", "mesh-server-1: is changed"):
            seen = self.tf.log.stat().st_size
            process = self.tf.start("apply", "-auto-approve")
            reached = until(f"`{line}`", lambda: line in self.tf.log.read_bytes()[seen:].decode(errors="replace")
                            or process.poll() is not None, deadline=120)
            self.assertTrue(reached)
            self.tf.kill(process)
        self.tf.apply()
        self.settled(5)
        self.tf.set(server_count=3)
        self.tf.apply()
        self.settled(3)

    def test_08_what_was_done_by_hand_is_seen_and_mended(self):
        cluster = self.mesh.api("GET", "/v1/status")[1]["cluster"]["id"]
        self.mesh.api_nomad("/v1/job/mesh-server-1", method="DELETE")
        until("it is gone", lambda: len(self.mesh.processes_of("server")) == 2)
        self.assertEqual(self.tf.planned(), {"mesh_server.servers": "update"})
        self.tf.apply()
        self.settled(3)
        # Purged: where its data were is forgotten, so it comes back as another member.
        self.mesh.api_nomad("/v1/job/mesh-server-2?purge=true", method="DELETE")
        until("it is gone", lambda: len(self.mesh.processes_of("server")) == 2)
        self.tf.apply()
        self.settled(3)
        job = self.mesh.api_nomad("/v1/job/mesh-server-0")
        job["TaskGroups"][0]["Tasks"][1]["Resources"]["CPU"] += 1
        self.mesh.api_nomad("/v1/jobs", method="POST", body={"Job": job})
        self.assertEqual(self.tf.planned(), {"mesh_server.servers": "update"})
        self.tf.apply()
        self.settled(3)
        self.assertEqual(self.mesh.api("GET", "/v1/status")[1]["cluster"]["id"], cluster)

    def test_09_what_has_no_place_changes_nothing(self):
        self.tf.set(server_memory=10_000_000)
        before = self.mesh.processes_of("server")
        said = self.tf.apply(expect=1)
        self.assertIn("so nothing was changed", " ".join(said.split()))
        self.assertEqual(self.mesh.processes_of("server"), before)
        self.tf.set(server_memory=64)
        self.tf.apply()
        self.settled(3)

    def test_10_what_was_made_by_hand_is_imported(self):
        self.mesh.command("intention", "create", "-deny", "web", "users")
        more = self.tf.folder / "imported.tf"
        more.write_text('resource "mesh_intention" "web" {\n  source      = "web"\n  destination = "users"\n  action      = "deny"\n}\n')
        self.tf.run("import", "mesh_intention.web", "web/users")
        self.tf.apply()
        self.assertEqual(self.tf.planned(), {})
        # And the servers themselves, by their name, into a state that knows nothing of them.
        self.tf.run("state", "rm", "mesh_server.servers")
        self.tf.run("import", "mesh_server.servers", "mesh-server")
        self.assertEqual(self.tf.state()["mesh_server.servers"]["server_count"], 3)
        before = self.mesh.processes_of("server")
        self.tf.apply()
        self.assertEqual(self.mesh.processes_of("server"), before, "an import restarted a server")
        self.settled(3)

    def test_11_it_ends_only_when_told_and_leaves_nothing(self):
        said = self.tf.run("destroy", "-auto-approve", expect=1)
        self.assertIn("force_destroy", said)
        self.assertEqual(self.voters(), self.names(3))
        self.tf.set(force_destroy=True)
        self.tf.apply()
        self.tf.run("destroy", "-auto-approve")
        self.assertEqual(self.mesh.api_nomad("/v1/jobs"), [])
        self.assertEqual(self.mesh.api_nomad("/v1/vars"), [])
        self.assertEqual(list(self.data.iterdir()), [])
        self.assertEqual(self.mesh.processes_of("server") | self.mesh.processes_of("agent"), set())
        with contextlib.suppress(FileNotFoundError):
            self.assertEqual(json.loads((self.tf.folder / "terraform.tfstate").read_text())["resources"], [])

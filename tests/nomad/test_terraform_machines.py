"""Servers that Terraform made on machines of which some go away: four clients of a real Nomad.

A machine that goes takes Nomad's client and the server on it, at once and without a word.
"""

import os
import pathlib
import signal
import unittest

from mesh import until
from nomad import NODE, binary, missing
from quickstart import QuickstartMesh
from tfproject import missing as no_terraform

ONLY = ("-target", "mesh_server.servers")  # agents of four clients on one machine would be in each other's way


class Machines(QuickstartMesh):
    def client(self, number):
        """Another machine of Nomad's, on ports of its own."""
        port = 5646 + 10 * number
        (self.run / f"nomad-{number}").mkdir()
        (self.run / f"nomad-{number}").chmod(0o711)  # what a server is run as goes through it
        config = self.folder / f"nomad-{number}.hcl"
        config.write_text(f'''name      = "machine-{number}"
data_dir  = "{self.run}/nomad-{number}"
bind_addr = "{NODE}"
ports {{
  http = {port}
  rpc  = {port + 1}
  serf = {port + 2}
}}
client {{
  enabled           = true
  servers           = ["{NODE}:4647"]
  network_interface = "mesh0"
  min_dynamic_port  = {21000 + 1000 * number}
  max_dynamic_port  = {21999 + 1000 * number}
  gc_disk_usage_threshold = 99
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
disable_update_check = true
''')
        env = {name: "" for name in os.environ if name.startswith(("NOMAD_", "CONSUL_", "AWS_"))}
        self.start(f"nomad-{number}", [binary(), "agent", "-config", config], env=env)

    def placed(self):
        """{job: machine} of the servers that Nomad runs."""
        return {one["JobID"]: one["NodeName"] for one in self.api_nomad("/v1/allocations")
                if one["ClientStatus"] == "running" and one["JobID"].startswith("mesh-server-")}

    def heard(self):
        """Machines that Nomad hears."""
        return {one["Name"] for one in self.api_nomad("/v1/nodes") if one["Status"] == "ready"}

    def lose(self, job):
        """The machine of a server goes away, and Nomad has noticed. Gives back its name."""
        machine = self.placed()[job]
        self.processes[machine.replace("machine", "nomad")].kill()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/meshctl\0server\0" in words and f"/{job}.".encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)
        until(f"Nomad misses {machine}", lambda: machine not in self.heard(), deadline=120)
        return machine


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Lost(unittest.TestCase):
    def test_a_machine_that_goes_is_replaced_and_a_quorum_is_not_given_up(self):
        with Machines("terraform-machines") as mesh:
            mesh.quickstart(distinct_hosts=True)
            (mesh.tf.folder / "lost_override.tf").write_text(
                'resource "mesh_server" "servers" {\n  lost_after = "5s"\n}\n')
            for number in (1, 2, 3):
                mesh.client(number)
            until("four machines are there", lambda: len(mesh.heard()) == 4, deadline=60)
            names = [f"mesh-server-{index}" for index in range(3)]
            mesh.tf.run("apply", "-auto-approve", *ONLY)
            before = mesh.placed()
            self.assertEqual((sorted(before), len(set(before.values()))), (names, 3))

            first = next(job for job, machine in sorted(before.items()) if machine.startswith("machine-"))
            gone = mesh.lose(first)
            mesh.tf.run("apply", "-auto-approve", *ONLY)
            now = mesh.placed()
            self.assertEqual((sorted(now), len(set(now.values()))), (names, 3))
            self.assertNotIn(gone, now.values())
            for job in set(names) - {first}:
                self.assertEqual(now[job], before[job], "a server was moved that was well")
            self.assertEqual(sorted(one["name"] for one in mesh.voters()), names)

            # Two of three away: what could lose the rest is not done.
            for job in [job for job, machine in sorted(now.items()) if machine.startswith("machine-")][:2]:
                mesh.lose(job)
            # A leader may come back, and is waited for; here not for long.
            (mesh.tf.folder / "short_override.tf").write_text(
                'resource "mesh_server" "servers" {\n  timeouts = { update = "20s" }\n}\n')
            jobs = {one["ID"]: one["JobModifyIndex"] for one in mesh.api_nomad("/v1/jobs")}
            mesh.tf.run("apply", "-auto-approve", *ONLY, "-var", "server_count=5", expect=1)
            self.assertIn("waiting for a leader", mesh.tf.log.read_text())
            self.assertEqual({one["ID"]: one["JobModifyIndex"] for one in mesh.api_nomad("/v1/jobs")}, jobs)

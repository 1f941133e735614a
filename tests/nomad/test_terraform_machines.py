"""Servers and agents that Terraform made on several machines of a real Nomad, each in a network of its own: an agent on
every one, also on one that comes later, services that reach each other across them, and machines that go away.
"""

import unittest

from machines import Machines
from mesh import http_get, until
from nomad import job_file, missing
from terraform import missing as no_terraform


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Everywhere(unittest.TestCase):
    def test_an_agent_on_every_client_and_services_across_them(self):
        with Machines("terraform-agents") as mesh:
            mesh.begin_nomad()
            first, second = mesh.machine(1), mesh.machine(2)
            mesh.quickstart(dashboard_action="deny")
            mesh.tf.apply()
            self.everywhere(mesh, 3)
            self.assertEqual(set(mesh.placed().values()), mesh.heard())

            # One service on each of two machines.
            self.run_services(mesh, first, second)
            until("the intention denies", lambda: self.count(second) == 502)
            mesh.tf.set(dashboard_action="allow")
            self.assertEqual(mesh.tf.planned(), {"mesh_intention.dashboard": "update"})
            mesh.tf.apply()
            until("the intention allows", lambda: self.count(second) == 200)
            instances = {one["service"]: one["node"] for one in mesh.instances("count-api", "count-dashboard")}
            self.assertEqual(instances, {"count-api": first.name, "count-dashboard": second.name})

            # A machine that comes later: the plan shows that, and nothing else; no other agent is touched.
            before = mesh.processes_of("agent")
            late = mesh.machine(3, volume=False)
            self.assertEqual(mesh.tf.planned(), {"mesh_agent.agents": "update"})
            mesh.tf.apply()
            self.everywhere(mesh, 4)
            self.assertLess(before, mesh.processes_of("agent"))
            self.assertEqual(self.count(second), 200)
            self.run_services(mesh, first, late)
            until("it is allowed from there, too", lambda: self.count(late) == 200)
            mesh.tf.set(dashboard_action="deny")
            mesh.tf.apply()
            until("and denied", lambda: self.count(late) == 502)

            mesh.stop_job("countdash")
            mesh.tf.set(force_destroy=True)
            mesh.tf.apply()
            mesh.tf.destroy()
            self.assertEqual(mesh.api_nomad("/v1/vars"), [])
            self.assertEqual(mesh.processes_of("server") | mesh.processes_of("agent"), set())
            for folder in (mesh.data, *(one.data for one in mesh.machines.values())):
                self.assertEqual(list(folder.iterdir()), [], folder)

    def everywhere(self, mesh, count):
        """An agent on each machine, by Terraform's word, Nomad's, and the servers'."""
        nodes = mesh.heard()
        self.assertEqual(len(nodes), count)
        self.assertEqual(set(mesh.tf.outputs()["nodes"]), nodes)
        self.assertEqual(len(mesh.processes_of("agent")), count)
        until("the servers know the agents", lambda: {
            one["name"] for one in mesh.api("GET", "/v1/catalog/nodes")[1] if one["state"] == "alive"} == nodes)
        self.assertEqual(mesh.tf.planned(), {})

    def run_services(self, mesh, api, dashboard):
        """The count dashboard, its two groups on these machines."""
        text = job_file("countdash").read_text()
        for group, machine in (("api", api), ("dashboard", dashboard)):
            text = text.replace(f'group "{group}" {{', f'group "{group}" {{\n    constraint {{\n      attribute = '
                                f'"${{node.unique.name}}"\n      value     = "{machine.name}"\n    }}\n')
        mesh.run_job(mesh.write_job("countdash", text), variables={"bin": mesh.bin}, deadline=150)

    @staticmethod
    def count(machine):
        return http_get(f"http://{machine.address}:9002/api")[0]


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Lost(unittest.TestCase):
    def test_a_machine_that_goes_is_replaced_and_a_quorum_is_not_given_up(self):
        with Machines("terraform-machines") as mesh:
            mesh.begin_nomad()
            for number in (1, 2, 3):
                mesh.machine(number)
            mesh.quickstart()
            (mesh.tf.folder / "lost_override.tf").write_text(
                'resource "mesh_server" "servers" {\n  lost_after = "5s"\n}\n')
            names = [f"mesh-server-{index}" for index in range(3)]
            mesh.tf.apply()
            before = mesh.placed()
            self.assertEqual((sorted(before), len(set(before.values()))), (names, 3))

            first = next(job for job, machine in sorted(before.items()) if machine in mesh.machines)
            gone = before[first]
            mesh.machines[gone].lose()
            mesh.tf.apply()
            now = mesh.placed()
            self.assertEqual((sorted(now), len(set(now.values()))), (names, 3))
            self.assertNotIn(gone, now.values())
            for job in set(names) - {first}:
                self.assertEqual(now[job], before[job], "a server was moved that was well")
            self.assertEqual(sorted(one["name"] for one in mesh.voters()), names)

            # Two of three away: what could lose the rest is not done.
            for machine in [machine for _, machine in sorted(now.items()) if machine in mesh.machines][:2]:
                mesh.machines[machine].lose()
            # A leader may come back, and is waited for; here not for long.
            (mesh.tf.folder / "short_override.tf").write_text(
                'resource "mesh_server" "servers" {\n  timeouts = { update = "20s" }\n}\n')
            jobs = {one["ID"]: one["JobModifyIndex"] for one in mesh.api_nomad("/v1/jobs")}
            mesh.tf.run("apply", "-auto-approve", "-target", "mesh_server.servers", "-var", "server_count=5", expect=1)
            self.assertIn("waiting for a leader", mesh.tf.log.read_text())
            self.assertEqual({one["ID"]: one["JobModifyIndex"] for one in mesh.api_nomad("/v1/jobs")}, jobs)

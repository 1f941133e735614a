"""Nomad's servers with the consul block that they have by default, beside the mesh's servers.

They register themselves, find each other and say when they go; nothing tells them of each other but
the mesh's catalog. A client finds them by it too, at its node's agent.
"""

import os
import unittest

from mesh import until
from nomad import PLUGINS, NomadMesh, binary, missing, quiet, sh

# Nomad compares what it registered with what stands here every 30 s.
SYNCS = 65
COUNT = 3
CONFIG = '''data_dir  = "{run}/{name}"
bind_addr = "{address}"
name      = "{name}"
disable_update_check = true
'''
SERVER = CONFIG + '''server {{
  enabled          = true
  bootstrap_expect = {count}
}}
consul {{
  address   = "{mesh}:8700"
  ssl       = true
  ca_file   = "{tls}/cluster-ca.pem"
  cert_file = "{tls}/cli-test.pem"
  key_file  = "{tls}/cli-test.key"
}}
'''
CLIENT = CONFIG + '''client {{
  enabled           = true
  network_interface = "mesh0"
  cni_path          = "{cni}"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
'''


def address(number):
    return f"10.77.0.{number}"


@unittest.skipIf(missing(), missing())
class Servers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("nomad-servers", servers=COUNT)
        try:
            mesh.servers()
            for number in range(2, COUNT + 2):
                sh("ip", "addr", "add", f"{address(number)}/24", "dev", "mesh0")
            for number in range(1, COUNT + 1):
                cls.nomad(number, SERVER, mesh=mesh.address(number), tls=mesh.folder / "tls", count=COUNT)
            until("Nomad's servers are a cluster", lambda: len(mesh.api_nomad("/v1/status/peers")) == COUNT, deadline=90)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @classmethod
    def nomad(cls, number, text, **facts):
        mesh, name = cls.mesh, f"nomad{number}"
        config = mesh.folder / f"{name}.hcl"
        config.write_text(text.format(run=mesh.run, name=name, address=address(number), **facts))
        env = {"PATH": f"{mesh.shim}:{os.environ['PATH']}"}
        env.update({key: "" for key in os.environ if key.startswith(("NOMAD_", "CONSUL_", "AWS_"))})
        return mesh.start(name, [binary(), "agent", "-config", config], env=env)

    def registered(self, server=1):
        _, found = self.mesh.api("GET", "/v1/catalog/services/nomad", server=server)
        return found

    def passing(self, count, server=1):
        until(f"{count} instances of nomad pass",
              lambda: [one["status"] for one in self.registered(server)] == ["passing"] * count, deadline=60)

    def test_1_they_are_registered_and_their_checks_pass(self):
        self.passing(3 * COUNT)
        tags = sorted(tag for one in self.registered() for tag in one["tags"])
        self.assertEqual(tags, sorted(["http", "rpc", "serf"] * COUNT))
        self.assertEqual({one["node_name"] for one in self.registered()}, {"s1", "s2", "s3"})
        self.assertEqual({one["address"] for one in self.registered()}, {address(n) for n in range(1, COUNT + 1)})

    def test_2_left_alone_they_register_nothing_again(self):
        before = [self.mesh.registrations(f"s{n}") for n in range(1, COUNT + 1)]
        self.assertEqual(before, [3] * COUNT)
        _, status = self.mesh.api("GET", "/v1/status")
        quiet(SYNCS)
        self.assertEqual([self.mesh.registrations(f"s{n}") for n in range(1, COUNT + 1)], before)
        _, after = self.mesh.api("GET", "/v1/status")
        self.assertEqual(after["index"], status["index"], "something was written")
        for number in range(1, COUNT + 1):
            for line in self.mesh.processes[f"nomad{number}"].log.read_text(errors="replace").splitlines():
                self.assertFalse("consul" in line and ("[ERROR]" in line or "[WARN]" in line), line)

    def test_3_a_client_finds_them_by_its_agent(self):
        mesh = self.mesh
        mesh.agent(door="127.0.0.1", advertise=address(COUNT + 1), socket="/run/meshctl/agent.sock")
        self.nomad(COUNT + 1, CLIENT, cni=":".join(PLUGINS))
        until(f"the client is ready\n{mesh.tail(f'nomad{COUNT + 1}')}",
              lambda: [node["Status"] for node in mesh.api_nomad("/v1/nodes")] == ["ready"], deadline=60)
        # It is registered too, with the agent.
        until("the client passes", lambda: [one["status"] for one in mesh.instances("nomad-client")] == ["passing"],
              deadline=60)

    def test_4_a_mesh_server_that_starts_again_has_them_as_they_were(self):
        mesh = self.mesh
        before = mesh.registrations("s2")
        mesh.processes["s2"].kill()
        mesh.processes["s2"].restart()
        mesh.ready(2)
        _, found = mesh.api("GET", "/v1/agent/services", server=2)
        self.assertEqual(len(found), 3)
        self.passing(3 * COUNT, server=2)
        self.assertEqual(mesh.registrations("s2"), before)

    def test_5_one_that_stops_is_gone(self):
        self.mesh.processes[f"nomad{COUNT}"].stop()
        until("it is gone", lambda: len(self.registered()) == 3 * (COUNT - 1))
        _, nodes = self.mesh.api("GET", "/v1/catalog/nodes")
        self.assertNotIn(f"s{COUNT}", [node["name"] for node in nodes])

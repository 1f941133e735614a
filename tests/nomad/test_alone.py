"""The mesh that Nomad runs does not need Nomad to go on: not its servers, not its client.

Nomad's server and its client are two processes, as they are two machines elsewhere, with ACLs: what
the jobs ask Nomad they ask with the identity that it gives them.
"""

import os
import signal
import unittest

from mesh import Load, http_get, until
from meshjobs import JobsMesh
from nomad import NODE, PLUGINS, binary, job_file, missing, quiet

COMMON = '''bind_addr = "{node}"
data_dir  = "{run}/{name}"
disable_update_check = true
acl {{
  enabled = true
}}
'''
SERVER = '''ports {{
  http = 4656
}}
server {{
  enabled          = true
  bootstrap_expect = 1
}}
consul {{
  auto_advertise   = false
  server_auto_join = false
  service_identity {{
    aud = ["consul.io"]
    ttl = "1h"
  }}
}}
'''
CLIENT = '''client {{
  enabled           = true
  servers           = ["{node}:4647"]
  network_interface = "mesh0"
  cni_path          = "{cni}"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
{volume}}}
ports {{
  rpc = 4657
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
consul {{
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
  token            = "any"
}}
'''
# Nomad's keys are read over the task's socket too.
PROVED = 'attestation = "workload"\nnomad {\n  audience = ["consul.io"]\n}\n'


class Apart(JobsMesh):
    """Nomad's server and its client apart."""

    def begin_nomad(self):
        for name, text in (("nomad-server", SERVER), ("nomad", CLIENT)):
            # A client makes it for root only, and tasks of others could not reach their own folders.
            (self.run / name).mkdir(mode=0o755)
            text = (COMMON + text).format(node=NODE, run=self.run, name=name, volume=self.volume(),
                                          cni=f"{':'.join(PLUGINS)}:{self.folder}/cni")
            (self.folder / f"{name}.hcl").write_text(text)
        self.start_part("nomad-server")
        self.start_part("nomad")
        self.token = until("there is a token", lambda: self.api_nomad("/v1/acl/bootstrap", method="POST", body={}),
                           deadline=60)["SecretID"]
        self.until_ready(found=False)

    def start_part(self, name):
        env = {"PATH": f"{self.shim}:{os.environ['PATH']}"}
        env.update({key: "" for key in os.environ if key.startswith(("NOMAD_", "CONSUL_", "AWS_"))})
        self.start(name, [binary(), "agent", "-config", self.folder / f"{name}.hcl"], env=env)


@unittest.skipIf(missing(), missing())
class Alone(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Apart("alone")
        try:
            mesh.prepare()
            mesh.begin_nomad()
            mesh.run_servers()
            mesh.run_agents(PROVED)
            mesh.run_job(job_file("countdash"), variables={"bin": mesh.bin}, deadline=150)
            mesh.command("intention", "create", "-allow", "-wait", "count-dashboard", "count-api")
            until("the dashboard counts", cls.counts)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @staticmethod
    def counts():
        return http_get(f"http://{NODE}:9002/api")[0] == 200

    def parts(self):
        return self.mesh.processes_of("server") | self.mesh.processes_of("agent")

    def test_nomads_servers_are_away(self):
        mesh = self.mesh
        mesh.addresses = mesh.look()
        mesh.processes["nomad-server"].stop()
        before, sidecars = self.parts(), mesh.sidecars()
        self.assertEqual((len(before), len(sidecars)), (4, 2))
        load = Load(NODE, 9002, "/api", threads=2, pause=0.02)
        load.more(20)
        # The client comes again, and cannot ask anybody.
        mesh.processes["nomad"].stop()
        mesh.start_part("nomad")
        quiet(30)
        self.assertEqual(self.parts(), before, "a part of the mesh was restarted")
        self.assertEqual(mesh.sidecars(), sidecars, "a sidecar was restarted")
        # What dies is started again all the same, and finds the others.
        for part in ("server", "agent"):
            os.kill(min(mesh.processes_of(part)), signal.SIGKILL)
        until("another server and another agent run", lambda: len(self.parts()) == 4 and len(self.parts() & before) == 2,
              deadline=60)
        mesh.all_ready()
        # It asks Nomad in vain, and has what it kept. Only a server answers this.
        until("the agent speaks with a server",
              lambda: mesh.agent_api("GET", "/v1/catalog/services")[0] == 200, deadline=60)
        load.more(50)
        failures = load.stop()
        self.assertEqual(failures, [], f"{len(failures)} of {load.done} requests failed")
        mesh.command("intention", "create", "-deny", "-replace", "-wait", "count-dashboard", "count-api")
        self.assertFalse(self.counts())
        mesh.command("intention", "create", "-allow", "-replace", "-wait", "count-dashboard", "count-api")
        until("the dashboard counts", self.counts)
        # And they come again.
        mesh.start_part("nomad-server")
        mesh.addresses = []
        until("Nomad knows them as before", lambda: len(mesh.look()) == 3, deadline=60)
        mesh.all_ready()

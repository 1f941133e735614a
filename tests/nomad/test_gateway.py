"""Gateways, with gateway blocks as Nomad's documentation writes them."""

import json
import os
import unittest

from mesh import http_get, until
from nomad import NODE, NomadMesh, binary, job_file, missing, quiet

# Nomad compares what it registered with what stands here every 30 s.
SYNCS = 65


def reached(count):
    try:
        status, _, body = count()
    except OSError:
        return False
    except Exception as error:  # a connection that was closed without an answer
        if type(error).__name__ in ("RemoteDisconnected", "BadStatusLine", "IncompleteRead"):
            return False
        raise
    return status == 200 and "count" in json.loads(body)


class Gateway(unittest.TestCase):
    """One Nomad agent is server and client: what its server half writes goes to this node's agent."""

    job = ""  # its name, and its file's
    port = 0  # where the count is reached by the gateway
    row = {}  # what Nomad's servers write, by the gateway's name
    pair = ()  # whose intention decides

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh(cls.job)
        try:
            mesh.begin(server_extra="agents_write_gateways = true")
            mesh.run_job(job_file(cls.job))
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def count(self):
        return http_get(f"http://{NODE}:{self.port}/api")

    def intend(self, action):
        self.mesh.command("intention", "create", "-wait", "-replace", f"-{action}", *self.pair)

    def test_nomads_servers_wrote_the_gateway(self):
        for name, what in self.row.items():
            _, gateway = self.mesh.api("GET", f"/v1/gateways/{name}")
            self.assertEqual({key: gateway.get(key) for key in what}, what)

    def test_the_deployment_is_healthy_by_nomads_own_judgement(self):
        self.assertEqual(self.mesh.deployment(self.job)["Status"], "successful")

    def test_traffic_obeys_intentions(self):
        self.intend("allow")
        until("the count is reached", lambda: reached(self.count))
        self.intend("deny")
        until("it is not reached", lambda: not reached(self.count))
        self.intend("allow")
        until("it is reached again", lambda: reached(self.count))


@unittest.skipIf(missing(), missing())
class Ingress(Gateway):
    job = "gateway"
    port = 9003
    row = {"edge": {"ingress": {"listeners": [
        {"port": 9003, "services": [{"service": {"namespace": "default", "name": "count-api"}}]}]}}}
    pair = ("edge", "count-api")

    def test_left_alone_nomad_registers_nothing_again(self):
        before = self.mesh.registrations()
        self.assertEqual(before, 2)
        quiet(SYNCS)
        self.assertEqual(self.mesh.registrations(), before)


@unittest.skipIf(missing(), missing())
class Terminating(Gateway):
    """A service that is no part of the mesh, called through the gateway that stands for it."""

    job = "terminating"
    port = 9005
    row = {"out": {"terminating": {"services": [{"service": {"namespace": "default", "name": "count-api-out"}}]}}}
    # The service's own, as if it were in the mesh.
    pair = ("count-dashboard-out", "count-api-out")


del Gateway  # is no test itself


@unittest.skipIf(missing(), missing())
class AtTheServers(unittest.TestCase):
    """A Nomad server whose consul.address is a mesh server's HTTP API, as on a machine without an agent."""

    def test_nomads_server_writes_over_tls_with_an_operators_certificate(self):
        with NomadMesh("gateway-server") as mesh:
            mesh.servers()
            tls = mesh.folder / "tls"
            config = mesh.folder / "nomad.hcl"
            config.write_text(f'''data_dir  = "{mesh.run}/nomad"
bind_addr = "{NODE}"
server {{
  enabled          = true
  bootstrap_expect = 1
}}
consul {{
  address          = "{mesh.address(1)}:8700"
  ssl              = true
  ca_file          = "{tls}/cluster-ca.pem"
  cert_file        = "{tls}/cli-test.pem"
  key_file         = "{tls}/cli-test.key"
}}
disable_update_check = true
''')
            env = {name: "" for name in os.environ if name.startswith(("NOMAD_", "CONSUL_", "AWS_"))}
            mesh.start("nomad", [binary(), "agent", "-config", config], env=env)
            until(f"Nomad has a leader\n{mesh.tail('nomad')}", lambda: leader(mesh), deadline=60)
            mesh.run_job(job_file("gateway"), detach=True)
            _, gateway = mesh.api("GET", "/v1/gateways/edge")
            self.assertEqual(gateway["ingress"]["listeners"][0]["port"], 9003)
            log = mesh.processes["nomad"].log.read_text(errors="replace")
            for line in log.splitlines():
                self.assertFalse("[ERROR]" in line and "consul" in line, line)


def leader(mesh):
    try:
        return bool(mesh.api_nomad("/v1/status/leader"))
    except OSError:
        return False

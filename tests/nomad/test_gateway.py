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


@unittest.skipIf(missing(), missing())
class Ingress(unittest.TestCase):
    """One Nomad agent is server and client: what its server half writes goes to this node's agent."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("gateway")
        try:
            mesh.begin(server_extra="agents_write_gateways = true")
            cls.output = mesh.run_job(job_file("gateway"))
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def count(self):
        return http_get(f"http://{NODE}:9003/api")

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", "-replace", *arguments)

    def test_nomads_servers_wrote_the_gateway(self):
        _, gateway = self.mesh.api("GET", "/v1/gateways/edge")
        self.assertEqual(gateway["ingress"]["listeners"],
                         [{"port": 9003, "services": [{"service": {"namespace": "default", "name": "count-api"}}]}])

    def test_the_deployment_is_healthy_by_nomads_own_judgement(self):
        deployment = self.mesh.deployment("gateway")
        self.assertEqual(deployment["Status"], "successful")

    def test_traffic_obeys_intentions(self):
        self.create("-allow", "edge", "count-api")
        until("the count is reached from outside", lambda: reached(self.count))
        self.create("-deny", "edge", "count-api")
        until("it is not reached", lambda: not reached(self.count))
        self.create("-allow", "edge", "count-api")
        until("it is reached again", lambda: reached(self.count))

    def test_left_alone_nomad_registers_nothing_again(self):
        before = self.mesh.registrations()
        self.assertEqual(before, 2)
        quiet(SYNCS)
        self.assertEqual(self.mesh.registrations(), before)


@unittest.skipIf(missing(), missing())
class Terminating(unittest.TestCase):
    """A service that is no part of the mesh, called through the gateway that stands for it."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("terminating")
        try:
            mesh.begin(server_extra="agents_write_gateways = true")
            cls.output = mesh.run_job(job_file("terminating"))
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def count(self):
        return http_get(f"http://{NODE}:9005/api")

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", "-replace", *arguments)

    def test_nomads_servers_wrote_the_gateway(self):
        _, gateway = self.mesh.api("GET", "/v1/gateways/out")
        self.assertEqual(gateway["terminating"]["services"],
                         [{"service": {"namespace": "default", "name": "count-api-out"}}])

    def test_the_services_own_intentions_decide(self):
        self.create("-allow", "count-dashboard-out", "count-api-out")
        until("the dashboard counts through the gateway", lambda: reached(self.count))
        self.create("-deny", "count-dashboard-out", "count-api-out")
        until("it does not count", lambda: not reached(self.count))
        self.create("-allow", "count-dashboard-out", "count-api-out")
        until("it counts again", lambda: reached(self.count))

    def test_the_deployment_is_healthy_by_nomads_own_judgement(self):
        self.assertEqual(self.mesh.deployment("terminating")["Status"], "successful")


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
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
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

"""Gateways: calls from outside into the mesh, and calls of the mesh to the outside."""

import json
import socket
import ssl
import unittest

from mesh import Mesh, first_bytes, http_get, until

INGRESS = """
gateway "edge" {
  ingress {
    listener {
      port     = %(http)d
      protocol = "http"

      service {
        name  = "users"
        hosts = ["users.example", "*.users.example"]
      }

      service { name = "web" }
    }

    listener {
      port = %(tcp)d
      service { name = "db" }
    }
  }
}
"""


class Ingress(unittest.TestCase):
    """Without a job: the gateway is registered as Nomad registers it."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Mesh("ingress", default="deny")
        try:
            mesh.servers()
            mesh.agent()
            cls.host = host = mesh.address(10)
            cls.http, cls.tcp = next(mesh.ports), next(mesh.ports)
            for name in ("users", "web"):
                mesh.instance(name, port=mesh.app(name).port)
            mesh.instance("db", port=mesh.echo().port)
            cls.write(f'service "users" {{ protocol = "http" }}\nservice "web" {{ protocol = "http" }}\n'
                      + INGRESS % {"http": cls.http, "tcp": cls.tcp})
            cls.register()
            for name in ("users", "web", "db", "edge"):
                mesh.sidecar(name)
            for name in ("users", "web", "db"):
                mesh.wait_passing(name)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @classmethod
    def write(cls, text):
        (cls.mesh.folder / "mesh.hcl").write_text(text)
        return cls.mesh.command("apply", "-f", cls.mesh.folder / "mesh.hcl", "-auto-approve", "-wait")

    @classmethod
    def register(cls):
        status, answer = cls.mesh.agent_api("PUT", "/v1/agent/service/register", {
            "ID": "edge", "Name": "edge", "Kind": "ingress-gateway", "Port": cls.http, "Address": cls.host,
            "Proxy": {"Config": {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_addresses": {
                "users": {"Address": cls.host, "Port": cls.http}}}}})
        if status != 200:
            raise AssertionError(f"register: {status} {answer}")

    def setUp(self):
        for row in json.loads(self.mesh.command("intention", "list", "-o", "json")):
            self.mesh.command("intention", "delete", row["source"]["name"], row["destination"]["name"])

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", *arguments)

    def get(self, host, path="/", headers=None):
        return http_get(f"http://{self.host}:{self.http}{path}", headers={"Host": host, **(headers or {})})

    def test_a_host_is_a_service_and_its_intentions_decide(self):
        status, headers, _ = self.get("users.example")
        self.assertEqual(status, 403)
        self.assertIn("no intention matches", headers["x-mesh-denied"])
        self.create("-allow", "edge", "users")
        for host in ("users.example", "v1.users.example", f"users.example:{self.http}", "USERS.example"):
            status, _, body = self.get(host)
            self.assertEqual((status, json.loads(body)["app"]), (200, "users"), host)
        # The other service is another host, and has intentions of its own.
        self.assertEqual(self.get("web.ingress.dc1.consul")[0], 403)
        self.create("-allow", "edge", "web")
        status, _, body = self.get("web.ingress.dc1.consul")
        self.assertEqual((status, json.loads(body)["app"]), (200, "web"))
        status, headers, _ = self.get("other.example")
        self.assertEqual(status, 404)
        self.assertIn("no service has this host", headers["x-mesh-error"])
        self.create("-deny", "-replace", "edge", "users")
        self.assertEqual(self.get("users.example")[0], 403)

    def test_the_application_learns_who_calls_and_not_what_he_claims(self):
        self.create("-allow", "edge", "users")
        forged = {"x-mesh-source": "forged", "x-forwarded-for": "forged"}
        _, _, body = self.get("users.example", headers=forged)
        headers = {name.lower(): value for name, value in json.loads(body)["headers"].items()}
        self.assertTrue(headers["x-mesh-source"].endswith("/svc/edge"), headers)
        self.assertNotIn("forged", json.dumps(headers))

    def test_byte_streams(self):
        self.assertEqual(first_bytes(self.host, self.tcp, b"hello"), b"")
        self.create("-allow", "edge", "db")
        self.assertEqual(first_bytes(self.host, self.tcp, b"hello"), b"hello")

    def test_a_change_of_the_gateway_is_live(self):
        self.create("-allow", "edge", "web")
        text = (self.mesh.folder / "mesh.hcl").read_text()
        try:
            self.write(text.replace('"*.users.example"', '"more.example"').replace(
                'service { name = "web" }', 'service {\n name = "web"\n hosts = ["shop.example"]\n }'))
            until("the new host is there", lambda: self.get("shop.example")[0] == 200)
            self.assertEqual(self.get("web.ingress.dc1.consul")[0], 404)
        finally:
            self.write(text)
        until("the old host is there again", lambda: self.get("web.ingress.dc1.consul")[0] == 200)

    def test_what_the_catalog_and_the_status_show(self):
        _, rows = self.mesh.api("GET", "/v1/catalog/services/edge")
        self.assertEqual([row["gateway"] for row in rows], ["ingress"])
        _, answer = self.mesh.agent_api("GET", "/v1/agent/services")
        services = json.loads(answer)
        self.assertEqual(services["edge"]["Kind"], "ingress-gateway")
        self.assertNotIn("edge-sidecar-proxy", services)
        _, answer = self.mesh.agent_api("GET", "/v1/catalog/service/edge")
        self.assertEqual([row["ServiceKind"] for row in json.loads(answer)], ["ingress-gateway"])
        self.assertIn("edge", self.mesh.command("proxy", "status"))
        read = json.loads(self.mesh.command("config", "read", "-kind", "gateway", "-name", "edge"))
        self.assertEqual(len(read["ingress"]["listeners"]), 2)

    def test_a_service_that_a_gateway_needs_keeps_its_protocol(self):
        refused = self.mesh.command("config", "delete", "-kind", "service", "-name", "users", "-force", expect=None)
        self.assertEqual(refused.returncode, 1, refused.stdout)
        self.assertIn("gateway edge", refused.stdout + refused.stderr)


class IngressTls(unittest.TestCase):
    """TLS to the outside, with a certificate of the mesh's CA."""

    ENTRY = """service "users" { protocol = "http" }
gateway "edge" {
  ingress {
    tls { enabled = true }
    listener {
      port     = %d
      protocol = "http"
      service {
        name  = "users"
        hosts = [%s]
      }
    }
    listener {
      port = %d
      service { name = "db" }
    }
  }
}
intention "edge" "*" { action = "allow" }
"""

    def write(self, mesh, hosts):
        hosts = ", ".join(f'"{host}"' for host in hosts)
        (mesh.folder / "mesh.hcl").write_text(self.ENTRY % (self.http, hosts, self.tcp))
        mesh.command("apply", "-f", mesh.folder / "mesh.hcl", "-auto-approve", "-wait")

    def connect(self, mesh, name, port, roots):
        context = ssl.create_default_context(cadata=roots)
        raw = socket.create_connection((mesh.address(10), port), timeout=10)
        return context.wrap_socket(raw, server_hostname=name)

    def get(self, mesh, name, roots):
        with self.connect(mesh, name, self.http, roots) as tls:
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while True:
                chunk = tls.recv(65536)
                if not chunk:
                    break
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def test_names_are_certified_as_the_gateway_says(self):
        with Mesh("ingress-tls") as mesh:
            mesh.servers()
            mesh.agent()
            self.http, self.tcp = next(mesh.ports), next(mesh.ports)
            mesh.instance("users", port=mesh.app("users").port)
            mesh.instance("db", port=mesh.echo().port)
            self.write(mesh, ["users.example"])
            status, answer = mesh.agent_api("PUT", "/v1/agent/service/register", {
                "ID": "edge", "Name": "edge", "Kind": "ingress-gateway", "Port": self.http,
                "Address": mesh.address(10)})
            self.assertEqual(status, 200, answer)
            for name in ("users", "db", "edge"):
                mesh.sidecar(name)
            mesh.wait_passing("users")
            mesh.wait_passing("db")
            _, roots = mesh.api("GET", "/v1/ca/roots")
            roots = "\n".join(one["pem"] for one in roots["roots"])

            def certified(name):
                try:
                    return self.get(mesh, name, roots)
                except ssl.SSLCertVerificationError:
                    return None
            status, body = until("the name is certified", lambda: certified("users.example"))
            self.assertEqual(status, 200)
            headers = json.loads(body)["headers"]
            self.assertEqual(headers["x-forwarded-proto"], "https")
            self.assertTrue(headers["x-mesh-source"].endswith("/svc/edge"))
            with self.connect(mesh, "db.ingress.dc1.consul", self.tcp, roots) as tls:
                tls.sendall(b"hello")
                self.assertEqual(tls.recv(5), b"hello")
            self.assertIsNone(certified("more.example"))
            # A new name is in the certificate without a restart.
            self.write(mesh, ["users.example", "more.example"])
            status, _ = until("the new name is certified", lambda: certified("more.example"))
            self.assertEqual(status, 200)


class Terminating(unittest.TestCase):
    """Services outside are called at the gateway that stands for them."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Mesh("terminating", default="deny")
        try:
            mesh.servers()
            mesh.agent()
            cls.host = host = mesh.address(10)
            cls.gate = next(mesh.ports)
            # The servers outside: one plain, one over TLS that wants a certificate.
            cls.plain, echo = mesh.app("legacy"), mesh.echo()
            mesh.cert("server", "s7")
            cls.secure = mesh.app("secure", host=mesh.address(7))
            tls = mesh.folder / "tls"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server-s7.pem", tls / "server-s7.key")
            context.load_verify_locations(tls / "cluster-ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
            cls.secure.server.socket = context.wrap_socket(cls.secure.server.socket, server_side=True)
            for name, address, port in (("legacy", host, cls.plain.port), ("db", host, echo.port),
                                        ("secure", mesh.address(7), cls.secure.port)):
                cls.register({"ID": name, "Name": name, "Address": address, "Port": port})
            cls.write(f'''
service "legacy" {{ protocol = "http" }}
service "secure" {{ protocol = "http" }}
gateway "out" {{
  terminating {{
    service {{ name = "legacy" }}
    service {{ name = "db" }}
    service {{
      name      = "secure"
      ca_file   = "{tls}/cluster-ca.pem"
      cert_file = "{tls}/cli-test.pem"
      key_file  = "{tls}/cli-test.key"
    }}
  }}
}}
''')
            cls.register({"ID": "out", "Name": "out", "Kind": "terminating-gateway", "Address": host,
                          "Port": cls.gate})
            mesh.instance("web", upstreams=[("legacy", 9001), ("db", 9002), ("secure", 9003)])
            for name in ("out", "web"):
                mesh.sidecar(name)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @classmethod
    def write(cls, text):
        (cls.mesh.folder / "mesh.hcl").write_text(text)
        cls.mesh.command("apply", "-f", cls.mesh.folder / "mesh.hcl", "-auto-approve", "-wait")

    @classmethod
    def register(cls, body):
        status, answer = cls.mesh.agent_api("PUT", "/v1/agent/service/register", body)
        if status != 200:
            raise AssertionError(f"register: {status} {answer}")

    def setUp(self):
        for row in json.loads(self.mesh.command("intention", "list", "-o", "json")):
            self.mesh.command("intention", "delete", row["source"]["name"], row["destination"]["name"])

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", *arguments)

    def get(self, port):
        return http_get(f"http://{self.host}:{port}/a?b=1")

    def test_the_services_own_intentions_decide(self):
        until("the gateway is known to the callers", lambda: self.get(9001)[0] == 403)
        self.create("-allow", "web", "legacy")
        status, _, body = self.get(9001)
        self.assertEqual(status, 200, body)
        self.assertEqual(json.loads(body)["app"], "legacy")
        self.assertNotIn("x-mesh-source", json.loads(body)["headers"])
        # To be allowed to one is not to be allowed to another at the same gateway.
        self.assertEqual(self.get(9003)[0], 403)
        self.assertEqual(first_bytes(self.host, 9002, b"hello"), b"")
        self.create("-allow", "web", "db")
        self.assertEqual(first_bytes(self.host, 9002, b"hello"), b"hello")
        self.create("-deny", "-replace", "web", "legacy")
        self.assertEqual(self.get(9001)[0], 403)

    def test_tls_is_spoken_to_the_outside(self):
        self.create("-allow", "web", "secure")
        status, _, body = until("the gateway is there", lambda: (lambda got: got if got[0] == 200 else None)(
            self.get(9003)))
        self.assertEqual((status, json.loads(body)["app"]), (200, "secure"))

    def test_the_callers_find_the_gateway(self):
        _, status = self.mesh.api("GET", "/v1/catalog/services/out")
        self.assertEqual([row["gateway"] for row in status], ["terminating"])


class EntriesOfNomad(unittest.TestCase):
    """Where Nomad's servers write: at a server, or at an agent that passes it on."""

    ENTRY = {"Kind": "ingress-gateway", "Name": "edge", "TLS": {"Enabled": False}, "CreateIndex": 0,
             "ModifyIndex": 0, "Listeners": [{"Port": 8080, "Protocol": "tcp", "Services": [
                 {"Name": "db", "Hosts": None, "TLS": {"SDS": {}}, "RequestHeaders": {}, "ResponseHeaders": {}}]}]}

    def test_an_agent_passes_it_on_only_where_the_servers_let_it(self):
        with Mesh("entries") as mesh:
            mesh.servers()
            mesh.agent()

            def refused():
                status, answer = mesh.agent_api("PUT", "/v1/config", self.ENTRY)
                return status == 403 and b"agents_write_gateways" in answer
            until("the agent is told that it may not", refused)
            self.assertEqual(mesh.api("PUT", "/v1/config", self.ENTRY)[0], 200)
            _, gateway = mesh.api("GET", "/v1/gateways/edge")
            self.assertEqual(gateway["ingress"]["listeners"][0]["port"], 8080)
            mesh.command("config", "delete", "-kind", "ingress-gateway", "-name", "edge", "-force")
            mesh.processes["s1"].stop()
            mesh.server(extra="agents_write_gateways = true")
            mesh.ready()

            def passed_on():
                status, answer = mesh.agent_api("PUT", "/v1/config", self.ENTRY)
                return (status, answer) == (200, b"true")
            until("the agent passes it on", passed_on)
            _, gateway = mesh.api("GET", "/v1/gateways/edge")
            self.assertEqual(gateway["ingress"]["listeners"][0]["port"], 8080)
            status, _ = mesh.agent_api("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "web"})
            self.assertEqual(status, 403)

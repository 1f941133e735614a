"""Traffic from service to service through two sidecars."""

import base64
import collections
import hashlib
import json
import os
import socket
import ssl
import struct
import unittest

from mesh import Mesh, first_bytes, http_get, until

ROUTED = """
service "users" {
  protocol = "http"

  subset "v1" { meta = { version = "v1" } }
  subset "v2" { meta = { version = "v2" } }

  load_balancer = "round_robin"
}

route "users" {
  rule "canary" {
    match { path_prefix = "/split/" }

    to "v1" { weight = 75 }
    to "v2" { weight = 25 }
  }

  rule "header" {
    match {
      header "x-version" { exact = "v2" }
    }
    match {
      query "version" { exact = "v2" }
    }

    to "v2" {}
  }

  rule "slow" {
    match { path_exact = "/slow" }

    timeout = "300ms"
  }

  rule "flaky" {
    match { path_prefix = "/flaky" }

    retries {
      attempts = 4
      on       = ["5xx", "connect-failure"]
    }
  }
}

service "db" {
  protocol = "tcp"
}
"""


class Traffic(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Mesh("traffic", default="allow")
        try:
            cls.build(mesh)
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def build(cls, mesh):
        cls.failures = collections.Counter()

        def users(handler):
            if handler.path == "/slow":
                import threading
                threading.Event().wait(1.5)
            if handler.path.startswith("/flaky"):
                cls.failures[handler.path] += 1
                if cls.failures[handler.path] % 3:
                    handler.answer(500, b"flaky")
                    return True
            if handler.path == "/ws":
                websocket(handler)
                return True
            return False

        mesh.servers()
        mesh.agent()
        apps = {version: mesh.app(version, behave=users) for version in ("v1", "v2")}
        cls.apps = apps
        echo = mesh.echo()
        for version, app in apps.items():
            mesh.instance(f"users-{version}", service="users", port=app.port, meta={"version": version})
        mesh.instance("db", port=echo.port)
        mesh.instance("web", upstreams=[("users", 9001), ("db", 9002), ("nobody", 9003)])
        folder = mesh.folder / "policy"
        folder.mkdir()
        (folder / "mesh.hcl").write_text(ROUTED)
        mesh.command("apply", "-f", folder, "-auto-approve")
        for name in ("users-v1", "users-v2", "db", "web"):
            mesh.sidecar(name)
        mesh.wait_passing("users", 2)
        mesh.wait_passing("db")
        cls.host = mesh.address(10)
        cls.url = f"http://{cls.host}:9001"
        until("both versions answer", lambda: {cls.app_of("/") for _ in range(6)} == {"v1", "v2"})

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    @classmethod
    def get(cls, path, **options):
        status, headers, body = http_get(cls.url + path, **options)
        return status, headers, json.loads(body) if body.startswith(b"{") else body

    @classmethod
    def app_of(cls, path, **options):
        status, headers, body = cls.get(path, **options)
        assert status == 200, (status, headers, body)
        return body["app"]

    def test_the_application_sees_who_called_and_a_trace(self):
        _, _, body = self.get("/hello?x=1", headers={"traceparent": "junk", "x-mesh-source": "spiffe://forged/x"})
        seen = body["headers"]
        self.assertEqual(body["path"], "/hello?x=1")
        self.assertRegex(seen["traceparent"], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
        self.assertRegex(seen["x-mesh-source"], r"^spiffe://[^/]+\.mesh/ns/default/dc/dc1/svc/web$")
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        _, _, body = self.get("/", headers={"traceparent": trace})
        self.assertEqual(body["headers"]["traceparent"][:36], trace[:36])

    def test_weights(self):
        seen = collections.Counter(self.app_of("/split/x") for _ in range(200))
        # 75 : 25 by weights that are drawn; six standard deviations around 50.
        self.assertTrue(13 <= seen["v2"] <= 87, seen)

    def test_header_and_query_rules(self):
        self.assertEqual({self.app_of("/", headers={"x-version": "v2"}) for _ in range(6)}, {"v2"})
        self.assertEqual({self.app_of("/?version=v2") for _ in range(6)}, {"v2"})

    def test_retries_hide_a_flaky_instance(self):
        for number in range(5):
            self.assertEqual(self.get(f"/flaky{number}")[0], 200)

    def test_a_timeout_is_504_and_says_so(self):
        status, headers, _ = self.get("/slow")
        self.assertEqual(status, 504)
        self.assertIn("x-mesh-error", headers)

    def test_bodies_both_ways(self):
        body = os.urandom(3_000_000)
        status, _, told = self.get("/big", method="POST", body=body)
        self.assertEqual((status, told["bytes"]), (200, len(body)))

    def test_head_and_no_content(self):
        status, headers, body = self.get("/", method="HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertIn("content-length", headers)

    def test_byte_streams(self):
        with socket.create_connection((self.host, 9002), timeout=10) as stream:
            data = os.urandom(1_000_000)
            import threading
            sender = threading.Thread(target=lambda: (stream.sendall(data), stream.shutdown(socket.SHUT_WR)))
            sender.start()
            back = b"".join(iter(lambda: stream.recv(65536), b""))
            sender.join()
        self.assertEqual(hashlib.sha256(back).digest(), hashlib.sha256(data).digest())

    def test_web_socket(self):
        with socket.create_connection((self.host, 9001), timeout=10) as stream:
            key = base64.b64encode(os.urandom(16)).decode()
            stream.sendall(f"GET /ws HTTP/1.1\r\nHost: users\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            reader = stream.makefile("rb")
            self.assertIn(b"101", reader.readline())
            while reader.readline() not in (b"\r\n", b""):
                pass
            for text in (b"one", b"two"):
                mask = os.urandom(4)
                stream.sendall(struct.pack("!BB", 0x81, 0x80 | len(text)) + mask
                               + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
                head = reader.read(2)
                self.assertEqual(reader.read(head[1]), text)

    def test_a_service_without_instances_says_so(self):
        # Of protocol tcp, since nobody said otherwise: the connection is closed.
        self.assertEqual(first_bytes(self.host, 9003), b"")

    def test_an_instance_that_refuses_is_avoided(self):
        mesh = self.mesh
        dead = socket.create_server((mesh.address(10), 0))
        port = dead.getsockname()[1]
        mesh.instance("users-dead", service="users", port=port, meta={"version": "v1"}, checks=False)
        process = mesh.sidecar("users-dead")
        # Its sidecar goes without a word: the catalog still says passing.
        process.kill()
        dead.close()
        statuses = collections.Counter(self.get("/")[0] for _ in range(60))
        self.assertEqual(statuses, {200: 60})

    def test_nothing_but_mtls_is_taken(self):
        inbound = self.inbound_port("users-v1")
        self.assertNotIn(b"200", first_bytes(self.host, inbound, b"GET / HTTP/1.1\r\nHost: users\r\n\r\n"))
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection((self.host, inbound), timeout=10) as stream:
            with self.assertRaises((ssl.SSLError, OSError)):
                with context.wrap_socket(stream) as secure:
                    secure.sendall(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n")
                    answer = secure.recv(1000)
                    if answer == b"":
                        raise OSError("closed")

    def inbound_port(self, instance):
        _, rows = self.mesh.api("GET", "/v1/catalog/services/users")
        rows = rows if isinstance(rows, list) else rows["instances"]
        return next(row["proxy"]["port"] for row in rows if row["id"] == instance)

    def test_metrics_and_config(self):
        self.app_of("/")
        admin = self.mesh.processes["web-proxy"].admin
        _, _, text = http_get(f"http://{admin}/metrics")
        self.assertRegex(text.decode(), r'mesh_requests_total\{[^}]*destination="users"[^}]*\} [1-9]')
        status, _, config = http_get(f"http://{admin}/config")
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(config)["config"]["service"]["name"], "web")

    def test_the_access_log_names_source_and_destination(self):
        self.app_of("/logged")
        log = self.mesh.processes["web-proxy"].out
        def found():
            for line in log.read_text().splitlines():
                row = json.loads(line)
                if row.get("path") == "/logged":
                    return row
        row = until("the request in the access log", found)
        self.assertEqual((row["source"], row["destination"], row["status"]), ("web", "users", 200))


def websocket(handler):
    """Echoes masked text frames of a WebSocket (RFC 6455) until it ends."""
    accept = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(accept.encode()).digest()).decode())
    handler.end_headers()
    handler.close_connection = True
    while len(head := handler.rfile.read(2)) == 2:
        size = head[1] & 0x7F
        mask = handler.rfile.read(4)
        text = bytes(b ^ mask[i % 4] for i, b in enumerate(handler.rfile.read(size)))
        handler.wfile.write(struct.pack("!BB", 0x81, len(text)) + text)
        handler.wfile.flush()


if __name__ == "__main__":
    unittest.main()

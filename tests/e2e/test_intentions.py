"""Who may call whom, as the sidecars enforce it and as meshctl explains it."""

import http.client
import json
import socket
import time
import unittest

from mesh import Mesh, first_bytes, http_get, until


class Intentions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Mesh("intentions", default="deny")
        try:
            mesh.servers()
            mesh.agent()
            app, echo = mesh.app("users"), mesh.echo()
            mesh.instance("users", port=app.port)
            mesh.instance("db", port=echo.port)
            mesh.instance("web", upstreams=[("users", 9001), ("db", 9002)])
            (mesh.folder / "users.hcl").write_text('service "users" {\n  protocol = "http"\n}\n')
            mesh.command("config", "write", mesh.folder / "users.hcl")
            for name in ("users", "db", "web"):
                mesh.sidecar(name)
            mesh.wait_passing("users")
            mesh.wait_passing("db")
        except BaseException:
            mesh.__exit__(True, None, None)
            raise
        cls.host = mesh.address(10)

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def setUp(self):
        for row in json.loads(self.mesh.command("intention", "list", "-o", "json")):
            self.mesh.command("intention", "delete", row["source"]["name"], row["destination"]["name"])

    def get(self, path="/", method="GET", headers=None):
        return http_get(f"http://{self.host}:9001{path}", method=method, headers=headers)

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", *arguments)

    def test_default_deny_then_allow_then_deny(self):
        status, headers, _ = self.get()
        self.assertEqual(status, 403)
        self.assertIn("no intention matches", headers["x-mesh-denied"])
        self.assertEqual(self.create("-allow", "web", "users"), "Created: web => users (allow)\n")
        self.assertEqual(self.get()[0], 200)
        began = time.monotonic()
        self.create("-deny", "-replace", "web", "users")
        status, headers, _ = self.get()
        self.assertEqual(status, 403)
        self.assertIn("web => users (deny)", headers["x-mesh-denied"])
        self.assertLess(time.monotonic() - began, 5)

    def test_exit_codes_and_explanations(self):
        self.mesh.command("intention", "check", "web", "users", expect=1)
        self.create("-allow", "web", "users")
        self.assertEqual(self.mesh.command("intention", "check", "web", "users").strip(), "Allowed")
        explained = self.mesh.command("intention", "check", "-explain", "web", "users")
        self.assertIn("web => users", explained)
        self.mesh.command("intention", "create", "-allow", "web", "users", expect=1)
        self.assertEqual(self.mesh.command("intention", "delete", "web", "users"), "Intention deleted.\n")

    def test_get_and_list_as_consul_prints_them(self):
        self.create("-allow", "web", "users")
        self.assertRegex(self.mesh.command("intention", "get", "web", "users"),
                         r"\ASource: +web\nDestination: +users\nAction: +allow\n"
                         r"Created At: +\w+day, \d\d-\w{3}-\d\d \d\d:\d\d:\d\d UTC\n\Z")
        lines = self.mesh.command("intention", "list").splitlines()
        self.assertEqual([line.split() for line in lines],
                         [["ID", "Source", "Action", "Destination", "Precedence"], ["web", "allow", "users", "9"]])
        _, row = self.mesh.api("GET", "/v1/intentions/web/users")
        self.assertEqual(row["created_at"], row["modified_at"])
        self.create("-deny", "-replace", "web", "users")
        status, body = self.mesh.agent_api("GET", "/v1/connect/intentions/exact?source=web&destination=users")
        shown = json.loads(body)
        self.assertEqual((status, shown["CreatedAt"]), (200, row["created_at"]))
        self.assertGreater(shown["UpdatedAt"], row["modified_at"])

    def permissions(self):
        text = ('intention "web" "users" {\n'
                '  permission {\n    action = "deny"\n    path_prefix = "/public/secret"\n  }\n'
                '  permission {\n    action = "allow"\n    methods = ["GET"]\n    path_prefix = "/public/"\n  }\n}\n')
        (self.mesh.folder / "l7.hcl").write_text(text)
        self.mesh.command("config", "write", self.mesh.folder / "l7.hcl")

    def test_permissions_on_normal_paths(self):
        self.permissions()
        until("the permission is enforced", lambda: self.get("/public/a")[0] == 200)
        for path, method, status in [
            ("/public/a", "GET", 200),
            ("/public/a", "POST", 403),
            ("/private", "GET", 403),
            ("/public/../private", "GET", 403),
            ("/public/%2e%2e/private", "GET", 403),
            ("//public/secret", "GET", 403),
            ("/public/./secret", "GET", 403),
            ("/public//secret", "GET", 403),
            ("/public/%73ecret", "GET", 403),
            ("/public/a%2fb", "GET", 400),
            ("/public/a%00", "GET", 400),
        ]:
            with self.subTest(path=path, method=method):
                self.assertEqual(self.get(path, method)[0], status)
        depends = self.mesh.command("intention", "check", "web", "users", expect=None)
        self.assertEqual(depends.returncode, 1)
        self.assertIn("Denied (depends on the request: 2 permissions; add -method and -path)", depends.stdout)
        self.mesh.command("intention", "check", "web", "users", "-method", "GET", "-path", "/public/a")
        self.mesh.command("intention", "check", "web", "users", "-method", "GET", "-path", "/public/../x", expect=1)

    def test_a_new_deny_cuts_a_live_stream_within_a_second(self):
        self.create("-allow", "web", "db")
        with socket.create_connection((self.host, 9002), timeout=10) as stream:
            stream.sendall(b"ping")
            self.assertEqual(stream.recv(10), b"ping")
            self.mesh.command("intention", "create", "-deny", "-replace", "web", "db")
            committed = time.monotonic()
            try:
                self.assertEqual(stream.recv(10), b"")
            except ConnectionError:
                pass
            self.assertLess(time.monotonic() - committed, 1.0)
        self.assertEqual(first_bytes(self.host, 9002, b"ping"), b"")

    def test_a_denial_is_logged_with_the_intention(self):
        self.create("-deny", "web", "users")
        self.assertEqual(self.get("/denied-here")[0], 403)
        log = self.mesh.processes["users-proxy"].out
        until("the denial in the destination's log",
              lambda: any("/denied-here" in line and "web => users" in line for line in log.read_text().splitlines()))

    def test_live_everywhere(self):
        self.create("-allow", "web", "users")
        rows = json.loads(self.mesh.command("proxy", "status", "-o", "json"))
        self.assertIn("users-sidecar-proxy", json.dumps(rows))


class OlderSidecar(unittest.TestCase):
    """A sidecar that speaks one level less beside the others."""

    def test_denies_what_it_does_not_understand_and_says_so(self):
        with Mesh("older", default="allow") as mesh:
            mesh.servers()
            mesh.agent()
            app = mesh.app("users")
            mesh.instance("users", port=app.port)
            mesh.instance("web", upstreams=[("users", 9001)])
            mesh.instance("job", upstreams=[("users", 9011)])
            (mesh.folder / "users.hcl").write_text(
                'service "users" {\n  protocol = "http"\n}\n'
                'intention "web" "users" {\n  permission {\n    action = "allow"\n    path_prefix = "/"\n  }\n}\n')
            mesh.command("config", "write", mesh.folder / "users.hcl")
            mesh.sidecar("users", options=["-without-feature", "permissions"])
            mesh.sidecar("web")
            mesh.sidecar("job")
            mesh.wait_passing("users")
            host = mesh.address(10)
            # What the policy's unknown part does not cover goes on.
            until("job may call", lambda: http_get(f"http://{host}:9011/")[0] == 200)
            status, headers, _ = http_get(f"http://{host}:9001/")
            self.assertEqual(status, 403)
            self.assertIn("does not know", headers["x-mesh-denied"])
            until("proxy status says so",
                  lambda: "needs permissions" in mesh.command("proxy", "status", "-o", "json"))

class OlderAgent(unittest.TestCase):
    """An agent that speaks one level less beside the others."""

    def test_keeps_the_last_route_that_it_understood_and_says_so(self):
        with Mesh("older-agent", default="allow") as mesh:
            mesh.servers()
            mesh.agent(options=["-without-feature", "retries"])
            apps = {version: mesh.app(version) for version in ("v1", "v2")}
            for version, app in apps.items():
                mesh.instance(f"users-{version}", service="users", port=app.port, meta={"version": version})
            mesh.instance("web", upstreams=[("users", 9001)])
            policy = mesh.folder / "users.hcl"

            def write(version, more=""):
                policy.write_text(
                    'service "users" {\n  protocol = "http"\n'
                    '  subset "v1" { meta = { version = "v1" } }\n  subset "v2" { meta = { version = "v2" } }\n}\n'
                    f'route "users" {{\n  rule "all" {{\n    to "{version}" {{}}\n{more}  }}\n}}\n')
                mesh.command("config", "write", policy)

            write("v1")
            for name in ("users-v1", "users-v2"):
                mesh.sidecar(name)
            # As old as its agent: what the agent leaves aside, it need not know.
            mesh.sidecar("web", options=["-without-feature", "retries"])
            host = mesh.address(10)

            def answers():
                status, _, body = http_get(f"http://{host}:9001/")
                return json.loads(body)["app"] if status == 200 else status

            until("the route is known", lambda: answers() == "v1")
            write("v2", "    retries {\n      attempts = 2\n    }\n")
            until("proxy status says what is missing",
                  lambda: "needs retries" in mesh.command("proxy", "status", "-o", "json"))
            self.assertEqual({answers() for _ in range(10)}, {"v1"})
            # After a restart too, and a sidecar that starts then gets it.
            mesh.processes["a10"].kill()
            mesh.processes["a10"].restart()
            mesh.processes["web-proxy"].stop()
            mesh.sidecar("web", options=["-without-feature", "retries"])
            until("the route is known again", lambda: answers() == "v1")
            self.assertEqual({answers() for _ in range(10)}, {"v1"})
            # A deny is taken all the same: intentions pass through the agent unread.
            mesh.command("intention", "create", "-deny", "web", "users")
            until("the deny is enforced", lambda: answers() == 403)
            mesh.command("intention", "delete", "web", "users")
            # What it understands again is followed again.
            write("v2")
            until("the new route is followed", lambda: answers() == "v2")


if __name__ == "__main__":
    unittest.main()

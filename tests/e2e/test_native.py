"""Applications that are in the mesh by themselves: plain TLS with what they ask their agent for."""

import json
import pathlib
import socket
import subprocess
import sys
import unittest
import uuid

from mesh import Mesh, until
from workload import Issuer

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "lib" / "native.py"


class Native(unittest.TestCase):
    def begin(self, mesh):
        self.mesh = mesh
        mesh.servers()
        self.nomad = Issuer(mesh.folder, mesh.address(10))
        mesh.apps.append(self.nomad)
        mesh.agent(extra=f'nomad {{\n  address = "{self.nomad.address}"\n}}\n')

    def register(self, service, port=0):
        """A native service of an allocation, as Nomad registers it; the environment of its task."""
        allocation = str(uuid.uuid4())
        token = self.nomad.login(self.mesh, allocation, service)
        body = {"ID": f"_nomad-task-{allocation}-group-g-{service}-http", "Name": service,
                "Meta": {"external-source": "nomad"}, "Check": None, "Checks": [], "Connect": {"Native": True}}
        if port:
            body.update(Port=port, Address=self.mesh.address(10))
        status, answer = self.mesh.agent_api("PUT", "/v1/agent/service/register", body,
                                             headers={"X-Consul-Token": token})
        self.assertEqual(status, 200, answer)
        return {"CONSUL_HTTP_ADDR": f"http://{self.mesh.doors['a10']}:8500", "CONSUL_HTTP_TOKEN": token}

    def run_native(self, env, *arguments, fails=False):
        run = subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], env=env, capture_output=True,
                             text=True, timeout=100)
        self.assertEqual(run.returncode != 0, fails, run.stdout + run.stderr)
        return run.stdout.strip() if not fails else run.stderr

    def serve(self, service):
        port = next(self.mesh.ports)
        env = self.register(service, port)
        process = self.mesh.start(service, [sys.executable, PROGRAM, "serve", service, self.mesh.address(10), port],
                                  env=env)
        until(f"{service} listens\n{process.tail()}", lambda: "listening" in process.out.read_text())
        return process

    def seen(self, process):
        return [json.loads(line) for line in process.out.read_text().splitlines() if line.startswith("{")]

    def test_a_native_service_is_called_by_a_sidecar_and_by_another_one(self):
        with Mesh("native-server") as mesh:
            self.begin(mesh)
            pay = self.serve("pay")
            at = next(mesh.ports)
            mesh.instance("web", upstreams=[("pay", at)])
            mesh.sidecar("web")
            mesh.wait_passing("pay")

            def said():
                """What comes back; nothing when it is closed."""
                with socket.create_connection((mesh.address(10), at), timeout=20) as stream:
                    stream.sendall(b"hello\n")
                    stream.shutdown(socket.SHUT_WR)
                    got = b""
                    while data := stream.recv(1000):
                        got += data
                    return got

            def answered():
                try:
                    return said()
                except ConnectionError:
                    return b""

            # By default nobody may, and the application is told so when it asks.
            until("it was asked for", lambda: answered() == b"" and self.seen(pay))
            refused = self.seen(pay)[0]
            self.assertTrue(refused["caller"].endswith("/svc/web"), refused)
            self.assertFalse(refused["Authorized"], refused)
            mesh.command("intention", "create", "-allow", "web", "pay")
            until("it answers", lambda: answered() == b"hello\n")
            self.assertIsNone(self.seen(pay)[-1]["alpn"])

            # Another native service, by what the agent says of the instances.
            shop = self.register("shop")
            self.run_native(shop, "call", "shop", "pay", "hi", fails=True)
            mesh.command("intention", "create", "-allow", "shop", "pay")
            until("the agent knows it", lambda: subprocess.run(
                [sys.executable, PROGRAM, "call", "shop", "pay", "hi"], env=shop, capture_output=True,
                text=True, timeout=60).stdout == "hi\n")

    def test_a_native_client_calls_sidecars(self):
        with Mesh("native-client") as mesh:
            self.begin(mesh)
            mesh.command("apply", "-auto-approve", "-f", "-", stdin='service "api" {\n  protocol = "http"\n}\n'
                         'intention "shop" "api" {\n  permission {\n    action = "allow"\n    path_prefix = "/open/"\n'
                         '  }\n}\nintention "shop" "store" {\n  action = "allow"\n}\n')
            mesh.instance("api", port=mesh.app("api").port)
            mesh.instance("store", port=mesh.echo().port)
            mesh.sidecar("api")
            mesh.sidecar("store")
            mesh.wait_passing("api")
            mesh.wait_passing("store")
            shop, other = self.register("shop"), self.register("other")
            answer = json.loads(self.run_native(shop, "get", "shop", "api", "/open/a"))
            self.assertEqual(answer["status"], 200, answer)
            told = json.loads(answer["body"])
            self.assertEqual(told["app"], "api")
            self.assertTrue(told["headers"]["x-mesh-source"].endswith("/svc/shop"), told)
            # Request by request, as of any caller.
            answer = json.loads(self.run_native(shop, "get", "shop", "api", "/closed"))
            self.assertEqual(answer["status"], 403, answer)
            self.assertIn("shop => api", answer["denied"])
            answer = json.loads(self.run_native(other, "get", "other", "api", "/open/a"))
            self.assertEqual(answer["status"], 403, answer)
            self.assertEqual(self.run_native(shop, "call", "shop", "store", "hello"), "hello")
            self.run_native(other, "call", "other", "store", "hello", fails=True)

    def test_a_certificate_is_its_own_workloads_and_is_renewed(self):
        with Mesh("native-leaf", leaf_ttl="20s") as mesh:
            self.begin(mesh)
            pay, shop = self.register("pay"), self.register("shop")
            first = json.loads(self.run_native(pay, "leaf", "pay", 0))
            for env, reason in (
                ({**pay, "CONSUL_HTTP_TOKEN": ""}, "no token came"),
                ({**pay, "CONSUL_HTTP_TOKEN": str(uuid.uuid4())}, "not one that this agent gave"),
                (shop, "the token is that of shop"),
            ):
                said = self.run_native(env, "leaf", "pay", 0, fails=True)
                self.assertIn("403", said)
                self.assertIn(reason, said)
            # The next one comes when the first is half over.
            second = json.loads(self.run_native(pay, "leaf", "pay", first["ModifyIndex"]))
            self.assertNotEqual(second["SerialNumber"], first["SerialNumber"])
            self.assertNotEqual(second["PrivateKeyPEM"], first["PrivateKeyPEM"])
            self.assertEqual(second["ServiceURI"], first["ServiceURI"])
            self.assertLess(second["ValidAfter"], first["ValidBefore"])
            # No key stands anywhere on disk.
            for secret in (first, second):
                key = secret["PrivateKeyPEM"].splitlines()[1]
                for file in (mesh.folder / "a10").rglob("*"):
                    if file.is_file():
                        self.assertNotIn(key.encode(), file.read_bytes(), file)

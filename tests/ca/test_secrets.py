"""What is secret stands where it must, and nowhere else: not in logs at their finest, answers, metrics,
dumps, snapshots, state, or argument lists."""

import base64
import http.client
import json
import pathlib
import re
import shutil
import socket
import unittest

from mesh import HttpApp, Mesh, http_get, until
from test_import import intermediate, openssl

TRACE = 'log_level = "trace"\n'


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("agent", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def forms(secret):
    """The bytes of a secret in whatever they may stand: as they are, hex, base64."""
    hexed = secret.hex()
    return [secret, hexed.encode(), hexed.upper().encode(), base64.b64encode(secret).rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"=")]


def private_key(path):
    """The scalar of an EC key in PEM, and a line of its text."""
    text = re.sub(r"-----.*?-----|\s", "", path.read_text())
    der = base64.b64decode(text)
    at = der.index(b"\x04\x20") + 2  # an octet string of 32 bytes, in SEC 1 as in PKCS 8
    return forms(der[at:at + 32]) + [text[-44:].encode()]


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl, which makes the root")
class Secrets(unittest.TestCase):
    def test_they_stand_nowhere_else(self):
        with Mesh("secrets", servers=3, default="allow") as mesh:
            corp = mesh.folder / "corp"
            corp.mkdir()
            root = corp / "root.crt", corp / "root.key"
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", root[1], "-out", root[0],
                    "-days", "3000", "-subj", "/O=Corp/CN=Root")
            chain, key = intermediate(corp, "first", root)
            register = mesh.folder / "register-token"
            register.write_text("c0ffee-register-token-of-this-test\n")
            register.chmod(0o600)
            for number in (1, 2, 3):
                mesh.server(number, extra=TRACE)
            mesh.ready()
            mesh.command("ca", "import", "-cert", chain, "-key", key)
            mesh.agent(extra=TRACE + f'register_token_file = "{register}"\n')
            app = HttpApp("web", mesh.address(10))
            mesh.apps.append(app)
            mesh.instance("web", port=app.port)
            mesh.instance("caller", upstreams=[("web", 9100)])
            sidecars = [mesh.sidecar(name, options=["-l", "trace"]) for name in ("web", "caller")]
            mesh.wait_passing("web")
            until("a call goes through", lambda: http_get(f"http://{mesh.address(10)}:9100/")[0] == 200)
            token = register.read_text().strip()
            wrong = mesh.agent_api("PUT", "/v1/agent/service/register", {"Name": ""}, headers={"X-Consul-Token": token})
            self.assertEqual(wrong[0], 400)
            asked = OverSocket(f"{mesh.run}/a10.sock")
            asked.request("POST", "/v1/proxy/bootstrap", json.dumps({"sidecar_for": "web"}),
                          {"Content-Type": "application/json"})
            answer = asked.getresponse()
            bootstrap = answer.read().decode()
            self.assertEqual(answer.status, 200, bootstrap)
            ticket = re.search(r'"(?:mesh_)?ticket"\s*:\s*"([^"]{20,})"', bootstrap)[1]

            needles = {"the intermediate's key": private_key(key), "the register token": [token.encode()],
                       "a ticket": [ticket.encode()],
                       "the sealing key": [line.strip().encode() for line in mesh.sealing.read_text().splitlines()
                                           if len(line.strip()) >= 32]}
            for path in sorted((mesh.folder / "tls").glob("*.key")):
                needles[path.name] = private_key(path)
            self.assertGreaterEqual(len(needles["the sealing key"]), 1)

            shown = mesh.folder / "shown"
            shown.mkdir()
            for number, command in enumerate((
                    "ca status", "ca status -o json", "ca config read -o json", "ca roots -o json", "ca leaves -o json",
                    "ca revocations -o json", "catalog services -o json", "catalog nodes -o json", "proxy status -o json",
                    "operator raft list-peers -o json", "intention list -o json", "status -o json")):
                (shown / f"{number}").write_text(mesh.command(*command.split()))
            mesh.command("snapshot", "save", shown / "snapshot")
            (shown / "inspect").write_text(mesh.command("snapshot", "inspect", shown / "snapshot", "-o", "json"))
            for number, path in enumerate(("/v1/ca/status", "/v1/ca/config", "/v1/ca/roots", "/v1/status", "/v1/catalog/nodes")):
                (shown / f"api-{number}").write_text(json.dumps(mesh.api("GET", path)[1]))
            for number, path in enumerate(("/v1/agent/self", "/v1/agent/services", "/v1/agent/checks", "/metrics", "/ready",
                                           "/v1/agent/connect/ca/roots")):
                (shown / f"agent-{number}").write_bytes(mesh.agent_api("GET", path)[1])
            for sidecar in sidecars:
                for path in ("config", "metrics", "ready"):
                    (shown / f"{sidecar.name}-{path}").write_text(str(http_get(f"http://{sidecar.admin}/{path}")))
            lines = b""
            for process in mesh.processes.values():
                lines += pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
                self.assertGreater(process.log.stat().st_size, 1000, f"{process.name} logs")
            (shown / "arguments").write_bytes(lines)

            for name in list(mesh.processes):
                mesh.processes[name].stop()
            # Where they are meant to be.
            theirs = {mesh.sealing, register, key}
            found = []
            for path in mesh.folder.rglob("*"):
                if not path.is_file() or path in theirs or path.parent in (mesh.folder / "tls", corp):
                    continue
                data = path.read_bytes()
                found += [f"{what} in {path.relative_to(mesh.folder)}" for what, forms_ in needles.items()
                          for form in forms_ if form in data]
            self.assertEqual(found, [])
            # It would have been found.
            (shown / "told").write_bytes(b"x" + base64.b64encode(private_key(key)[0]) + b"x")
            self.assertTrue(any(form in (shown / "told").read_bytes() for form in needles["the intermediate's key"]))

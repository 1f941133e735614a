"""The image of agent/proxy/Dockerfile, without Docker: its last stage in an empty root.

The program runs there as Nomad starts it in a container: the same arguments, the same user, the
bootstrap in /secrets and the agent behind alloc/tmp/consul_grpc.sock, which Nomad passes on.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import threading
import unittest

from mesh import ROOT, Mesh, http_get, until

STATIC = pathlib.Path(os.environ.get("MESH_STATIC", "/nowhere"))
USER = "101:101"


def changed_root():
    """The words before a program that give it a root of its own, or None where that cannot be."""
    if os.geteuid() == 0:
        return ["chroot", f"--userspec={USER}"]
    if subprocess.run(["unshare", "--map-root-user", "true"], capture_output=True).returncode == 0:
        return ["unshare", "--map-root-user", "chroot"]
    return None


def stage():
    """The lines of the last stage, as (instruction, rest)."""
    text = (ROOT / "agent" / "proxy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(at for at, line in enumerate(lines) if line.startswith("FROM "))
    return [tuple(line.split(None, 1)) for line in lines[last:]]


class Passed:
    """Nomad's alloc/tmp/consul_grpc.sock: bytes to the agent and back."""

    def __init__(self, path, host, port):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        path.chmod(0o777)
        self.listener.listen()
        self.to = (host, port)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


class Image(unittest.TestCase):
    def setUp(self):
        self.program = STATIC / "mesh-proxy"
        if not self.program.exists():
            self.skipTest("MESH_STATIC names no folder with a static mesh-proxy; tests/image/run builds one")

    def test_the_program_needs_no_other_file(self):
        # Without an interpreter nothing is loaded before it, and with no NEEDED nothing beside it.
        said = subprocess.run(["readelf", "--wide", "--program-headers", "--dynamic", self.program],
                              capture_output=True, text=True, check=True).stdout
        self.assertIn("LOAD", said)
        self.assertNotIn("INTERP", said)
        self.assertNotIn("(NEEDED)", said)

    def test_the_stage_is_one_that_this_file_plays(self):
        lines = stage()
        self.assertEqual([word for word, _ in lines], ["FROM", "COPY", "USER", "ENTRYPOINT"])
        self.assertEqual(lines[0][1], "scratch AS mesh-proxy")
        self.assertEqual(lines[2][1], USER)

    def root(self, folder):
        root = folder / "root"
        root.mkdir(mode=0o755)
        for word, rest in stage():
            if word == "COPY":
                source, target = re.fullmatch(r"--from=build /(\S+) /(\S+)", rest).groups()
                shutil.copy2(STATIC / source, root / target)
        return root

    def entry(self, root, *arguments):
        before = changed_root()
        if before is None:
            self.skipTest("no root, and no user namespaces: a root of its own cannot be given")
        words = json.loads(dict(stage())["ENTRYPOINT"])
        return [*before, root, *words, *map(str, arguments)]

    def test_it_runs_in_an_empty_root_and_serves_a_request(self):
        with Mesh("image", default="allow") as mesh:
            os.chmod(mesh.run, 0o755)
            root = self.root(mesh.run)
            version = subprocess.run(self.entry(root, "-version"), capture_output=True, text=True, timeout=60)
            self.assertRegex(version.stdout, r"^mesh-proxy \d", version.stderr)

            mesh.servers()
            mesh.agent()
            mesh.instance("web", port=mesh.app("web").port)
            mesh.instance("front", upstreams=[("web", 9001)])
            mesh.sidecar("front")
            # What a container has besides, and what Nomad puts into it.
            (root / "dev").mkdir()
            try:
                for name, minor in (("null", 3), ("random", 8), ("urandom", 9)):
                    os.mknod(root / "dev" / name, stat.S_IFCHR, os.makedev(1, minor))
                    os.chmod(root / "dev" / name, 0o666)
            except PermissionError:
                self.skipTest("/dev/random cannot be made: root is needed")
            for name in ("alloc/tmp", "secrets"):
                (root / name).mkdir(mode=0o777, parents=True)
            passed = Passed(root / "alloc" / "tmp" / "consul_grpc.sock", mesh.doors["a10"], 8502)
            self.addCleanup(passed.close)
            admin = f"{mesh.address(10)}:19000"
            bootstrap = self.bootstrap(mesh, {"proxy_id": "web-sidecar-proxy", "admin": admin,
                                              "grpc_addr": "unix://alloc/tmp/consul_grpc.sock"})
            file = root / "secrets" / "envoy_bootstrap.json"
            file.write_bytes(bootstrap)
            file.chmod(0o644)
            mesh.start("web-proxy", self.entry(root, "-c", "/secrets/envoy_bootstrap.json", "-l", "info",
                                               "--concurrency", 1, "--disable-hot-restart"))
            until(f"it is ready\n{mesh.tail('web-proxy')}", lambda: http_get(f"http://{admin}/ready")[0] == 200)
            status, _, body = until("a call goes through", lambda: (
                lambda it: it if it[0] == 200 else None)(http_get(f"http://{mesh.address(10)}:9001/hello")))
            self.assertEqual((status, json.loads(body)["path"]), (200, "/hello"))

    @staticmethod
    def bootstrap(mesh, asked):
        """As the shim asks for it, at the agent's own socket."""
        body = json.dumps(asked).encode()
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(f"{mesh.run}/a10.sock")
            head = ("POST /v1/proxy/bootstrap?wait=20s HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
            stream.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        return body

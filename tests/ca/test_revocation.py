"""A service or a leaf is revoked while traffic flows: its connections end within a second, and nobody else's."""

import json
import socket
import threading
import time
import unittest

from mesh import Load, Mesh, http_get, until
from test_vault import pair

# What is promised.
PROMISED = 1.0


class Stream:
    """A byte stream through the mesh that is in use; notes when it ends."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=60)
        self.ended = None
        assert self.echoes()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def echoes(self):
        self.socket.sendall(b"x")
        return self.socket.recv(1) == b"x"

    def _read(self):
        try:
            while self.socket.recv(100):
                pass
        except OSError:
            pass
        self.ended = time.monotonic()

    def end(self):
        """When it ended."""
        self.thread.join(30)
        self.socket.close()
        return self.ended


def rows(mesh, *what):
    return json.loads(mesh.command("ca", *what, "-o", "json"))


def revoke(mesh, **body):
    """Revokes, and answers when that was acknowledged."""
    mesh.api("POST", "/v1/ca/revoke", body)
    return time.monotonic()


def status(host, port):
    return http_get(f"http://{host}:{port}/")[0]


def stream(host, port):
    def probe():
        try:
            return Stream(host, port)
        except (OSError, AssertionError):
            return None
    return until("a byte stream", probe)


def world(mesh):
    """web calls users (HTTP) and echo (bytes); shop calls stock, which is nobody's business here."""
    host, port = pair(mesh)
    mesh.instance("echo", port=mesh.echo().port)
    mesh.sidecar("echo")
    stock = mesh.app("stock")
    mesh.instance("stock", port=stock.port)
    mesh.instance("shop", upstreams=[("stock", 9005)])
    mesh.instance("far", upstreams=[("echo", 9003), ("users", 9004)])
    for name in ("stock", "shop", "far"):
        mesh.sidecar(name)
    for name in ("echo", "stock"):
        mesh.wait_passing(name)
    until("traffic", lambda: status(host, 9005) == 200 and status(host, 9004) == 200)
    return host, port


class Revocation(unittest.TestCase):
    def test_a_service_in_both_directions_and_over_a_restart(self):
        with Mesh("revoke-service", default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            host, port = world(mesh)
            load = Load(host, 9005)
            load.more(50)

            # The calling one.
            live = stream(host, 9003)
            acknowledged = revoke(mesh, service={"name": "far"}, reason="odd calls")
            self.assertLess(live.end() - acknowledged, PROMISED)
            until("it is refused", lambda: status(host, 9004) == 503)
            self.assertEqual(status(host, port), 200)
            listed = mesh.command("ca", "revocations")
            self.assertIn("far", listed)
            self.assertIn("odd calls", listed)
            until("its leaf is listed", lambda: rows(mesh, "leaves", "far"))
            self.assertTrue(all(leaf["revoked"] for leaf in rows(mesh, "leaves", "far")))
            self.assertFalse(any(leaf["revoked"] for leaf in rows(mesh, "leaves", "users")))

            # It stays so, whoever starts again; and its leaf is not renewed.
            server = mesh.processes["s1"]
            server.stop()
            server.restart()
            mesh.ready()
            self.assertEqual([row["service"] for row in rows(mesh, "revocations")], ["far"])
            until("it is refused", lambda: status(host, 9004) == 503)
            mesh.command("ca", "unrevoke", "-service", "far")
            until("it is good again", lambda: status(host, 9004) == 200)

            # The called one.
            live = stream(host, 9003)
            acknowledged = revoke(mesh, service={"name": "echo"})
            self.assertLess(live.end() - acknowledged, PROMISED)
            mesh.command("ca", "revoke", "-service", "users", "-wait")
            until("it is refused", lambda: (status(host, port), status(host, 9004)) == (503, 503))
            for name in ("users", "echo"):
                mesh.command("ca", "unrevoke", "-service", name, "-wait")
            until("it is good again", lambda: status(host, port) == 200)
            stream(host, 9003)
            self.assertEqual(rows(mesh, "revocations"), [])

            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_a_leaf_is_replaced_by_one_of_another_key(self):
        with Mesh("revoke-leaf", default="allow", leaf_ttl="10m") as mesh:
            mesh.servers()
            host, port = world(mesh)
            load = Load(host, 9005)
            load.more(50)
            for name, calls in (("far", 9004), ("echo", None)):
                leaf = until("its leaf is listed", lambda: rows(mesh, "leaves", name))[0]
                self.assertEqual(leaf["proxy"], f"{name}-sidecar-proxy")
                live = stream(host, 9003)
                acknowledged = revoke(mesh, serial=leaf["serial"], reason="stolen")
                self.assertLess(live.end() - acknowledged, PROMISED)
                # At once, and not when the old one would be renewed.
                next_leaf = until("another leaf", lambda: [
                    one for one in rows(mesh, "leaves", name) if not one["revoked"]])[0]
                self.assertNotEqual(next_leaf["serial"], leaf["serial"])
                self.assertIn("asks for another one, with another key", mesh.processes[f"{name}-proxy"].log.read_text())
                stream(host, 9003)
                if calls:
                    until("traffic", lambda: status(host, calls) == 200)
            # Over a restart of the agent the sidecars prove themselves by their new keys.
            agent = mesh.processes["a10"]
            agent.stop()
            agent.restart()
            until("they are back", lambda: all(
                one["connected"] for one in mesh.api("GET", "/v1/proxies")[1]["proxies"]))
            revoked = {row["serial"] for row in rows(mesh, "revocations")}
            self.assertEqual(len(revoked), 2)
            mesh.command("ca", "revoke", "-serial", "nonsense", expect=1)
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_a_sidecar_that_was_away_begins_anew(self):
        with Mesh("revoke-away", default="allow", leaf_ttl="10m") as mesh:
            mesh.servers()
            host, port = world(mesh)
            leaf = until("its leaf is listed", lambda: rows(mesh, "leaves", "far"))[0]
            # No agent: it does not hear of it; the others do not, either.
            agent = mesh.processes["a10"]
            agent.stop()
            sidecar = mesh.processes["far-proxy"]
            revoke(mesh, serial=leaf["serial"])
            agent.restart()
            # Its key proves nothing any more, or it hears of it before it is asked for a proof.
            def settled():
                if not sidecar.running():
                    return True
                return any(not one["revoked"] for one in rows(mesh, "leaves", "far"))
            until("it ended, or has another key", settled)
            if not sidecar.running():
                self.assertIn("must be started with a new ticket", sidecar.log.read_text())
                mesh.sidecar("far")
            until("traffic", lambda: status(host, 9004) == 200)

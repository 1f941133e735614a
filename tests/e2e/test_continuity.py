"""No request fails because a part of the mesh renews, restarts or is away."""

import json
import time
import unittest

from mesh import Load, Mesh, http_get, until


def pair(mesh):
    """A service and one that calls it; answers the caller's host and port."""
    mesh.agent()
    app = mesh.app("users")
    mesh.instance("users", port=app.port)
    mesh.instance("web", upstreams=[("users", 9001)])
    protocol(mesh)
    mesh.sidecar("users")
    mesh.sidecar("web")
    mesh.wait_passing("users")
    host = mesh.address(10)
    until("traffic", lambda: http_get(f"http://{host}:9001/")[0] == 200)
    return host, 9001


def protocol(mesh):
    (mesh.folder / "users.hcl").write_text('service "users" {\n  protocol = "http"\n}\n')
    mesh.command("config", "write", mesh.folder / "users.hcl")


def leaf_end(process):
    _, _, text = http_get(f"http://{process.admin}/metrics")
    for line in text.decode().splitlines():
        if line.startswith("mesh_leaf_expiry_timestamp_seconds"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError("no mesh_leaf_expiry_timestamp_seconds")


class Continuity(unittest.TestCase):
    def test_leaves_of_seconds_renew_under_load(self):
        with Mesh("renewal", default="allow", leaf_ttl="6s") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            load = Load(host, port)
            proxies = [mesh.processes[name] for name in ("users-proxy", "web-proxy")]
            first = [leaf_end(one) for one in proxies]
            for _ in range(3):
                until("both leaves renewed", lambda: all(
                    leaf_end(one) > before for one, before in zip(proxies, first)))
                first = [leaf_end(one) for one in proxies]
            # Past the end of every leaf that was there when the load began.
            until("the first leaves have ended", lambda: time.time() > first[0])
            load.more(200)
            self.assertEqual(load.stop(), [])

    def test_agent_stays_away_for_longer_than_leaves_live(self):
        with Mesh("agent-away", default="allow", leaf_ttl="10s") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            proxies = [mesh.processes[name] for name in ("users-proxy", "web-proxy")]
            agent = mesh.processes["a10"]
            agent.stop()
            # Several renewals are due, and all fail.
            ends = max(leaf_end(one) for one in proxies)
            until("the leaves have ended", lambda: time.time() > ends + 1)
            agent.restart()
            until("both have new leaves", lambda: all(leaf_end(one) > time.time() for one in proxies))
            until("traffic", lambda: http_get(f"http://{host}:{port}/")[0] == 200)
            # And go on renewing.
            first = [leaf_end(one) for one in proxies]
            until("both renewed again", lambda: all(
                leaf_end(one) > before for one, before in zip(proxies, first)))

    def test_agent_restarts(self):
        with Mesh("agent-restart", default="allow") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            load = Load(host, port)
            load.more(100)
            agent = mesh.processes["a10"]
            for end in (agent.stop, agent.kill):
                end()
                load.more(100)
                agent.restart()
                until("the agent answers", lambda: mesh.agent_api("GET", "/v1/agent/self")[0] == 200)
                for name in ("users", "web"):
                    until(f"{name} is connected again", lambda: connected(mesh, f"{name}-sidecar-proxy"))
            # A change still arrives, with the streams that were opened anew.
            mesh.command("intention", "create", "-wait", "-allow", "web", "users")
            load.more(100)
            self.assertEqual(load.stop(), [])

    def test_server_restarts_and_stays_away(self):
        with Mesh("server-restart", default="allow") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            load = Load(host, port)
            load.more(100)
            server = mesh.processes["s1"]
            server.kill()
            load.more(200)
            # An agent that restarts while every server is away answers from its disk.
            agent = mesh.processes["a10"]
            agent.kill()
            agent.restart()
            until("the agent answers without servers",
                  lambda: b"users" in mesh.agent_api("GET", "/v1/agent/services")[1])
            # The sidecars come back to it, and run what it compiles of its disk.
            until("the sidecars are back", lambda: sidecars(mesh) == 2)
            load.more(100)
            server.restart()
            mesh.ready()
            mesh.command("intention", "create", "-wait=30s", "-allow", "web", "users")
            load.more(100)
            self.assertEqual(load.stop(), [])

    def test_restore_under_traffic(self):
        with Mesh("restore", default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            protocol(mesh)
            # Of a time when neither the node nor anything on it was known.
            before = mesh.folder / "before.snap"
            mesh.command("snapshot", "save", before)
            host, port = pair(mesh)
            after = mesh.folder / "after.snap"
            mesh.command("snapshot", "save", after)
            load = Load(host, port)
            load.more(100)
            proxies = [mesh.processes[name] for name in ("users-proxy", "web-proxy")]
            for file in (before, after):
                mesh.command("snapshot", "restore", file)
                leaves = [leaf_end(one) for one in proxies]
                load.more(100)
                _, nodes = mesh.api("GET", "/v1/catalog/nodes")
                self.assertEqual([node["state"] for node in nodes], ["alive"])
                mesh.wait_passing("users")
                # What is written in the new epoch arrives, and is acked.
                mesh.command("intention", "create", "-replace", "-wait=30s", "-allow", "web", "users")
                # The servers still know whose the proxies are.
                until("both leaves renewed", lambda: all(
                    leaf_end(one) > old for one, old in zip(proxies, leaves)))
                load.more(100)
            self.assertEqual(load.stop(), [])

    def test_an_acked_deny_survives_a_crash_of_the_agent(self):
        with Mesh("acked-deny", default="allow") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            facts = mesh.folder / "a10" / "facts.json"
            until("no write of the agent's is under way", lambda: time.time() - facts.stat().st_mtime > 1)
            mesh.command("intention", "create", "-wait", "-deny", "web", "users")
            # At once: what was not on disk when it was acked is lost.
            mesh.processes["a10"].kill()
            mesh.processes["s1"].kill()
            self.assertEqual(http_get(f"http://{host}:{port}/")[0], 403)
            mesh.processes["a10"].restart()
            until("the agent answers without servers", lambda: mesh.agent_api("GET", "/ready")[0] == 200)
            until("the sidecars are back", lambda: sidecars(mesh) == 2)
            # What they are sent now, they have soon.
            end = time.monotonic() + 2
            while time.monotonic() < end:
                self.assertEqual(http_get(f"http://{host}:{port}/")[0], 403)

    def test_a_sidecar_drains(self):
        with Mesh("drain", default="allow") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            app = mesh.app("users-2")
            mesh.instance("users-2", service="users", port=app.port)
            mesh.sidecar("users-2")
            mesh.wait_passing("users", 2)
            load = Load(host, port)
            until("both answer", lambda: len(mesh.apps[-1].requests) > 5)
            self.assertEqual(mesh.processes["users-2-proxy"].stop(), 0)
            load.more(100)
            self.assertEqual(load.stop(), [])


def sidecars(mesh):
    """How many have a stream to the agent, by its own word."""
    return json.loads(mesh.agent_api("GET", "/ready")[1])["proxies_connected"]


def connected(mesh, proxy):
    rows = json.loads(mesh.command("proxy", "status", "-o", "json"))
    text = json.dumps(rows)
    rows = rows if isinstance(rows, list) else rows.get("proxies", [])
    assert proxy in text, text
    return any(row.get("proxy") == proxy and row.get("connected") for row in rows)


if __name__ == "__main__":
    unittest.main()

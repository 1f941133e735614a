"""What Nomad says to its Consul, in its order and in its words, without Nomad.

The client's side is played from Nomad's contract: what it sends, what it reads back, and by which
rules it then decides that it must send again. What it executes is executed as it does it. The network
plugin's part is in test_cni.py.
"""

import http.server
import json
import os
import re
import socket
import socketserver
import stat
import subprocess
import tempfile
import threading
import time
import unittest
import uuid
from pathlib import Path

from mesh import MESHCTL, PROXY, Mesh, http_get, until

CHECK = "_nomad-check-"
UPSTREAM = ("Datacenter", "DestinationName", "LocalBindAddress", "LocalBindPort", "DestinationPeer",
            "DestinationPartition", "DestinationType", "LocalBindSocketPath", "LocalBindSocketMode")
SIDECAR_CHECK = re.compile(r"^service:_nomad-.+-sidecar-proxy(:\d+)?$")


class Client:
    """Nomad's client, as far as its Consul sees it."""

    def __init__(self, mesh, agent="a10"):
        self.mesh, self.agent = mesh, agent
        self.services = {}
        self.sent = []

    def call(self, method, path, body=None, want=200):
        status, answer = self.mesh.agent_api(method, path, body, agent=self.agent)
        if status != want:
            raise AssertionError(f"{method} {path}: {status} {answer}")
        return json.loads(answer) if answer else None

    def fingerprint(self):
        """The attributes that it takes from /v1/agent/self; without them no job is placed."""
        own = self.call("GET", "/v1/agent/self")
        # It is decoded as a map of maps: anything else breaks all of it.
        for key, value in own.items():
            assert value is None or isinstance(value, dict), key
        version = own["Config"]["Version"].strip()
        numbers = [int(part) for part in re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:\+\w+)?", version).groups()]
        assert numbers >= [1, 8, 0], version
        assert "ent" not in version, "Nomad would ask for namespaces"
        grpc = own["DebugConfig"]["GRPCPort"]
        assert isinstance(grpc, int) and grpc > 0, grpc
        assert isinstance(own["Config"]["Server"], bool)
        assert own["DebugConfig"]["ConnectEnabled"] is True
        build = own["Member"]["Tags"]["build"]
        assert build.count(":") == 1, build
        assert isinstance(own["Member"]["Tags"]["segment"], str)
        assert own["xDS"]["SupportedProxies"]["envoy"], "newest first; images are named by it"
        for text in ("NodeName", "Datacenter", "Revision"):
            assert isinstance(own["Config"][text], str), text
        return {"consul.grpc": grpc, "consul.datacenter": own["Config"]["Datacenter"], "consul.version": version}

    def sync(self, probation=False):
        """One round: what is not there, or different, is sent again, what is too much is taken away."""
        seen = self.call("GET", "/v1/agent/services")
        for id in [] if probation else sorted(seen):
            if id.startswith("_nomad-task-") and not id.endswith("-sidecar-proxy") and id not in self.services:
                if f"{id}-sidecar-proxy" in seen:
                    self.call("PUT", f"/v1/agent/service/deregister/{id}-sidecar-proxy")
                self.call("PUT", f"/v1/agent/service/deregister/{id}")
                self.sent.append(("deregister", id))
        for id, service in self.services.items():
            if id not in seen or different(service, seen[id], seen):
                known = "?replace-existing-checks=true" if id in seen else ""
                self.call("PUT", f"/v1/agent/service/register{known}", service)
                self.sent.append(("register", id))
        checks = self.call("GET", "/v1/agent/checks")
        wanted = {check["CheckID"]: id for id, service in self.services.items() for check in service["Checks"]}
        for id, check in checks.items():
            ours = check["ServiceID"].startswith("_nomad-task-") and id.startswith(CHECK)
            if ours and id not in wanted and not SIDECAR_CHECK.match(id):
                self.call("PUT", f"/v1/agent/check/deregister/{id}")
                self.sent.append(("deregister check", id))
        for id, service in wanted.items():
            if id not in checks:
                body = next(one for one in self.services[service]["Checks"] if one["CheckID"] == id)
                self.call("PUT", "/v1/agent/check/register", {**body, "ID": id, "ServiceID": service})
                self.sent.append(("register check", id))
        return checks

    def healthy(self):
        """As a deployment's health is told: all of the job's checks, and those of its sidecars."""
        checks = self.call("GET", "/v1/agent/checks")
        own = [one for one in checks.values() if one["ServiceID"] in self.services]
        sidecars = [one for one in checks.values() if one["ServiceID"].removesuffix("-sidecar-proxy") in self.services
                    and one["ServiceID"].endswith("-sidecar-proxy")]
        wanted = {check["CheckID"] for service in self.services.values() for check in service["Checks"]}
        return (wanted <= {one["CheckID"] for one in own} and sidecars
                and all(one["Status"] == "passing" for one in own + sidecars))


def different(service, seen, all_seen):
    """Nomad's own rules: whether it sends the service anew."""
    for field, other in (("Kind", "Kind"), ("ID", "ID"), ("Port", "Port"), ("Address", "Address"),
                         ("Name", "Service"), ("EnableTagOverride", "EnableTagOverride")):
        if (service.get(field) or None) != (seen.get(other) or None):
            return f"{field}: {service.get(field)!r} is {seen.get(other)!r}"
    if (service.get("Meta") or {}) != (seen.get("Meta") or {}):
        return "Meta"
    addresses = {key: value for key, value in (seen.get("TaggedAddresses") or {}).items()
                 if key in (service.get("TaggedAddresses") or {})
                 or key not in ("lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6")}
    if (service.get("TaggedAddresses") or {}) != addresses:
        return "TaggedAddresses"
    if (service.get("Weights") or {"Passing": 1, "Warning": 1}) != seen.get("Weights"):
        return "Weights"
    if set(service.get("Tags") or ()) != set(seen.get("Tags") or ()):
        return "Tags"
    wanted = ((service.get("Connect") or {}).get("SidecarService"))
    if wanted is None:
        return None
    sidecar = all_seen.get(f"{service['ID']}-sidecar-proxy")
    if sidecar is None:
        return "there is no sidecar"
    if set(wanted.get("Tags") or service.get("Tags") or ()) != set(sidecar.get("Tags") or ()):
        return "the sidecar's tags"
    ours, theirs = wanted["Proxy"].get("Upstreams") or [], sidecar["Proxy"].get("Upstreams") or []
    if len(ours) != len(theirs):
        return "Upstreams"
    for one, other in zip(ours, theirs):
        for field in UPSTREAM:
            if (one.get(field) or None) != (other.get(field) or None):
                return f"an upstream's {field}"
        if (one.get("MeshGateway") or {}).get("Mode") != (other.get("MeshGateway") or {}).get("Mode"):
            return "an upstream's gateway"
        # reflect.DeepEqual of maps: none and an empty one are two.
        if one.get("Config") != other.get("Config"):
            return "an upstream's config"
    return None


class Allocation:
    """A service with a sidecar, an upstream and checks, as Nomad's client builds it."""

    def __init__(self, mesh, name="count-dashboard", upstream="count-api"):
        self.mesh, self.name = mesh, name
        self.id = str(uuid.uuid4())
        self.service = f"_nomad-task-{self.id}-group-dashboard-{name}-9002"
        self.host = mesh.address(10)
        self.app = mesh.app(name)
        self.inbound, self.upstream = next(mesh.ports), next(mesh.ports)
        self.script = f"{CHECK}{uuid.uuid4().hex * 2}"
        self.folder = Path(tempfile.mkdtemp(prefix="alloc-", dir=mesh.folder))
        self.admin = (f"{self.host}:{next(mesh.ports)}", f"{self.host}:{next(mesh.ports)}")
        self.calls = upstream

    def registration(self):
        alias = f"Connect Sidecar Aliasing {self.service}"
        return {
            "ID": self.service, "Name": self.name, "Tags": ["blue"], "Port": self.app.port, "Address": self.host,
            "Meta": {"external-source": "nomad"}, "Check": None,
            "Checks": [
                {"CheckID": f"{CHECK}{uuid.uuid5(uuid.NAMESPACE_DNS, self.id).hex * 2}", "Name": "api-health",
                 "Interval": "1s", "Timeout": "3s", "HTTP": f"http://{self.host}:{self.app.port}/health"},
                {"CheckID": self.script, "Name": "script", "TTL": "41s", "Status": "critical"},
            ],
            "Connect": {"SidecarService": {
                "Port": self.inbound, "Address": self.host, "Check": None,
                "Checks": [{"Name": alias, "AliasService": self.service},
                           {"Name": "Connect Sidecar Listening", "Interval": "10s",
                            "TCP": f"{self.host}:{self.inbound}"}],
                "Proxy": {
                    "LocalServiceAddress": self.host,
                    "Config": {"bind_address": self.host, "bind_port": self.inbound,
                               "envoy_stats_tags": [f"nomad.alloc_id={self.id}", "nomad.group=dashboard",
                                                    "nomad.job=countdash", "nomad.namespace=default"]},
                    "Upstreams": [
                        {"DestinationName": self.calls, "LocalBindAddress": self.host,
                         "LocalBindPort": self.upstream, "MeshGateway": {}},
                        {"DestinationName": "other", "DestinationType": "service", "LocalBindAddress": self.host,
                         "LocalBindPort": next(self.mesh.ports), "MeshGateway": {"Mode": "local"},
                         "Config": {"connect_timeout_ms": 1000, "limits": {"max_connections": 3}}}],
                    "MeshGateway": {}, "Expose": {}}}},
        }

    def command(self, consul, token=None, http_addr=None):
        """Exactly what Nomad executes before each start of the sidecar."""
        return [consul, "connect", "envoy", "-grpc-addr", f"{self.mesh.doors['a10']}:8502",
                "-http-addr", http_addr or f"{self.mesh.doors['a10']}:8500", "-admin-bind", self.admin[0],
                "-address", self.admin[1], "-proxy-id", f"{self.service}-sidecar-proxy", "-bootstrap",
                *(["-token", token] if token else [])]

    def environment(self):
        """No PATH, no HOME."""
        return {"NOMAD_ALLOC_ID": self.id, "NOMAD_SHORT_ALLOC_ID": self.id[:8],
                "NOMAD_ALLOC_NAME": "countdash.dashboard[0]", "NOMAD_GROUP_NAME": "dashboard",
                "NOMAD_JOB_NAME": "countdash", "NOMAD_JOB_ID": "countdash", "NOMAD_NAMESPACE": "default",
                "NOMAD_REGION": "global", "CONSUL_HTTP_SSL": "false"}

    def bootstrap(self, consul, token=None):
        """(exit code, the bootstrap's path, standard error), each file as Nomad opens it."""
        out, err = self.folder / "envoy_bootstrap.json", self.folder / "envoy_bootstrap.stderr.0"
        flags = os.O_WRONLY | os.O_CREAT
        with os.fdopen(os.open(out, flags | os.O_TRUNC, 0o600), "wb") as stdout, \
                os.fdopen(os.open(err, flags, 0o600), "wb") as stderr:
            code = subprocess.run(self.command(consul, token), env=self.environment(), cwd="/", stdout=stdout,
                                  stderr=stderr, stdin=subprocess.DEVNULL, timeout=90).returncode
        return code, out, err.read_text()


class Conversation(unittest.TestCase):
    def test_from_the_fingerprint_to_the_end(self):
        with Mesh("conversation", default="allow") as mesh:
            mesh.servers()
            mesh.agent()
            consul = mesh.run / "consul"
            consul.symlink_to(MESHCTL)
            nomad = Client(mesh)
            attributes = nomad.fingerprint()
            self.assertEqual(attributes["consul.grpc"], 8502)
            self.assertEqual(nomad.call("GET", "/v1/catalog/datacenters"), [attributes["consul.datacenter"]])
            # As it looks for its servers.
            path = "/v1/catalog/service/nomad?tag=rpc&dc=dc1&stale=&near=_agent&wait=2000ms"
            until("a server is connected, and knows none", lambda: nomad.call("GET", path) == [])

            # One that nobody registers is waited for as long as the shim waits, beside all the rest.
            never, began = Allocation(mesh), time.monotonic()
            waiting = subprocess.Popen(never.command(consul), env=never.environment(), cwd="/",
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.addCleanup(waiting.kill)

            one = Allocation(mesh)
            service = one.registration()
            nomad.services[one.service] = service
            nomad.sync(probation=True)
            self.assertEqual(nomad.sent, [("register", one.service)])
            for _ in range(4):  # it finds what it sent
                checks = nomad.sync()
            self.assertEqual(nomad.sent, [("register", one.service)])
            sidecar = f"{one.service}-sidecar-proxy"
            self.assertEqual({id for id, check in checks.items() if check["ServiceID"] == sidecar},
                             {f"service:{sidecar}:1", f"service:{sidecar}:2"})
            self.assertTrue(all(SIDECAR_CHECK.match(id) for id in checks if not id.startswith(CHECK)))

            # A script's result.
            self.assertEqual(checks[one.script]["Status"], "critical")
            nomad.call("PUT", f"/v1/agent/check/update/{one.script}", {"Status": "passing", "Output": "all well"})
            said = nomad.call("GET", "/v1/agent/checks")[one.script]
            self.assertEqual((said["Status"], said["Output"]), ("passing", "all well"))
            until("the application's check passes", lambda: all(
                check["Status"] == "passing" for id, check in nomad.call("GET", "/v1/agent/checks").items()
                if id.startswith(CHECK)))
            self.assertFalse(nomad.healthy(), "there is no sidecar yet")

            # The bootstrap, with a token that may be the client's own.
            secret = str(uuid.uuid4())
            (one.folder / "envoy_bootstrap.stderr.0").write_text("x" * 5000)  # of an earlier try
            code, path, said = one.bootstrap(consul, token=secret)
            self.assertEqual((code, said), (0, ""), "the file is cut first")
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            text = path.read_text()
            self.assertNotIn(secret, text)
            self.assertEqual(json.loads(text)["node"]["id"], sidecar)

            # The sidecar's task, and the health that a deployment waits for.
            env = {**one.environment(), "NOMAD_ALLOC_DIR": str(one.folder), "NOMAD_SECRETS_DIR": str(one.folder)}
            proxy = mesh.start("sidecar", [PROXY, "-c", path, "-l", "info", "--concurrency", "1",
                                           "--disable-hot-restart"], env=env)
            until(f"ready\n{proxy.tail()}", lambda: http_get(f"http://{one.admin[0]}/ready")[0] == 200)
            self.assertEqual(http_get(f"http://{one.admin[1]}/ready")[0], 200)
            until("the deployment is healthy", nomad.healthy)

            # The client starts again: it runs the hook for a live sidecar, which is left alone.
            code, _, said = one.bootstrap(consul)
            self.assertEqual((code, said), (0, ""))
            nomad.sync()
            self.assertTrue(proxy.running() and nomad.healthy())
            self.assertEqual(nomad.sent, [("register", one.service)])

            out, err = waiting.communicate(timeout=90)
            self.assertEqual((waiting.returncode, out), (11, ""))
            self.assertGreaterEqual(time.monotonic() - began, 19)
            self.assertRegex(err, rf"^meshctl: sidecar {never.service}-sidecar-proxy is not registered .*\n$")

            # The agent starts again, and loses nothing.
            mesh.processes["a10"].stop()
            mesh.processes["a10"].restart()
            until("it answers", lambda: mesh.agent_api("GET", "/v1/agent/self")[0] == 200)
            nomad.sync()
            self.assertEqual(nomad.sent, [("register", one.service)])
            until("the deployment is healthy", nomad.healthy)

            # A new version of the job, and its end.
            service["Tags"] = ["green"]
            nomad.sync()
            self.assertEqual(nomad.sent[1:], [("register", one.service)])
            nomad.sync()
            self.assertEqual(len(nomad.sent), 2)
            del nomad.services[one.service]
            nomad.sync()
            self.assertEqual(nomad.sent[2:], [("deregister", one.service)])
            self.assertEqual(nomad.call("GET", "/v1/agent/services"), {})
            self.assertEqual(nomad.call("GET", "/v1/agent/checks"), {})
            # What it does at its own start, for what an older version may have left.
            nomad.call("PUT", "/v1/agent/service/deregister/_nomad-client-gone")
            nomad.sync()
            self.assertEqual(len(nomad.sent), 3)


class Fake:
    """An agent of our own making: its API at a port, and what comes out of its socket."""

    def __init__(self, folder, about=None, status=200, bootstrap=(200, ""), raw=None, mesh=True):
        self.asked = []
        socket_path = str(Path(folder) / "agent.sock")
        said = about if about is not None else json.dumps(
            {"Config": {"Version": "1.20.0"}, **({"Mesh": {"socket": socket_path}} if mesh else {})})
        outer = self

        class Api(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self):
                self.reply(status, said)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, json.loads(body)))
                self.reply(*bootstrap)

        class Raw(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.recv(4096)
                if raw is None:
                    outer.ending.wait(60)
                else:
                    self.request.sendall(raw)

        class Unix(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        class Own(Api):
            def address_string(self):
                return "unix"

        class Tcp(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.ending = threading.Event()
        self.tcp = Tcp(("127.0.0.1", 0), Api if raw is None and status else Raw)
        self.unix = Unix(socket_path, Own)
        for server in (self.tcp, self.unix):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.address = f"127.0.0.1:{self.tcp.server_address[1]}"

    def close(self):
        self.ending.set()
        for server in (self.tcp, self.unix):
            server.shutdown()
            server.server_close()


class Shim(unittest.TestCase):
    """Each cause has its exit code, and says one line."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mesh-shim-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.consul = self.folder / "consul"
        self.consul.symlink_to(MESHCTL)

    def fake(self, **how):
        folder = tempfile.mkdtemp(dir=self.folder)
        fake = Fake(folder, **how)
        self.addCleanup(fake.close)
        return fake

    def ask(self, http_addr, *more, token="3b9c-the-token", words=None):
        words = words or ["connect", "envoy", "-grpc-addr", "unix://alloc/tmp/consul_grpc.sock", "-http-addr",
                          http_addr, "-admin-bind", "127.0.0.2:19001", "-address", "127.0.0.1:19101", "-proxy-id",
                          "_nomad-task-6f-group-api-count-api-9001-sidecar-proxy", "-bootstrap", "-token", token]
        err = self.folder / f"stderr-{uuid.uuid4()}"
        err.write_text("the tail of an older and longer line\n" * 100)
        with os.fdopen(os.open(err, os.O_RDWR | os.O_CREAT), "wb") as stderr:
            run = subprocess.run([self.consul, *words, *more], env={"NOMAD_ALLOC_ID": "6f"}, cwd="/",
                                 stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, timeout=90)
        said = err.read_text()
        self.assertEqual(run.stdout, b"", "Nomad would take it for a bootstrap")
        self.assertEqual(said.count("\n"), 1, said)
        self.assertNotIn(token, said)
        return run.returncode, said

    def test_each_cause(self):
        closed = socket.create_server(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        alert = b"\x15\x03\x01\x00\x02\x02\x46"
        https = (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        good = {"bootstrap": (404, "proxy x is not registered on this node (yet)")}
        gone = self.fake()
        Path(gone.unix.server_address).unlink()
        no_socket = json.dumps({"Mesh": {}})
        for name, http_addr, code, part in (
            ("nobody", nobody, 10, "is `meshctl agent` running"),
            ("no socket file", gone.address, 10, "is `meshctl agent` running"),
            ("a unix socket that is not there", f"unix://{self.folder}/none", 10, "does not answer at unix://"),
            ("not registered", self.fake(**good).address, 11, "is not registered with this node's agent yet"),
            ("token", self.fake(bootstrap=(403, "the token is of another allocation")).address, 12,
             "the agent refuses: the token is of another allocation"),
            ("https", "https://127.0.0.1:8501", 13, "leave `ssl` and `https://` out"),
            ("a port that speaks TLS", self.fake(raw=alert).address, 13, "is not plaintext HTTP"),
            ("one that says so", self.fake(raw=https).address, 13, "HTTPS"),
            ("Consul's own agent", self.fake(mesh=False).address, 14, "perhaps Consul's own agent"),
            ("another agent", self.fake(bootstrap=(400, "unknown field `ready`")).address, 14, "unknown field"),
            ("no bootstrap", self.fake(bootstrap=(200, "{}")).address, 14, "this version's agent"),
            ("not JSON", self.fake(about="<html>").address, 14, "not JSON"),
            ("a fault of the agent's", self.fake(bootstrap=(500, "no disk")).address, 1, "no disk"),
            ("no socket named", self.fake(about=no_socket).address, 1, "has no socket of its own"),
        ):
            with self.subTest(name):
                got, said = self.ask(http_addr)
                self.assertEqual(got, code, said)
                self.assertIn(part, said)
                self.assertTrue(said.startswith("meshctl: "), said)

    def test_an_agent_that_says_nothing_is_given_up(self):
        silent = self.fake(status=0)
        began = time.monotonic()
        code, said = self.ask(silent.address)
        self.assertEqual(code, 10, said)
        self.assertIn("no answer in 5 s", said)
        self.assertLess(time.monotonic() - began, 60)

    def test_the_command_line(self):
        for words in (["kv", "get"], ["connect", "envoy", "-bootstrap"], ["connect", "envoy", "-proxy-id", "a"],
                      ["connect", "envoy", "-bootstrap", "-proxy-id", "a", "-what"]):
            code, said = self.ask("", words=words, token="none")
            self.assertEqual(code, 2, said)

    def test_what_is_asked(self):
        fake = self.fake(bootstrap=(404, "not yet"))
        self.assertEqual(self.ask(fake.address)[0], 11)
        [(path, body)] = fake.asked
        self.assertEqual(path, "/v1/proxy/bootstrap?wait=20s")
        self.assertEqual(body, {
            "proxy_id": "_nomad-task-6f-group-api-count-api-9001-sidecar-proxy", "admin": "127.0.0.2:19001",
            "ready": "127.0.0.1:19101", "grpc_addr": "unix://alloc/tmp/consul_grpc.sock",
            "token": "3b9c-the-token"})

    @unittest.skipIf(os.geteuid() != 0, "only root can give a socket to another user")
    def test_a_socket_of_another_user_is_not_believed(self):
        # Whoever takes the port first could name a socket of its own.
        stranger = Path(tempfile.mkdtemp(prefix="mesh-shim-"))
        stranger.chmod(0o777)
        self.addCleanup(lambda: subprocess.run(["rm", "-r", stranger], check=True))
        at = stranger / "agent.sock"
        program = ("import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n"
                   "print('listening',flush=True)\nsys.stdin.read()\n")
        holder = subprocess.Popen(["python3", "-c", program, at], user=65534, group=65534, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.communicate)
        self.assertEqual(holder.stdout.readline(), "listening\n")
        at.chmod(0o777)
        code, said = self.ask(self.fake(about=json.dumps({"Mesh": {"socket": str(at)}})).address)
        self.assertEqual(code, 12, said)
        self.assertIn("held by uid 65534", said)

"""Jobs with `transparent_proxy`: an application calls a service by its name, as if there were no mesh."""

import http.server
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import unittest

from mesh import MESHCTL, until
from nomad import NODE, NomadMesh, Wire, job_file, missing

DNS_PORT = 5300
OUTSIDE_PORT = 9900
OUTSIDE = f"http://{NODE}:{OUTSIDE_PORT}/"

# Prints the status and the body of a call, or why there is none.
CALL = """
import sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=10) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except Exception as error:
    print("none", error)
"""
# Prints the addresses of a name.
RESOLVE = """
import json, socket, sys
try:
    print(json.dumps(sorted({one[4][0] for one in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)})))
except OSError as error:
    print("none", error)
"""

# Prints how long the first question for a name took, in seconds.
TIMED = """
import socket, sys, time
begin = time.monotonic()
try:
    socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)
except socket.gaierror:
    pass
print(time.monotonic() - begin)
"""
# Calls without a pause for so many seconds; prints how many calls there were, and what failed.
LOAD = """
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
end, calls, failed = time.monotonic() + float(sys.argv[2]), 0, []
while time.monotonic() < end:
    calls += 1
    try:
        with opener.open(sys.argv[1], timeout=10) as answer:
            answer.read()
    except Exception as error:
        failed.append(repr(error))
    time.sleep(0.01)
print(calls, failed[:5])
"""


class Names:
    """The host's name server: it knows `outside.test`, and keeps what it was asked."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((NODE, DNS_PORT))
        self.asked = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                question, caller = self.socket.recvfrom(4096)
            except OSError:
                return
            self.socket.sendto(self._answer(question), caller)

    def _answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode().lower())
            at += 1 + question[at]
        kind = struct.unpack(">H", question[at + 1:at + 3])[0]
        name = ".".join(labels)
        self.asked.add(name)
        known = name == "outside.test"
        records = b""
        if known and kind == 1:
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(NODE)
        flags = 0x8180 if known else 0x8183
        counts = struct.pack(">HHHH", 1, 1 if records else 0, 0, 0)
        return question[:2] + struct.pack(">H", flags) + counts + question[12:at + 5] + records

    def close(self):
        self.socket.close()


class Outside(http.server.BaseHTTPRequestHandler):
    """A server that no mesh knows."""

    def do_GET(self):
        body = b"outside"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@unittest.skipIf(missing(), missing())
class Transparent(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("transparent")
        cls.names = cls.outside = None
        try:
            plugins = mesh.folder / "cni"
            plugins.mkdir()
            (plugins / "consul-cni").symlink_to(MESHCTL)
            # The dashboard's sidecar is no root's, and its task has its folder below this one.
            os.chmod(mesh.run, 0o755)
            cls.names = Names()
            cls.outside = http.server.ThreadingHTTPServer((NODE, OUTSIDE_PORT), Outside)
            threading.Thread(target=cls.outside.serve_forever, daemon=True).start()
            mesh.begin(agent_extra=f'dns {{\n  recursors = ["{NODE}:{DNS_PORT}"]\n}}\n')
            mesh.run_job(job_file("transparent"))
            cls.dashboard = mesh.allocation("transparent", "dashboard")
            cls.api = mesh.allocation("transparent", "api")
        except BaseException:
            cls.end()
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.end()
        cls.mesh.close()

    @classmethod
    def end(cls):
        if cls.outside:
            cls.outside.shutdown()
            cls.outside.server_close()
        if cls.names:
            cls.names.close()

    def setUp(self):
        self.create("-allow", "count-dashboard", "count-api")

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", "-replace", *arguments)

    def python(self, program, *arguments, allocation=None):
        """Runs it in an allocation's namespace as an application of root's; what it prints."""
        allocation = allocation or self.dashboard
        return self.mesh.inside(allocation, sys.executable, "-c", program, *arguments).strip()

    def call(self, url, allocation=None):
        return self.python(CALL, url, allocation=allocation)

    def count(self, url="http://count-api.virtual.consul/"):
        """What the counting service says to an application in the dashboard's namespace."""
        return self.call(url).startswith('200 {"count":')

    def shown(self):
        """What the dashboard itself says; its own port is reached from outside without the mesh."""
        program = CALL.replace("sys.argv[1]", repr(f"http://{NODE}:9002/api"))
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              timeout=60).stdout.strip()

    def test_nomad_was_told_where_dns_is(self):
        self.assertEqual(self.mesh.attribute("unique.consul.dns.addr"), NODE)
        self.assertEqual(self.mesh.attribute("consul.dns.port"), "8600")
        for allocation in (self.api, self.dashboard):
            rules = self.mesh.inside(allocation, "iptables", "-t", "nat", "-S", "MESH_OUTPUT")
            self.assertIn("--to-ports 15053", rules)

    def test_the_doctor_finds_their_rules_in_use(self):
        run = self.mesh.command("doctor", "-nomad-addr", f"http://{NODE}:4646", "-o", "json", expect=None)
        found = [one for one in json.loads(run.stdout)["findings"] if one["what"] in ("rules", "sidecar's user")]
        self.assertEqual([(one["state"], one["found"]) for one in found],
                         [("ok", "of transparent proxies in 2 namespaces, each in use")])

    def test_the_application_calls_by_name_and_obeys_intentions(self):
        until("the dashboard counts", lambda: self.shown().startswith("200 "))
        self.create("-deny", "count-dashboard", "count-api")
        until("the dashboard does not count", lambda: self.shown().startswith("502 "))
        self.assertFalse(self.count())
        self.create("-allow", "count-dashboard", "count-api")
        until("the dashboard counts again", lambda: self.shown().startswith("200 "))

    def test_every_form_of_the_name_is_the_service(self):
        for name in ("count-api.virtual.consul", "count-api.service.consul", "count-api"):
            with self.subTest(name):
                until(name, lambda: self.count(f"http://{name}/"))
        shown = self.python(RESOLVE, "count-api.virtual.consul")
        self.assertNotRegex(shown, "^none")
        first = json.loads(shown)[0]
        self.assertRegex(first, r"^(24\d|25[0-4])\.|^fd6d:6573:6876:")
        shown = f"[{first}]" if ":" in first else first
        until("a call of the address", lambda: self.count(f"http://{shown}/"))
        # And of any port of it: which is the application's is its sidecar's to know.
        until("another port", lambda: self.count(f"http://{shown}:12345/"))
        # What is the mesh's is nobody else's to know.
        asked = {name for name in self.names.asked if "count-api" in name and "consul" in name}
        self.assertEqual(asked, set())

    def test_a_name_that_there_is_not_is_none(self):
        for name in ("ghost.virtual.consul", "nobody.test"):
            # That there is none, and not that nobody could be asked.
            until(name, lambda: self.python(RESOLVE, name).startswith(f"none [Errno {socket.EAI_NONAME}]"))
        self.assertIn("nobody.test", self.names.asked)
        self.assertNotIn("ghost.virtual.consul", self.names.asked)

    def test_a_first_question_waits_for_one_turn_to_the_servers(self):
        for name in ("count-dashboard.virtual.consul", "first-ghost.virtual.consul"):
            took = float(self.python(TIMED, name))
            print(f"{name}: {took:.3f} s")
            # Who asks again does so after 5 s.
            self.assertLess(took, 4, name)

    def test_no_call_fails_while_the_agent_begins_again(self):
        until("a count", self.count)
        url = "http://count-api.virtual.consul/"
        command = ["nsenter", f"--net=/run/netns/{self.dashboard['ID']}", sys.executable, "-c", LOAD, url, "6"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            agent = self.mesh.processes["a10"]
            agent.kill()
            agent.restart()
            until("the agent answers", lambda: self.mesh.agent_api("GET", "/v1/agent/self")[0] == 200)
            shown = load.communicate(timeout=60)[0]
        self.assertRegex(shown, r"^[1-9]\d* \[\]$")

    def test_what_is_outside_passes_unless_the_mesh_says_otherwise(self):
        def outside(name=NODE):
            return self.call(f"http://{name}:{OUTSIDE_PORT}/")
        until("an address outside", lambda: outside() == "200 outside")
        until("a name outside", lambda: outside("outside.test") == "200 outside")
        self.assertIn("outside.test", self.names.asked)
        # The API's sidecar is root's, as its application is: the mark tells them apart.
        self.assertEqual(self.call(OUTSIDE, allocation=self.api), "200 outside")
        self.write_mesh("mesh_only")
        try:
            until("nothing outside", lambda: outside().startswith("none"))
            until("the service nevertheless", self.count)
        finally:
            self.write_mesh("any")
        until("outside again", lambda: outside() == "200 outside")

    def write_mesh(self, outbound):
        path = pathlib.Path(self.mesh.folder, "mesh.hcl")
        path.write_text(f'mesh {{\n  default_intention = "deny"\n  outbound          = "{outbound}"\n}}\n')
        self.mesh.command("config", "write", path)

    def test_who_comes_without_the_mesh_reaches_no_application(self):
        inside = json.loads(self.mesh.inside(self.api, "ip", "-j", "addr", "show", "eth0"))[0]["addr_info"]
        address = next(one["local"] for one in inside if one["family"] == "inet")
        program = CALL.replace("sys.argv[1]", repr(f"http://{address}:9001/"))
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        self.assertNotIn("count", run.stdout)
        self.assertRegex(run.stdout, "^(none|4|5)")

    def test_nothing_between_allocations_is_plaintext(self):
        until("a count", self.count)
        wire = Wire()
        for _ in range(10):
            self.assertTrue(self.count())
        packets = wire.stop()
        inside = json.loads(self.mesh.inside(self.api, "ip", "-j", "addr", "show", "eth0"))[0]["addr_info"]
        address = next(one["local"] for one in inside if one["family"] == "inet")
        to_api = [one for one in packets if bytes(map(int, address.split("."))) in one[26:34]]
        self.assertTrue(any(b"\x17\x03\x03" in one for one in to_api), "no TLS record was seen")
        for packet in to_api:
            # The check of the exposed path is plain, and is the only thing that is.
            if b"/health" in packet or b'{"ok":true}' in packet:
                continue
            self.assertNotIn(b'"count"', packet)

"""The count dashboard, with connect blocks as `nomad job init -connect` writes them."""

import json
import unittest

from mesh import http_get, until
from nomad import NODE, PLUGINS, NomadMesh, Wire, job_file, missing, quiet

# Nomad compares what it registered with what stands here every 30 s.
SYNCS = 65


@unittest.skipIf(missing(), missing())
class Connect(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("connect")
        try:
            mesh.begin()
            cls.output = mesh.run_job(job_file("countdash"))
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def count(self):
        return http_get(f"http://{NODE}:9002/api")

    def create(self, *arguments):
        return self.mesh.command("intention", "create", "-wait", "-replace", *arguments)

    def test_the_deployment_is_healthy_by_nomads_own_judgement(self):
        deployment = self.mesh.deployment("countdash")
        self.assertEqual(deployment["Status"], "successful")
        groups = deployment["TaskGroups"]
        self.assertEqual({name: group["HealthyAllocs"] for name, group in groups.items()},
                         {"api": 1, "dashboard": 1})

    def test_the_doctor_finds_nothing_missing(self):
        text = self.mesh.command("doctor", "-nomad-addr", f"http://{NODE}:4646", "-cni-path", ":".join(PLUGINS))
        self.assertIn("Nomad's connect blocks can run on this node.", text)
        self.assertIn("consul.grpc 8502", text)
        for name in ("shim", "agent", "CNI plugins"):
            self.assertRegex(text, rf"(?m)^ok +{name}: ")

    def test_traffic_obeys_intentions(self):
        self.create("-allow", "count-dashboard", "count-api")
        until("the dashboard counts", lambda: self.count()[0] == 200)
        self.assertIn("count", json.loads(self.count()[2]))
        self.create("-deny", "count-dashboard", "count-api")
        until("the dashboard does not count", lambda: self.count()[0] == 502)
        self.create("-allow", "count-dashboard", "count-api")
        until("the dashboard counts again", lambda: self.count()[0] == 200)

    def test_nothing_between_allocations_is_plaintext(self):
        self.create("-allow", "count-dashboard", "count-api")
        until("the dashboard counts", lambda: self.count()[0] == 200)
        api = self.mesh.allocation("countdash", "api")
        inside = json.loads(self.mesh.inside(api, "ip", "-j", "addr", "show", "eth0"))[0]["addr_info"]
        address = next(one["local"] for one in inside if one["family"] == "inet")
        wire = Wire()
        for _ in range(20):
            self.assertEqual(self.count()[0], 200)
        packets = wire.stop()
        to_api = [one for one in packets if bytes(map(int, address.split("."))) in one[26:34]]
        self.assertTrue(any(b"\x17\x03\x03" in one for one in to_api), "no TLS record was seen")
        for packet in to_api:
            # The check of the exposed path is plain, and is the only thing that is.
            if b"/health" in packet or b'{"ok":true}' in packet:
                continue
            for plain in (b"HTTP/1.1", b'"count"'):
                self.assertNotIn(plain, packet)

    def test_left_alone_nomad_registers_nothing_again(self):
        before = self.mesh.registrations()
        self.assertEqual(before, 2)
        quiet(SYNCS)
        self.assertEqual(self.mesh.registrations(), before)

"""What tests/load/compare says is so: of the pairs, and of its figures. Nothing here
asserts how fast anything is."""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest
import unittest.mock
import xml.dom.minidom

import check
import harness
import issuance
import issuing
import loss
import measure
import mesh
import report
import rows
from herding import Herd
from peers import CALLED, GRPC, HTTP, STRANGER, TCP

HERE = pathlib.Path(__file__).resolve().parent


class OfPairs(unittest.TestCase):
    """mTLS between the two ends, and nobody else."""

    @classmethod
    def setUpClass(cls):
        cls.bench = harness.Bench(["ours", "envoy", "haproxy"], seconds=0.3, say=print)
        cls.addClassCleanup(cls.bench.close)

    def check(self, name):
        peer = next((peer for peer in self.bench.peers if peer.name == name), None)
        if peer is None:
            self.skipTest(f"{name}: {self.bench.absent[name]}")
        for mode in (HTTP, GRPC, TCP):
            with self.subTest(mode=mode):
                self.bench.check(peer, mode)

    def test_ours(self):
        self.check("ours")

    def test_envoy(self):
        self.check("envoy")

    def test_haproxy(self):
        self.check("haproxy")

    def test_a_pair_that_takes_anybody_is_found_out(self):
        pair = self.bench.fresh(self.bench.peers[0], HTTP)
        self.addCleanup(pair.close)
        path = pair.folder / "in.json"
        config = json.loads(path.read_text())
        config["config"]["policy"] = {"default": "allow", "intentions": []}
        path.write_text(json.dumps(config))
        pair.processes[0].kill()
        pair.processes[0].start()
        mesh.until("a stranger is served", lambda: check.takes(pair, STRANGER))
        with self.assertRaisesRegex(check.Wrong, "a stranger is served"):
            check.door(pair)

    def test_what_goes_in_the_clear_is_found_out(self):
        class Tap:
            up, down = check.MARK, b""

        with self.assertRaisesRegex(check.Wrong, "in the clear"):
            check.encrypted(Tap)
        Tap.up = b""
        with self.assertRaisesRegex(check.Wrong, "does not begin as TLS"):
            check.encrypted(Tap)

    def test_a_pair_that_does_not_answer_is_an_error(self):
        pair = self.bench.fresh(self.bench.peers[0], HTTP, called=STRANGER)
        self.addCleanup(pair.close)
        self.assertEqual(CALLED, "backend")
        with self.assertRaises(Exception) as raised:
            self.bench.clients.closed(pair.entry, 0.3, 2)
        self.assertRegex(str(raised.exception), "failed|nothing was answered")


class OfCompare(unittest.TestCase):
    """The command itself, with ours alone."""

    def compare(self, *arguments, expect=0):
        plot = mesh.ROOT / "target" / "load" / f"test-{os.getpid()}.svg"
        command = [sys.executable, str(HERE / "compare"), "--no-build", "--profile", mesh.PROFILE, "--peers", "ours",
                   "--rounds", "1", "--seconds", "0.3", "--again", "0", "--plot", str(plot), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        self.addCleanup(lambda: plot.unlink(missing_ok=True))
        return run, plot

    def test_every_row_has_its_figures(self):
        run, plot = self.compare("-o", "json")
        told = json.loads(run.stdout)
        there = {(one["row"], one["figure"]) for one in told["results"] if one["of"].get("ours")}
        # What needs root, and more of the kernel, is skipped by its name.
        skipped = re.findall(r"^    ([a-z-]+): skipped: ", run.stderr, re.M)
        self.assertLessEqual(set(skipped), {"fairness-loss", "fairness-loss-tcp"})
        all_rows = [row for row in rows.rows() if row.name not in skipped]
        wanted = {(row.name, figure.key) for row in all_rows for figure in row.figures}
        self.assertEqual(there, wanted)
        for one in told["results"]:
            self.assertEqual(one["of"]["ours"]["median"] is not None, True)
        self.assertIn("[", run.stderr)  # it says how far it is
        xml.dom.minidom.parse(str(plot))

    def test_a_row_by_name_as_a_table(self):
        run, _ = self.compare("--only", "tcp")
        self.assertIn("tcp: TCP round trips", run.stdout)
        self.assertNotIn("http:", run.stdout)

    def test_a_row_that_is_not_there(self):
        run, _ = self.compare("--only", "udp", expect=1)
        self.assertIn("no row udp; there are http,", run.stderr)


class OfLoss(unittest.TestCase):
    """The rows that lose packets in a network namespace."""

    def test_without_root_one_is_skipped_by_its_name(self):
        said = []

        class Bench:
            say = staticmethod(said.append)

        row = next(row for row in rows.rows() if row.name == "fairness-loss")
        with unittest.mock.patch("os.geteuid", return_value=1000):
            self.assertEqual(row.sample(Bench, None), ({}, 0.0))
        self.assertEqual(said, ["    fairness-loss: skipped: a network namespace needs root"])

    def test_what_fails_there_is_said(self):
        def work():
            raise ValueError("of it")

        try:
            with self.assertRaisesRegex(AssertionError, "ValueError: of it"):
                loss.apart(work)
        except loss.Unable as error:
            self.skipTest(str(error))


class OfIssuance(unittest.TestCase):
    """The command itself, and what it promises: that all have their leaves."""

    def issuance(self, *arguments):
        command = [sys.executable, str(HERE / "issuance"), "--no-build", "--profile", mesh.PROFILE, "--rounds", "1",
                   "--seconds", "0.3", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def test_handshakes(self):
        told = json.loads(self.issuance("--only", "handshakes", "-o", "json"))["handshakes"]
        self.assertEqual([one["name"] for one in told["exchanges"]], ["X25519", "X25519MLKEM768", "P-256", "default"])
        for one in told["exchanges"]:
            self.assertGreater(one["handshakes"], 0)
            self.assertGreater(one["client_us"]["median"] * one["server_us"]["median"] * one["ratio"]["min"], 0)
        # The encapsulation key is 1,184 bytes, the ciphertext 1,088.
        plain, hybrid = told["exchanges"][:2]
        self.assertEqual(round((hybrid["bytes_up"] - plain["bytes_up"] - 1184) / 8), 0)
        self.assertEqual(round((hybrid["bytes_down"] - plain["bytes_down"] - 1088) / 8), 0)
        shown = issuance.handshake_table(told)
        self.assertLessEqual(max(map(len, shown.splitlines())), 80, shown)

    def test_leaves_of_servers_and_what_bounds_them(self):
        shown = self.issuance("--only", "leaves", "--ca", "built-in", "--at-once", "8")
        for title in ("leaves, a server, one at a time", "leaves, 3 servers, many at once", "what kept each from more"):
            self.assertIn(title, shown)
        self.assertLessEqual(max(map(len, shown.splitlines())), 80, shown)

    def herd(self, kind):
        if issuing.kinds([kind]) != [kind]:
            self.skipTest("OpenBao cannot be had")
        herd = Herd(kind, 100)
        self.addCleanup(herd.close)
        # A sidecar that gets no leaf, or is refused one, is an error of these.
        herd.light(seconds=240)
        return herd

    def test_a_hundred_sidecars_at_once(self):
        figures, _ = self.herd(issuing.BUILT_IN).real(seconds=240)
        self.assertEqual(figures["not_signed"], 0)

    def test_a_hundred_sidecars_at_once_whose_leaves_vault_signs(self):
        self.herd(issuing.VAULT)


class OfFigures(unittest.TestCase):
    """What is made of samples."""

    def entries(self):
        samples = {("tcp", "ours"): [({"cpu": 1.0, "share": 0.5}, 0.2), ({"cpu": 9.0, "share": 0.1}, 4.0),
                                     ({"cpu": 2.0, "share": 0.4}, 0.9)],
                   ("tcp", "envoy"): [({"cpu": 12_643.0, "share": 0.2}, 3.0), ({"cpu": 11_900.0, "share": 0.3}, 2.0)],
                   ("tcp", "haproxy"): [({"cpu": 13_100.0, "share": 0.25}, 0.0)]}
        wanted = [row for row in rows.rows() if row.name == "tcp"]
        return report.results(wanted, samples, ["ours", "envoy", "haproxy"])

    def test_what_was_disturbed_is_left_out(self):
        cpu = self.entries()[0]["of"]
        self.assertEqual((cpu["ours"]["median"], cpu["ours"]["max"], cpu["ours"]["left_out"]), (1.5, 2.0, 1))
        self.assertTrue(cpu["envoy"]["disturbed"])
        self.assertFalse(cpu["haproxy"]["disturbed"])

    def test_the_table_fits_and_the_plot_is_one(self):
        peers = ["ours", "envoy", "haproxy"]
        table = report.table(self.entries(), peers)
        self.assertLessEqual(max(map(len, table.splitlines())), 80, table)
        self.assertIn("!", table)
        for row in rows.rows():
            for figure in row.figures:
                self.assertLessEqual(len(figure.title), report.LABEL - 2, figure.title)
        negative = {"median": -0.9, "min": -2.55, "max": 9.62, "samples": 3, "disturbed": True}
        self.assertEqual(report.cell(negative), "-0.90! -2.5…9.6")
        xml.dom.minidom.parseString(report.plot(self.entries(), peers, "a & b <c>"))

    def test_what_bounds_is_told_by_what_was_measured(self):
        class Field:
            count = 2

        class Signers:
            mesh, rate = Field, 100

        cores = measure.CORES
        cost = {"cpu": {"servers": 0.4 * cores, "openbao": 1.4 * cores, "asking": 0.1}, "busy": 1.9 * cores, "signing": 200.0}
        idle = {"cpu": {"asking": 0.1}, "busy": 0.2 * cores, "signing": 8.0}
        for rate, given, what in ((195, cost, "rate"), (100, cost, "cpu"), (100, idle, "latency"),
                                  (100, {**idle, "signing": 100.0}, "room"), (100, {**idle, "cpu": {"asking": 1.9}}, "asking")):
            found = issuing.bound(rate, 2.0, Signers, given)
            self.assertEqual(found["what"], what)
            self.assertTrue(issuing.words(found))
        shown = issuing.words(issuing.bound(100, 2.0, Signers, cost))
        self.assertTrue(shown.startswith("CPU, 95% of the machine: OpenBao 70%, servers 20%, "), shown)

    def test_titles_of_issuance_fit(self):
        for row in issuance.leaf_rows() + issuance.herd_rows(1000):
            for figure in row.figures:
                self.assertLessEqual(len(figure.title), report.LABEL - 2, figure.title)

    def test_cpu_is_counted(self):
        busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass\ninput()"]
        process = subprocess.Popen(busy, stdin=subprocess.PIPE)
        try:
            _, cpu, disturbed = measure.measured(
                lambda: mesh.until("0.2 s", lambda: measure.cpu([process.pid]) >= 0.2), [process.pid], [])
            self.assertGreaterEqual(cpu, 0.05)
            self.assertGreaterEqual(disturbed, 0)
        finally:
            process.communicate(b"\n")

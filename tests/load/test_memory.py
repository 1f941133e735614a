"""What a sidecar holds: alone, with many idle connections, and when much has passed. Of the static
release program, which runs in production; memory is not a matter of time."""

import concurrent.futures
import unittest

import counts
import harness
import measure
import mesh
from peers import HTTP, TCP, Ours

CONNECTIONS = 10_000
BOUND = 60  # MiB
IDLE = 6  # MiB


class OfOneSidecar(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        counts.build()
        cls.bench = harness.Bench([], say=print)
        cls.addClassCleanup(cls.bench.close)
        cls.peer = Ours(counts.binary())

    def pair(self, mode):
        """A fresh pair that has carried a little, and the caller's sidecar's pid."""
        pair = self.bench.fresh(self.peer, mode)
        self.addCleanup(pair.close)
        self.bench.clients.rate(pair.entry, 0.1, 10, 1)
        # What only starting took is not to make room for what is measured.
        self.falls(pair.pids()[1], IDLE)
        return pair, pair.pids()[1]

    def falls(self, pid, most):
        """What was freed is given back when the house is looked after, four times a minute; the program's
        own pages when nothing began for half of one."""
        mesh.until(f"resident memory is below {most:.1f} MiB", lambda: measure.resident(pid) < most, 90)

    def idle(self, mode):
        if self.peer.most() < CONNECTIONS:
            self.skipTest(f"{CONNECTIONS} connections need {CONNECTIONS + 1000} open files, and ulimit -Hn allows fewer")
        pair, pid = self.pair(mode)
        before = measure.resident(pid)
        with self.bench.clients.held(pair.entry, CONNECTIONS):
            held = measure.resident(pid)
        print(f"{before:.1f} MiB, with {CONNECTIONS} connections {held:.1f} MiB")
        self.assertLess(held, BOUND)
        self.falls(pid, before + (held - before) / 4)

    def test_one_that_nobody_asks_anything(self):
        pair, pid = self.pair(HTTP)
        self.bench.clients.closed(pair.entry, 1, 64)
        print(f"{measure.resident(pid):.1f} MiB after requests")
        self.falls(pid, IDLE)

    def test_idle_connections_of_http(self):
        self.idle(HTTP)

    def test_idle_connections_of_tcp(self):
        self.idle(TCP)

    def bulk(self, mode):
        pair, pid = self.pair(mode)
        before = measure.resident(pid)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            one = [pool.submit(self.bench.clients.get, pair.entry, 2, "/big") for _ in range(20)]
            self.assertTrue(all(each.result()["bytes"] > 0 for each in one))
        print(f"{before:.1f} MiB, after bulk {measure.resident(pid):.1f} MiB")
        # What has run once stays: its pages.
        self.falls(pid, before + 3)

    def test_what_bulk_needed_of_http(self):
        self.bulk(HTTP)

    def test_what_bulk_needed_of_tcp(self):
        self.bulk(TCP)

"""What a packet that is lost between the two sidecars holds up.

Streams that share a connection wait together for it; connections of their own wait alone, but each
for longer: the packet after the lost one is what says that it is lost. Packets are dropped by the
kernel's filter in a network namespace, in which the pair, the application and the client run.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys

import measure
from application import Application
from clients import Failed
from peers import IN, Pair

NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class Unable(Exception):
    """There can be no such namespace, or no loss in it; says why."""


class Loss:
    """A row of the comparison: the p99 of small requests at a fixed rate, with every so manieth packet lost."""

    rounds, direct, ours_alone = True, False, False
    per_second, connections = 500, 16
    longest = 10_000  # ms; the client gives up then
    EVERY = {"none": 0, "few": 1000, "many": 100}

    def __init__(self, name, title, mode, figures):
        self.name, self.title, self.mode, self.figures = name, title, mode, figures

    def sample(self, bench, pair):
        """(figures, disturbance) of a fresh pair like this one."""
        try:
            return apart(lambda: self.once(bench, pair.peer))
        except Unable as error:
            bench.say(f"    {self.name}: skipped: {error}")
            return {}, 0.0

    @staticmethod
    def against(figures, _direct):
        return figures

    def once(self, bench, peer):
        """In the namespace."""
        address = f"{bench.net}{next(bench.addresses)}"
        folder = bench.folder / f"{self.name}-{peer.name}-{os.getpid()}"
        with contextlib.ExitStack() as stack:
            application = Application(f"{bench.net}2", folder / "application", bench.found["nginx"],
                                      bench.clients.env, bench.clients.ours)
            stack.callback(application.close)
            to = application.http
            pair = Pair(peer, self.mode, address, to, folder / "pair", bench.certs)
            stack.callback(pair.close)
            # What is there from the beginning is there.
            bench.clients.rate(pair.entry, 0.5, self.per_second, self.connections)
            figures, worst = {}, 0.0
            for name, every in self.EVERY.items():
                with lost(every):
                    told, _, disturbed = measure.measured(lambda: self.p99(bench, pair), pair.pids(), application.pids())
                figures[name], worst = told, max(worst, disturbed)
            return figures, worst

    def p99(self, bench, pair):
        try:
            told = bench.clients.rate(pair.entry, bench.seconds, self.per_second, self.connections)
            return told["p99_us"] / 1000
        except Failed as error:
            bench.say(f"    {pair.peer.name}: {str(error).strip()}")
            return self.longest


@contextlib.contextmanager
def lost(every):
    """Every so manieth packet from and to the application's sidecar is lost meanwhile."""
    rules = [["-p", "tcp", side, str(IN), "-m", "statistic", "--mode", "nth", "--every", str(every), "--packet", "0",
              "-j", "DROP"] for side in ("--dport", "--sport")] if every else []
    with contextlib.ExitStack() as stack:
        for rule in rules:
            filtered("-A", rule)
            stack.callback(filtered, "-D", rule)
        yield


def filtered(how, rule):
    done = subprocess.run(["iptables", "-w", how, "INPUT", *rule], capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"iptables: {done.stderr.strip()}")


def apart(work):
    """What work gives back, of a process in a network namespace of its own, which goes with it."""
    if os.geteuid() != 0:
        raise Unable("a network namespace needs root")
    for program in ("ip", "iptables"):
        if not shutil.which(program):
            raise Unable(f"{program} is not installed")
    reads, writes = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reads)
        told = {"failed": "it ended"}
        try:
            enter()
            told = {"gave": work()}
        except Unable as error:
            told = {"unable": str(error)}
        except BaseException as error:  # whatever it is, the parent says it
            told = {"failed": f"{type(error).__name__}: {error}"}
        finally:
            with os.fdopen(writes, "w") as out:
                json.dump(told, out)
            os._exit(0)  # nothing of the parent's is ended here
    os.close(writes)
    try:
        with os.fdopen(reads) as told:
            told = json.load(told)
    except BaseException:
        os.kill(child, signal.SIGTERM)  # it ends what it started
        raise
    finally:
        os.waitpid(child, 0)
    if "unable" in told:
        raise Unable(told["unable"])
    if "failed" in told:
        raise AssertionError(told["failed"])
    figures, disturbed = told["gave"]
    return figures, disturbed


def enter():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK) != 0:
        raise Unable(f"a network namespace: {os.strerror(ctypes.get_errno())}")
    done = subprocess.run(["ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"ip: {done.stderr.strip()}")
    # Whether there is such a rule here is known before anything is measured.
    with lost(1000):
        pass

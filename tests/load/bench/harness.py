"""Sets up what is measured, and takes the samples."""

import pathlib
import resource
import shutil
import sys
import tempfile
import time

import check
import measure
import mesh
import tools
from application import Application
from clients import Clients
from peers import CALLER, CALLED, GRPC, STRANGER, Envoy, HAProxy, Ours, Pair


class Bench:
    """The application, the clients and the pairs of one run."""

    def __init__(self, peers, seconds=3.0, again=2, fetch=True, say=lambda text: None):
        # again: how often a sample that was disturbed is taken once more.
        self.seconds, self.again, self.say = seconds, again, say
        # Everything that is started here has them: a thousand connections are held.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        base = mesh.ROOT / "target" / "load"
        base.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=base))
        self.programs, self.absent = {}, {}
        self.net = mesh.subnet()
        self.addresses = iter(range(10, 250))
        self.pairs, self.application = {}, None
        client = mesh.BIN / "mesh-load"
        self.certs = self.folder / "certs"
        tools.quiet([str(client), "certs", str(self.certs), CALLER, CALLED, STRANGER], "certificates")
        self.found = found = {name: self.find(name, fetch) for name in ("nginx", "wrk", "h2load")}
        env = tools.environment()
        self.clients = Clients(client, self.folder, env, found["wrk"], found["h2load"])
        self.peers = []
        for name in peers:
            if name == "ours":
                self.peers.append(Ours(mesh.PROXY))
                self.programs[name] = f"mesh-proxy, {mesh.PROFILE} build"
                continue
            path = self.find(name, fetch)
            if path:
                kind = {"envoy": Envoy, "haproxy": HAProxy}[name]
                self.peers.append(kind(path, tools.environment()))
        self.application = Application(f"{self.net}2", self.folder / "application", found["nginx"],
                                       tools.environment(), client)

    def find(self, name, fetch):
        try:
            path = tools.tool(name, fetch)
            self.programs[name] = tools.version(name, path)
            return path
        except (tools.Missing, OSError) as error:
            self.absent[name] = str(error)
            self.say(f"without {name}: {error}")
            return None

    def application_for(self, mode):
        return self.application.grpc if mode == GRPC else self.application.http

    def fresh(self, peer, mode, **options):
        """A pair that nobody has used."""
        address = f"{self.net}{next(self.addresses)}"
        return Pair(peer, mode, address, self.application_for(mode),
                    self.folder / f"{peer.name}-{mode}-{address}", self.certs, **options)

    def check(self, peer, mode):
        """The pair does what it is measured for, or check.Wrong."""
        address = f"{self.net}{next(self.addresses)}"
        folder = self.folder / f"{peer.name}-{mode}-{address}"

        def make(**options):
            part = folder / ("-".join(options) or "plain")
            return Pair(peer, mode, address, self.application_for(mode), part, self.certs, **options)

        check.whole(make, self.clients, address)

    def pair(self, peer, mode):
        """The pair that samples of this mode share."""
        key = (peer.name, mode)
        if key not in self.pairs:
            self.pairs[key] = self.fresh(peer, mode)
        return self.pairs[key]

    def sample(self, row, peer):
        """One sample; one that was disturbed is taken again. peer: None is without sidecars."""
        pair = self.pair(peer, row.mode) if peer else None
        taken = []
        for _ in range(1 + self.again):
            figures, disturbed = row.sample(self, pair)
            taken.append((figures, disturbed))
            if disturbed <= 1:
                break
            time.sleep(0.5)
        return taken

    def run(self, rows, rounds):
        """samples[(row, peer)]: [(figures, disturbance)], all pairs in turn in each round."""
        samples, count = {}, 0
        whole = sum((rounds if row.rounds else 1) * (len(self.peers) + row.direct) for row in rows)
        for turn in range(rounds):
            for row in rows:
                if turn and not row.rounds:
                    continue
                direct = None
                # Who begins changes, so that none has always the same one before it.
                peers = self.peers[turn % len(self.peers):] + self.peers[:turn % len(self.peers)]
                for peer in ([None] if row.direct else []) + peers:
                    count += 1
                    name = peer.name if peer else "direct"
                    if peer and row.ours_alone and not isinstance(peer, Ours):
                        continue
                    self.say(f"[{count}/{whole}] {row.name}, {name}")
                    taken = self.sample(row, peer)
                    best = min(taken, key=lambda one: one[1])
                    if peer is None:
                        direct = best[0]
                    for figures, disturbed in taken:
                        if figures:
                            samples.setdefault((row.name, name), []).append((row.against(figures, direct), disturbed))
                    figures, disturbed = best
                    if figures:
                        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                        self.say(f"    {shown}" + (f"; disturbed {disturbed:.1f}" if disturbed > 1 else ""))
        return samples

    def close(self, keep=False):
        for pair in self.pairs.values():
            pair.close()
        if self.application:
            self.application.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def say(text):
    print(text, file=sys.stderr, flush=True)

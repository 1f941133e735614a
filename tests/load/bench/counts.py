"""Instructions per request of the main paths, counted by valgrind's callgrind.

Times depend on the machine and on what else it does; instructions nearly do not. A sidecar is run
twice, with few requests and with more, and what the second needs more is divided by the requests
that it had more: so what starting, a handshake and an end take goes out. The requests follow each
other on one connection: so none shares a turn of the loop, or a write, with another, whatever the
machine does. What it takes to match rules and permissions is seen where there are many of them.

What a busy machine adds to a run (a turn of the loop for half of a message, a timer, a handshake
that came too late) is never less than nothing: each run is made again until two nearly agree, and
the lesser counts.
"""

import http.client
import json
import os
import pathlib
import platform
import re
import subprocess

import measure
import mesh
import tools
from peers import HTTP, OUT, TCP, Ours, Pair

KEPT = mesh.ROOT / "tests" / "load" / "instructions.toml"
# Requests. Starting takes 400 million, and some 0.1 % more or less each time: so many make that little.
FEW, MORE = 200, {HTTP: 3000, TCP: 9000}
LIST = 2000  # rules or permissions that are looked at in vain
ALLOWED = 0.05  # by how much a count may rise without a word
AGREE, RUNS = 0.002, 6  # how near two runs must be, and how many are made for that at most

# Name: what is counted, mode, side, and what is looked at in vain.
PATHS = {
    "http_in": ("a request of HTTP/1.1, the application's sidecar", HTTP, "in", None),
    "http_out": ("a request of HTTP/1.1, the caller's sidecar", HTTP, "out", None),
    "tcp_in": ("a round trip on a byte stream, the application's sidecar", TCP, "in", None),
    "tcp_out": ("a round trip on a byte stream, the caller's sidecar", TCP, "out", None),
    "route_match": ("the same past 2,000 route rules, the caller's sidecar", HTTP, "out", "rules"),
    "intention": ("the same past 2,000 permissions, the application's sidecar", HTTP, "in", "permissions"),
}


class Counted(Ours):
    """A pair of ours, of which one side runs under callgrind."""

    def __init__(self, binary, side, valgrind, vain=None):
        super().__init__(binary)
        self.side, self.valgrind, self.vain = side, valgrind, vain

    def run(self, pair, side, name, config):
        self.be_patient(config)
        if side == self.side:
            self.lengthen(config)
        process = super().run(pair, side, name, config)
        if side == self.side:
            process.kill()
            out = pair.folder / "callgrind.out"
            process.arguments = [self.valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", *process.arguments]
            process.env.update(tools.environment())
            process.start()
        return process

    @staticmethod
    def be_patient(config):
        """A handshake takes a second under callgrind, and longer on a busy machine."""
        for one in [*config["clusters"].values(), *filter(None, [config.get("inbound")])]:
            one["connect_timeout"] = "60s"
        for outbound in config["outbound"]:
            for one in [outbound, *outbound["rules"]]:
                one["timeout"] = "60s"

    def lengthen(self, config):
        if self.vain == "rules":
            rules = config["outbound"][0]["rules"]
            config["outbound"][0]["rules"] = [
                {**rules[-1], "name": f"vain-{number}", "match": [{"path_prefix": f"/vain/{number}/"}]}
                for number in range(LIST)] + rules
        if self.vain == "permissions":
            intention = config["policy"]["intentions"][0]
            del intention["action"]
            intention["permissions"] = [
                {"action": "deny", "path_prefix": f"/vain/{number}/"} for number in range(LIST)] + [
                {"action": "allow", "path_prefix": "/"}]


class Counter:
    """Counts with a bench's application and certificates."""

    def __init__(self, bench, valgrind):
        self.bench, self.valgrind = bench, valgrind

    def path(self, name):
        """Instructions for one request."""
        _, mode, side, vain = PATHS[name]
        few, more = (self.least(mode, side, vain, requests) for requests in (FEW, MORE[mode]))
        return (more - few) / (MORE[mode] - FEW)

    def least(self, mode, side, vain, requests):
        """Instructions of the run that the machine disturbed least."""
        runs, failure = [], None
        for _ in range(RUNS):
            try:
                runs = sorted([*runs, self.whole(mode, side, vain, requests)])
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failure = error  # a machine so busy that the sidecar gave up
                continue
            if len(runs) > 1 and runs[1] - runs[0] <= AGREE * runs[0]:
                break
        if not runs:
            raise failure
        return runs[0]

    def whole(self, mode, side, vain, requests):
        """Instructions of one run, from its start to its end."""
        address = f"{self.bench.net}{next(self.bench.addresses)}"
        folder = self.bench.folder / f"counted-{address}"
        peer = Counted(binary(), side, self.valgrind, vain)
        pair = Pair(peer, mode, address, self.bench.application_for(mode), folder, self.bench.certs)
        try:
            ask(address, requests)
            inside, outside = pair.processes
            (inside if side == "in" else outside).stop(60)
        finally:
            pair.close()
        text = (folder / "callgrind.out").read_text()
        return int(re.search(r"(?m)^(?:summary|totals): (\d+)", text)[1])


def ask(address, requests):
    """Requests of one kind, one after the other on one connection."""
    connection = http.client.HTTPConnection(address, OUT, timeout=60)
    for _ in range(requests):
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or len(body) != 1024:
            raise AssertionError(f"{response.status} through {address}: {body[:200]}")
    connection.close()


def built_by():
    """Of what the counts depend beside the source: {key: text}."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    words = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return {"rustc": words["release"], "target": words["host"], "profile": "release, crt-static",
            "libc": " ".join(platform.libc_ver()), "cpu": cpu()}


def cpu():
    """What of a processor valgrind passes on, by which code is chosen when a program runs; and who made
    it, by which the C library chooses how it copies."""
    about = pathlib.Path("/proc/cpuinfo").read_text()
    flags = re.search(r"(?m)^flags\s*:(.*)$", about)
    wide = flags and {"avx2", "aes", "pclmulqdq"} <= set(flags[1].split())
    maker = re.search(r"(?m)^vendor_id\s*:\s*(\S+)", about)
    return f"{platform.machine()} {maker[1] if maker else 'unknown'}, {'with' if wide else 'without'} avx2 and aes"


def binary():
    """The static release program, as the image has it."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", mesh.ROOT / "target"))
    return target / built_by()["target"] / "release" / "mesh-proxy"


def build():
    """Builds it, as tests/image does: what that has built is built."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target", built_by()["target"],
               "-p", "mesh-proxy"]
    subprocess.run(command, cwd=mesh.ROOT, check=True, env={**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static"})


def count(bench, names, say=lambda text: None):
    """{name: instructions}. Raises tools.Missing where there is no valgrind."""
    counter = Counter(bench, tools.tool("valgrind"))
    measure.prefer()
    counted = {}
    for name in names:
        say(f"counting {name}")
        counted[name] = round(counter.path(name))
    return counted


def read(path=KEPT):
    """(how it was built, {name: instructions}), as `write` wrote them."""
    kept = {}
    for line in pathlib.Path(path).read_text().splitlines():
        line = line.split("#", 1)[0].strip()
        if line:
            key, value = (part.strip() for part in line.split("=", 1))
            kept[key] = json.loads(value)
    return ({key: value for key, value in kept.items() if isinstance(value, str)},
            {key: value for key, value in kept.items() if isinstance(value, int)})


def write(counted, path=KEPT):
    lines = [
        "# Instructions per request of the sidecar's main paths, as `tests/load/instructions` counts them.",
        f"# A count that rises by more than {ALLOWED:.0%} fails the tests: then make it less, or write it down",
        "# here, with `tests/load/instructions --write`, in the commit that is the reason.",
        *(f'{key} = "{value}"' for key, value in built_by().items()), "",
        *(f"{name} = {instructions} # {PATHS[name][0]}" for name, instructions in counted.items())]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def other(built):
    """In what this machine's build differs from the one that was written down; None if in nothing."""
    now = built_by()
    different = [f"{key} {built.get(key)}, here {now[key]}" for key in now if built.get(key) != now[key]]
    return "; ".join(different) or None


def risen(kept, counted):
    """What needs more than what is written down allows, in words."""
    return [f"{name}: {now:,} instructions, and {kept.get(name, 0):,} are written down"
            for name, now in counted.items() if now > kept.get(name, 0) * (1 + ALLOWED)]

"""Meshes whose CA signs as fast as it can, or as it is configured, and what it then costs."""

import contextlib
import http.client
import json
import subprocess
import time
import unittest

import measure
import mesh
import vault as real

BUILT_IN, CLUSTER, VAULT = "built in", "Vault, cluster", "Vault, vault"
KINDS = (BUILT_IN, CLUSTER, VAULT)
# As many as the servers take for no bound.
UNBOUNDED = 1_000_000
# What a server signs in a second at most, unless it is told otherwise.
DEFAULT_RATE = 200
# Leaves that a server has signed at once (server/core/src/ca/mod.rs).
SERVERS_ROOM = 16
TOKEN = '    auth "token" {{\n      token_file = "{}"\n    }}\n'


def kinds(wanted=KINDS, fetch=True, say=print):
    """Those of the wanted that can be had here."""
    if set(wanted) == {BUILT_IN}:
        return [BUILT_IN]
    try:
        if not fetch and not real.there():
            raise unittest.SkipTest("OpenBao is not there, and nothing is to be fetched")
        real.bao()
        return [kind for kind in KINDS if kind in wanted]
    except unittest.SkipTest as reason:
        say(f"without Vault: {reason}")
        return [kind for kind in wanted if kind == BUILT_IN]


class Signers:
    """Servers of one kind of CA, and a node with sidecars that asks them for leaves."""

    def __init__(self, kind, servers=1, rate=None, name="issuance"):
        self.kind, self.rate = kind, rate or DEFAULT_RATE
        self.mesh = mesh.Mesh(name, servers=servers, default="allow")
        self.vault = self.asking = None
        try:
            self.start(f"  sign_per_second = {rate}\n" if rate else "")
        except BaseException:
            self.close()
            raise

    def start(self, bound):
        field = self.mesh
        if self.kind == BUILT_IN:
            field.ca = f'ca {{\n  leaf_ttl = "24h"\n{bound}}}\n'
        else:
            self.vault = real.Vault(field)
            signing = "vault" if self.kind == VAULT else "cluster"
            self.vault.policy("-leaf-signing", signing)
            token = field.folder / "vault-token"
            self.vault.new_token(token)
            field.ca = real.block(self.vault, TOKEN.format(token), bound, leaf_signing=signing)
        field.servers()
        for server in range(1, field.count + 1):
            mesh.until(f"the CA is there\n{field.tail(f's{server}')}", lambda: json.loads(
                field.command("ca", "status", "-o", "json", server=server, expect=None).stdout)["ready"])

    def servers(self):
        return [self.mesh.processes[f"s{number}"].pid for number in range(1, self.mesh.count + 1)]

    def vaults(self):
        return [self.vault.process.pid] if self.vault else []

    def counters(self):
        """Metrics of all servers, added up; of each name all rows together, but for outcomes."""
        total = {}
        for server in range(1, self.mesh.count + 1):
            for name, value in scrape(self.mesh, server).items():
                total[name] = total.get(name, 0.0) + value
        return total

    def ask(self):
        """The program that asks; it registers its sidecars first."""
        if self.asking is None:
            field = self.mesh
            field.cert("agent", "load")
            tls = field.folder / "tls"
            addresses = ",".join(f"{field.address(number)}:8701" for number in range(1, field.count + 1))
            self.asking = subprocess.Popen(
                [mesh.BIN / "mesh-load", "sign", addresses, "-ca", tls / "cluster-ca.pem", "-cert",
                 tls / "agent-load.pem", "-key", tls / "agent-load.key"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.line()
        return self.asking

    def line(self):
        text = self.asking.stdout.readline()
        if not text:
            raise AssertionError(f"mesh-load sign ended with {self.asking.wait()}")
        return json.loads(text)

    def sample(self, seconds, at_once):
        """(figures, disturbance) of leaves that are asked for, so many at once, for so long."""
        asking = self.ask()

        def ask(seconds):
            asking.stdin.write(f"{seconds} {at_once}\n")
            asking.stdin.flush()
            return self.line()

        def work():
            return ask(seconds)

        # A second's worth is there at once after a pause, which is not what is measured.
        ask(1.2 if self.rate < UNBOUNDED else 0.2)
        told, cost, disturbed = costs(self, {"asking": [asking.pid]}, work)
        leaves = told["leaves"]
        if told["refused"] or not leaves:
            raise AssertionError(f"{self.kind}: {leaves} leaves; refused: {told['refused']}")
        figures = {"rate": leaves / told["seconds"], "p50": told["p50_ms"], "p99": told["p99_ms"],
                   **{f"{who}_ms": used / leaves * 1000 for who, used in cost["cpu"].items()}, **cost}
        figures["bound"] = bound(figures["rate"], told["seconds"], self, cost, at_once)
        return figures, disturbed

    def close(self):
        if self.asking:
            with contextlib.suppress(OSError):
                self.asking.stdin.close()
            try:
                self.asking.wait(30)
            except subprocess.TimeoutExpired:
                self.asking.kill()
                self.asking.wait()
            self.asking.stdout.close()
        self.mesh.close()


def scrape(field, server):
    """A server's metrics by name; those that say an outcome by name and outcome."""
    connection = http.client.HTTPSConnection(*field.http_address(server), timeout=30, context=field.context())
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = {}
    for row in text.splitlines():
        if row.startswith("meshctl_server_") and " " in row:
            name, value = row.rsplit(" ", 1)
            name = name[len("meshctl_server_"):]
            if "outcome=" not in name:
                name = name.split("{", 1)[0]
            if not name.endswith("_bucket"):
                found[name] = found.get(name, 0.0) + float(value)
    return found


def costs(signers, others, work):
    """Runs work; (what it gave, what it cost, disturbance). others: pids by name, beside servers and OpenBao."""
    groups = {"servers": signers.servers(), **({"openbao": signers.vaults()} if signers.vault else {}), **others}
    counted = signers.counters()
    before = {who: measure.spent(pids) for who, pids in groups.items()}
    began, machine, own = time.monotonic(), measure.machine(), measure.own()
    told = work()
    took, then, own = time.monotonic() - began, measure.machine(), measure.own() - own
    used = {who: measure.spent(pids) - before[who] for who, pids in groups.items()}
    busy = then[0] - machine[0]
    disturbed = measure.disturbance(took, busy - sum(used.values()) - own, then[1] - machine[1])
    after = signers.counters()
    counters = {name: value - counted.get(name, 0.0) for name, value in after.items()}
    commits = counters.get("write_seconds_count", 0.0)
    return told, {
        "cpu": used,
        "busy": busy,
        "signing": counters.get("ca_sign_seconds_sum", 0.0),
        "commits": commits / took,
        "commit_ms": counters.get("write_seconds_sum", 0.0) / commits * 1000 if commits else 0.0,
        "not_signed": counters.get('ca_signs_total{outcome="failed"}', 0.0)
        + counters.get('ca_signs_total{outcome="refused"}', 0.0),
    }, disturbed


def bound(rate, seconds, signers, cost, at_once=None):
    """What kept it from more, by what was measured: a word, and the measured part of it."""
    servers = signers.mesh.count
    allowed = signers.rate * servers
    if rate >= 0.9 * allowed:
        return {"what": "rate", "of": rate / allowed}
    if at_once == 1:
        return {"what": "one"}
    alone = cost["cpu"].get("asking", 0.0) / seconds
    if alone >= 0.9:  # it has one thread
        return {"what": "asking", "of": alone}
    busy = cost["busy"] / (seconds * measure.CORES)
    if busy >= 0.85:
        shares = {who: used / (seconds * measure.CORES) for who, used in cost["cpu"].items()}
        return {"what": "cpu", "of": busy, "shares": {**shares, "other": max(0.0, busy - sum(shares.values()))}}
    waiting = cost["signing"] / seconds / servers
    if waiting > SERVERS_ROOM:
        return {"what": "room", "of": waiting, "busy": busy}
    return {"what": "latency", "of": waiting, "busy": busy}


WORDS = {"servers": "servers", "openbao": "OpenBao", "asking": "who asks", "agent": "agent", "herd": "sidecars",
         "other": "the rest"}


def words(found):
    """A bound in words."""
    if found["what"] == "rate":
        return f"sign_per_second ({found['of']:.0%} of it)"
    if found["what"] == "one":
        return "the next is asked for when there is the one before"
    if found["what"] == "asking":
        return f"who asks: {found['of']:.0%} of its one core"
    if found["what"] == "cpu":
        parts = sorted(found["shares"].items(), key=lambda one: -one[1])
        return (f"CPU, {found['of']:.0%} of the machine: "
                + ", ".join(f"{WORDS[who]} {part:.0%}" for who, part in parts if part >= 0.01))
    if found["what"] == "room":
        return (f"{SERVERS_ROOM} at once at a server: {found['of']:.0f} wait or are signed; CPU {found['busy']:.0%}")
    return f"how many ask at once: {found['of']:.1f} are signed at a time; CPU {found['busy']:.0%}"

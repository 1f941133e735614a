"""Each scenario: what is done to the CA while traffic flows."""

import datetime
import signal
import subprocess
import time
from collections import namedtuple

import mesh as lib
from mesh import until
from test_rotation import active, settled, status
from test_vault import SHORT
from traffic import STREAMS, shown

Scenario = namedtuple("Scenario", "title options nothing_fails run")
ALL = {}

# Of a leaf's end: it is in whole seconds, and a busy machine is late.
EARLY, LATE = 0.5, 3.0
# Within how long after the servers' return all is well again.
RECOVERY = 10.0


def scenario(name, title, nothing_fails=True, **options):
    def keep(run):
        ALL[name] = Scenario(title, options, nothing_fails, run)
        return run
    return keep


@scenario("short-leaves", "certificates of 20 seconds for five minutes")
def short_leaves(field):
    before = field.renewals()
    field.more(300)
    made = {name: count - before[name] for name, count in field.renewals().items()}
    field.note(f"certificates in 300 s: {', '.join(f'{name} {count}' for name, count in made.items())}")
    # Each is replaced at about half its life.
    for name, count in made.items():
        if count < 20:
            field.problem(f"{name} had {count} certificates in 300 s, and not about 30")


# --- the root

def rotated(field, what):
    """Waits until another root signs, and until it is the only one; how long each took."""
    first = what["first"]
    field.timed("the new root signs", lambda: active(field.mesh) != first)
    began = time.monotonic()
    last = settled(field.mesh, deadline=180)
    field.note(f"the old root is gone: {time.monotonic() - began:.1f} s")
    if last == first:
        field.problem("the root at the end is the first one")


@scenario("built-in-to-built-in", "a new root of the servers' own")
def built_in(field):
    first = active(field.mesh)
    field.mesh.command("ca", "rotate")
    rotated(field, {"first": first})


@scenario("built-in-to-vault", "from the servers' own root to Vault's", vault="vault", built_in_first=True)
def to_vault(field):
    first = active(field.mesh)
    file = field.mesh.folder / "ca.hcl"
    file.write_text('ca {\n  provider = "vault"\n' + SHORT.format(field.ttl)
                    + '  vault {\n    leaf_signing = "vault"\n  }\n}\n')
    field.mesh.command("ca", "config", "write", file)
    rotated(field, {"first": first})
    if status(field.mesh)["provider"] != "vault":
        field.problem("the CA is not in Vault")


@scenario("vault-to-vault", "another root in Vault, which signs every certificate", vault="vault")
def vault_to_vault(field):
    first = active(field.mesh)
    field.mesh.command("ca", "rotate")
    rotated(field, {"first": first})


@scenario("ec-rsa-ec", "keys of another kind and back: EC, RSA, EC")
def key_types(field):
    file = field.mesh.folder / "ca.hcl"
    for kind, shown_as in (("rsa-2048", "RSA 2048"), ("ec-p256", "EC P-256")):
        file.write_text("ca {\n" + SHORT.format(field.ttl) + f'  key_type = "{kind}"\n}}\n')
        field.mesh.command("ca", "config", "write", file)
        field.timed(f"a root of {shown_as} signs", lambda: any(
            root["state"] == "active" and root["key_type"] == shown_as for root in status(field.mesh)["roots"]))
        settled(field.mesh, deadline=180)
        field.note("the old root is gone")


def other(number):
    return number % 3 + 1


def leads(field):
    """The number of the server that all that run take to be the leader: one that has just started may still say
    what it knew before."""
    running = [number for number in (1, 2, 3) if field.mesh.processes[f"s{number}"].running()]

    def probe():
        said = {(field.mesh.api("GET", "/v1/status", server=number)[1]["leader"] or {}).get("name")
                for number in running}
        name = said.pop() if len(said) == 1 else None
        return int(name[1:]) if name and int(name[1:]) in running else None
    return until("one leader", probe, 60)


def new_leader(field, dead):
    """Waits for another leader; its number."""
    return field.timed(f"another server leads than s{dead}", lambda: leads(field), 60)


def retires(mesh, server):
    """When the old root goes, in seconds since 1970; nothing where none is left."""
    times = [root["retires"] for root in status(mesh, server)["roots"] if root.get("retires")]
    return datetime.datetime.fromisoformat(times[0].replace("Z", "+00:00")).timestamp() if times else None


@scenario("leader-killed", "the leader is killed at each step of a rotation", idle=True)
def leader_killed(field):
    mesh = field.mesh
    # While it begins: the leader itself was asked.
    first, dead = active(mesh), leads(field)
    asked = subprocess.Popen([str(lib.MESHCTL), "ca", "rotate"], env={**mesh.env(dead), "PATH": "/usr/bin:/bin"},
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.03)
    field.kill(dead)
    code = asked.wait(60)
    now = new_leader(field, dead)
    began = status(mesh, now)
    went_on = bool(began["rotation"]) or active(mesh, now) != first
    field.note(f"killed while it begins (the command ended with {code}): "
               + ("it was begun, and goes on" if went_on else "nothing was begun; asked again"))
    field.restart(dead)
    mesh.ready()
    if not went_on:
        mesh.command("ca", "rotate", server=now)
    field.timed("the new root signs", lambda: active(mesh, now) != first)
    first = settled(mesh, now, deadline=180)
    # Between the beginning and the switch, where a sidecar that stands still holds it.
    dead = leads(field)
    now = other(dead)
    field.signal("idle-proxy", signal.SIGSTOP)
    try:
        mesh.command("ca", "rotate", server=now)
        until("the sidecar that stands still is waited for", lambda: any(
            one["proxy"] == "idle-sidecar-proxy" for one in (status(mesh, dead)["rotation"] or {}).get("waiting", [])))
        field.kill(dead)
        now = new_leader(field, dead)
        if not status(mesh, now)["rotation"] or active(mesh, now) != first:
            field.problem("the rotation was not between its beginning and the switch when the leader was killed")
        field.note("killed before the switch")
    finally:
        field.signal("idle-proxy", signal.SIGCONT)
    field.timed("the new root signs", lambda: active(mesh, now) != first)
    # After the switch, at once.
    field.restart(dead)
    last = now
    field.kill(last)
    now = new_leader(field, last)
    if len(status(mesh, now)["roots"]) != 2:
        field.problem("the old root was gone when the leader was killed after the switch")
    field.note("killed after the switch")
    field.restart(last)
    mesh.ready()
    # As the old root goes: the leader is killed at the moment that was written down for it.
    dead = leads(field)
    goes = retires(mesh, other(dead))
    if goes is None:
        field.problem("the old root was gone before its time")
    else:
        time.sleep(max(0.0, goes - time.time()))
    field.kill(dead)
    field.note("killed as the old root goes")
    now = new_leader(field, dead)
    if settled(mesh, now, deadline=180) == first:
        field.problem("the root at the end is the first one")
    field.note("the old root is gone")
    field.restart(dead)
    mesh.ready()


# --- Vault

def vault_is(field, wanted):
    return all((status(field.mesh, one)["vault"] or {}).get("state") == wanted for one in (1, 2, 3))


@scenario("vault-sealed", "Vault, which signs every certificate, sealed for two minutes", vault="vault", leaf_ttl="300s")
def vault_sealed(field):
    # Renewal begins at 135 to 165 s: in the middle of the two minutes.
    field.more(60)
    before = field.ends()
    field.vault.seal()
    sealed = time.monotonic()
    field.timed("every server says that it is sealed", lambda: vault_is(field, "sealed"))
    field.more(max(0.0, 120 - (time.monotonic() - sealed)))
    waiting = sum(end == before[name] for name, end in field.ends().items())
    field.vault.unseal()
    field.note(f"unsealed after {time.monotonic() - sealed:.0f} s; {waiting} of {len(before)} sidecars wait for a certificate")
    if waiting != len(before):
        field.problem("a certificate was replaced while Vault was sealed")
    field.timed("every certificate is replaced", lambda: all(
        end > before[name] for name, end in field.ends().items()), 60)


@scenario("vault-sealed-cluster", "the same where the servers sign, with certificates of 20 seconds", vault="cluster")
def vault_sealed_cluster(field):
    before = field.renewals()
    field.vault.seal()
    field.timed("every server says that it is sealed", lambda: vault_is(field, "sealed"))
    field.more(120)
    made = {name: count - before[name] for name, count in field.renewals().items()}
    field.note(f"certificates meanwhile: {', '.join(f'{name} {count}' for name, count in made.items())}")
    if min(made.values()) < 8:
        field.problem("certificates were not replaced while Vault was sealed")
    field.vault.unseal()
    field.timed("every server says that it is unsealed", lambda: vault_is(field, "ok"))


# --- no server at all

def all_down(field):
    for number in (1, 2, 3):
        field.kill(number)
    return time.time()


def all_back(field):
    """Starts them; when that was."""
    began = time.time()
    for number in (1, 2, 3):
        field.restart(number)
    return began


@scenario("servers-down", "every server down for three quarters of a certificate's half-life, and back", leaf_ttl="80s")
def servers_down(field):
    # Half a life is 40 s. Renewal begins at 36 to 44 s, so all of them fall into the 30 s.
    field.more(25)
    before = field.ends()
    down = all_down(field)
    until("30 s", lambda: time.time() - down >= 30, 60)
    # One that was asked for as they went may have come.
    waiting = [name for name, end in field.ends().items() if end == before[name]]
    back = all_back(field)
    field.note(f"back after {back - down:.0f} s; {len(waiting)} sidecars have not renewed")
    if not waiting:
        field.problem("no renewal fell into the time without servers")
    until("every certificate is replaced", lambda: all(
        end > before[name] for name, end in field.ends().items()), 60)
    took = time.time() - back
    field.note(f"every certificate is replaced: {took:.1f} s after the servers were started")
    if took > RECOVERY:
        field.problem(f"certificates were replaced {took:.1f} s after the servers' start, and not within {RECOVERY:.0f} s")
    field.mesh.ready()
    field.more(10)


@scenario("expired", "every server down past the certificates' end, and back", nothing_fails=False, leaf_ttl="30s")
def expired(field):
    traffic = field.traffic
    field.more(20)
    down = all_down(field)
    field.more(2)  # what was signed before has come
    ends = field.ends()
    first, last, caller = min(ends.values()), max(ends.values()), ends["web-proxy"]
    streams = min(caller, ends["echo-proxy"])
    field.note("certificates end " + ", ".join(f"{name} {end - down:.0f}" for name, end in ends.items())
               + " s after the servers went")
    until("all have ended", lambda: time.time() > last + 12, 90)
    back = all_back(field)
    until("the traffic is back", lambda: traffic.answered_between(back, back + 60) and
          traffic.lines[-1]["open"] == STREAMS, 60)
    field.more(max(0.0, back + RECOVERY + 12 - time.time()))
    field.mesh.ready()
    judge_expired(field, first, streams, caller, back)


def judge_expired(field, first, streams, caller, back):
    """What had to fail did so, at its time and with its reason; and nothing else."""
    traffic = field.traffic
    early = traffic.failed_before(first - EARLY)
    if early:
        field.problem(f"before the first certificate ended: {shown(early, traffic.began)}")
    broken = [one for one in traffic.failures if one["kind"] == "stream"]
    count = sum(one["count"] for one in broken)
    if count != STREAMS:
        field.problem(f"{count} of {STREAMS} streams were closed")
    if broken:
        begin, end = min(one["first"] for one in broken) - streams, max(one["last"] for one in broken) - streams
        field.note(f"{count} streams were closed {begin:+.1f} to {end:+.1f} s around the certificate's end")
        if begin < -EARLY or end > LATE:
            field.problem(f"streams were closed {begin:+.1f} to {end:+.1f} s around the certificate's end")
    served = traffic.answered_between(caller + LATE, back)
    if served is None or served:
        field.problem(f"{served} requests were answered after the caller's certificate had ended")
    for kind in ("kept", "fresh"):
        said = {one["what"] for one in traffic.failures if one["kind"] == kind and one["first"] > caller + LATE
                and one["last"] < back}
        if not said or not all(text.startswith("503: ") and "expired" in text for text in said):
            field.problem(f"{kind}: what new requests are told does not name the expiry: {sorted(said)[:3]}")
        elif kind == "kept":
            field.note(f"new requests are told: {sorted(said)[0]}")
    if not any(one["kind"] == "opening" and one["last"] > caller for one in traffic.failures):
        field.problem("no new stream was refused after the caller's certificate had ended")
    log = field.mesh.processes["web-proxy"].log.read_text(errors="replace")
    for words in ("the leaf has expired", "did not take a connection", "own certificate has expired"):
        if words not in log:
            field.problem(f"the caller's log does not say: {words}")
    late = traffic.failed_after(back)
    recovered = max((one["last"] for one in late), default=back) - back
    field.note(f"the last failure was {recovered:.1f} s after the servers were started")
    if recovered > RECOVERY:
        field.problem(f"failed more than {RECOVERY:.0f} s after the servers' start: "
                      f"{shown(traffic.failed_after(back + RECOVERY), traffic.began)}")

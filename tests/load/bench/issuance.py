"""The parts of tests/load/issuance: what is sampled, in which order, and how it is shown."""

import contextlib
import json
import subprocess

import issuing
import mesh
from herding import Herd
from report import short
from rows import HIGHER, LOWER, Figure

# (row, servers, sign_per_second, how many ask at once; None: as the command says)
LEAVES = (
    ("alone-1", 1, issuing.UNBOUNDED, 1),
    ("most-1", 1, issuing.UNBOUNDED, None),
    ("bound-1", 1, None, None),
    ("alone-3", 3, issuing.UNBOUNDED, 1),
    ("most-3", 3, issuing.UNBOUNDED, None),
)
HERDS = ("herd-light", "herd-real")


class Row:
    """As the table takes it."""

    def __init__(self, name, title, figures):
        self.name, self.title, self.figures = name, title, figures


def costs(*names):
    return [Figure(f"{name}_ms", f"{title}, CPU ms a leaf", LOWER) for name, title in (
        ("servers", "servers"), ("openbao", "OpenBao"), ("asking", "who asks"), ("agent", "agent"), ("herd", "sidecars"))
        if name in names]


def leaf_rows():
    rows = []
    for name, servers, rate, at_once in LEAVES:
        how = "one at a time" if at_once == 1 else "many at once"
        many = "a server" if servers == 1 else f"{servers} servers"
        title = f"leaves, {many}, {how}" + ("" if rate else f", {issuing.DEFAULT_RATE} a second and server")
        figures = [Figure("rate", "leaves/s", HIGHER), Figure("p50", "median, ms", LOWER), Figure("p99", "p99, ms", LOWER),
                   *costs("servers", "openbao", "asking"),
                   Figure("commits", "commits/s, all servers", LOWER), Figure("commit_ms", "a commit, ms", LOWER)]
        rows.append(Row(name, title, figures))
    return rows


def herd_rows(count):
    common = [Figure("p50", "half have theirs, s", LOWER), Figure("last", "the last has its, s", LOWER),
              Figure("again", "streams opened again", LOWER), *costs("servers", "openbao", "agent", "herd")]
    return [Row(HERDS[0], f"herd: {count} light sidecars at once", common),
            Row(HERDS[1], f"herd: {count} mesh-proxy at once", [Figure("started", "all are started, s", LOWER), *common])]


def handshakes(rounds, seconds):
    """What `mesh-load handshakes` tells."""
    run = subprocess.run([mesh.BIN / "mesh-load", "handshakes", "-rounds", str(rounds), "-seconds", str(seconds)],
                         capture_output=True, text=True)
    if run.returncode != 0:
        raise AssertionError(run.stderr.strip())
    return json.loads(run.stdout)


def handshake_table(told):
    """Median and range, within 80 columns."""
    head = ["", "per second", "caller, µs", "called, µs", "CPU, X25519 = 1", "bytes"]
    wide = (15, 10, 11, 11, 17, 12)
    lines = ["handshakes: mutual TLS 1.3, in memory, one thread does both sides",
             "".join(f"{text:{'<' if not at else '>'}{wide[at]}}" for at, text in enumerate(head))]
    for one in told["exchanges"]:
        ratio = one["ratio"]
        ratio = f"{ratio['median']:.2f} {ratio['min']:.2f}…{ratio['max']:.2f}" if ratio else "–"
        cells = [one["name"], short(one["per_second"]["median"]), short(one["client_us"]["median"]),
                 short(one["server_us"]["median"]), ratio, f"{one['bytes_up']}+{one['bytes_down']}"]
        lines.append("".join(f"{text:{'<' if not at else '>'}{wide[at]}}" for at, text in enumerate(cells)))
    return "\n".join(lines)


def leaves(kinds, arguments, samples, say):
    """All that need as many servers run at once, and are sampled in turn."""
    whole = arguments.rounds * len(LEAVES) * len(kinds)
    count = 0
    for servers in sorted({row[1] for row in LEAVES}):
        rows = [row for row in LEAVES if row[1] == servers]
        with contextlib.ExitStack() as stack:
            fields = {}
            for rate in sorted({row[2] for row in rows}, key=str):
                for kind in kinds:
                    say(f"starting {servers} server(s), {kind}" + ("" if rate else ", as configured"))
                    fields[kind, rate] = one = issuing.Signers(kind, servers, rate)
                    stack.callback(one.close)
                    one.ask()
            for turn in range(arguments.rounds):
                for row, _, rate, at_once in rows:
                    for kind in kinds[turn % len(kinds):] + kinds[:turn % len(kinds)]:
                        count += 1
                        say(f"[{count}/{whole}] {row}, {kind}")
                        taken = fields[kind, rate].sample(arguments.seconds, at_once or arguments.at_once)
                        keep(samples, row, kind, taken, say)


def herds(kinds, arguments, samples, say):
    """A thousand sidecars; another thousand on the same agent for each sample."""
    rows = HERDS[:1] if arguments.no_real else HERDS
    whole = arguments.rounds * len(rows) * len(kinds)
    count = 0
    with contextlib.ExitStack() as stack:
        fields = {}
        for kind in kinds:
            say(f"registering {arguments.herd} sidecars, {kind}")
            fields[kind] = Herd(kind, arguments.herd)
            stack.callback(fields[kind].close)
        for turn in range(arguments.rounds):
            for row in rows:
                for kind in kinds[turn % len(kinds):] + kinds[:turn % len(kinds)]:
                    count += 1
                    say(f"[{count}/{whole}] {row}, {kind}")
                    field = fields[kind]
                    keep(samples, row, kind, field.light() if row == HERDS[0] else field.real(), say)


def keep(samples, row, kind, taken, say):
    figures, disturbed = taken
    samples.setdefault((row, kind), []).append(taken)
    shown = ", ".join(f"{key} {figures[key]:.4g}" for key in ("rate", "started", "p50", "last") if key in figures)
    say(f"    {shown}; {issuing.words(figures['bound'])}" + (f"; disturbed {disturbed:.1f}" if disturbed > 1 else ""))


def bounds(samples):
    """Of each row and kind, what bound the median sample."""
    found = {}
    for (row, kind), taken in samples.items():
        key = "rate" if "rate" in taken[0][0] else "last"
        ordered = sorted((figures for figures, _ in taken), key=lambda one: one[key])
        found.setdefault(row, {})[kind] = ordered[len(ordered) // 2]["bound"]
    return found


def bound_rows(found):
    for row, kinds in found.items():
        for kind, one in kinds.items():
            yield row, kind, issuing.words(one)

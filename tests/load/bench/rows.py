"""What is compared. A row is one kind of load; a sample of it gives one or more
figures."""

import time

import measure
from clients import Failed
from loss import Loss
from peers import GRPC, HTTP, TCP, Ours

LOWER, HIGHER = "lower", "higher"


class Figure:
    """One line of the table."""

    def __init__(self, key, title, better, goal=None, unit=""):
        self.key, self.title, self.better, self.goal, self.unit = key, title, better, goal, unit


class Row:
    """One kind of load, sampled in turn on each pair and, where it is compared with that, without any."""

    rounds = True  # sampled again in each round; else once
    direct = True
    ours_alone = False

    def __init__(self, name, title, mode, figures, work):
        self.name, self.title, self.mode, self.figures, self.work = name, title, mode, figures, work

    def sample(self, bench, pair):
        """(figures, disturbance) of a pair, or without one."""
        address = pair.entry if pair else bench.application_for(self.mode)
        pids = pair.pids() if pair else []
        told, cpu, disturbed = measure.measured(lambda: self.work(bench, address), pids, bench.application.pids())
        return self.read(told, cpu), disturbed

    @staticmethod
    def read(told, cpu):
        rate = told["requests"] / told["seconds"]
        return {"cpu": cpu / told["requests"] * 1e5, "rate": rate}

    @staticmethod
    def against(figures, direct):
        """What takes the direct sample of the same round."""
        if "rate" in figures and direct and direct.get("rate"):
            figures["share"] = figures["rate"] / direct["rate"]
        return figures


class Latency(Row):
    @staticmethod
    def read(told, cpu):
        return {"cpu": cpu / told["requests"] * 1e5, "p50": told["p50_us"] / 1000, "p99": told["p99_us"] / 1000}

    @staticmethod
    def against(figures, direct):
        if direct:
            for which in ("p50", "p99"):
                figures[f"added_{which}"] = figures[which] - direct[which]
        return figures


class Bulk(Row):
    direct = False

    @staticmethod
    def read(told, cpu):
        return {"cpu": cpu / (told["bytes"] / 2**30), "mb": told["bytes"] / told["seconds"] / 1e6}


class Upload(Row):
    direct = False
    size = 1 << 20

    @classmethod
    def read(cls, told, cpu):
        sent = told["requests"] * cls.size
        return {"cpu": cpu / (sent / 2**30), "mb": sent / told["seconds"] / 1e6}


class Memory(Row):
    """Resident memory of the larger of a fresh pair's two sidecars."""

    rounds, direct, connections = False, False, 1000
    quiet = 50  # s; ours looks four times a minute whether it has been quiet for half of one

    def sample(self, bench, pair):
        fresh = bench.fresh(pair.peer, self.mode)
        try:
            bench.clients.rate(fresh.entry, 0.1, 10, 1)
            time.sleep(1.0)
            used = max(map(measure.resident, fresh.pids()))
            time.sleep(self.quiet)
            idle = max(map(measure.resident, fresh.pids()))
            process, opened = bench.clients.hold(fresh.entry, self.connections)
            time.sleep(1.0)
            held = max(map(measure.resident, fresh.pids()))
            process.communicate("", timeout=20)
            assert opened == self.connections
            time.sleep(2.0)
            after = max(map(measure.resident, fresh.pids()))
        finally:
            fresh.close()
        return {"used": used, "idle": idle, "held": held, "after": after}, 0.0


class Idle(Row):
    """Resident memory of the caller's sidecar with many connections that say nothing."""

    rounds, direct, connections = False, False, 10_000

    def sample(self, bench, pair):
        if pair.peer.most() < self.connections:
            bench.say(f"    {pair.peer.name} takes no {self.connections} connections with the files that it may open")
            return {}, 0.0
        figures = {}
        for mode in (HTTP, TCP):
            try:
                figures[mode] = self.once(bench, pair.peer, mode)
            except Failed as error:
                if isinstance(pair.peer, Ours):
                    raise
                bench.say(f"    {pair.peer.name}, {mode}: {str(error).strip()}")
        return figures, 0.0

    def once(self, bench, peer, mode):
        fresh = bench.fresh(peer, mode)
        try:
            with bench.clients.held(fresh.entry, self.connections):
                time.sleep(1.0)
                return measure.resident(fresh.pids()[1])
        finally:
            fresh.close()


class Fairness(Row):
    """The p99 of small requests at a fixed rate, alone and beside what others do through the same pair."""

    direct, per_second = False, 500
    longest = 10_000  # ms; the client gives up then
    # What runs in a client of its own meanwhile; the last asks for much and reads nothing of it.
    BESIDE = {
        "download": ("get", {"path": "/big"}),
        "upload": ("closed", {"path": "/upload", "connections": 1, "body": 32 << 20}),
        "stuck": ("hold", {"path": "/big", "connections": 16, "read": "no"}),
    }

    def sample(self, bench, pair):
        alone, worst = self.once(bench, pair)
        figures = {"alone": alone}
        for name, (command, options) in self.BESIDE.items():
            with bench.clients.beside(command, pair.entry, **options):
                figures[name], disturbed = self.once(bench, pair)
            worst = max(worst, disturbed)
        return figures, worst

    def once(self, bench, pair):
        def p99():
            try:
                return bench.clients.rate(pair.entry, bench.seconds, self.per_second, 16)["p99_us"] / 1000
            except Failed as error:
                bench.say(f"    {pair.peer.name}: {str(error).strip()}")
                return self.longest

        told, _, disturbed = measure.measured(p99, pair.pids(), bench.application.pids() + bench.clients.others())
        return told, disturbed


class Growth(Row):
    """Ours alone, with much configured beside what is called."""

    direct, ours_alone, few, many = False, True, 10, 1000

    def sample(self, bench, pair):
        one, first = self.once(bench, pair, self.few)
        two, second = self.once(bench, pair, self.many)
        more = self.many - self.few
        return {"cpu": two["cpu"] / one["cpu"], "rate": two["rate"] / one["rate"],
                "p50": two["p50"] / one["p50"],
                "upstream": (two["out"] - one["out"]) * 1024 / more,
                "intention": (two["in"] - one["in"]) * 1024 / more}, max(first, second)

    def once(self, bench, pair, upstreams):
        fresh = bench.fresh(pair.peer, self.mode, upstreams=upstreams)
        try:
            bench.clients.rate(fresh.entry, 0.1, 10, 1)
            time.sleep(1.0)
            into, out = map(measure.resident, fresh.pids())
            latency = bench.clients.rate(fresh.entry, bench.seconds, 2000)["p50_us"]
            told, cpu, disturbed = measure.measured(
                lambda: bench.clients.closed(fresh.entry, bench.seconds, 64), fresh.pids(), bench.application.pids())
        finally:
            fresh.close()
        return {**self.read(told, cpu), "out": out, "in": into, "p50": latency}, disturbed


class Workers(Row):
    """Ours alone, with more worker threads."""

    direct, ours_alone = False, True
    counts = (1, 2, 4)

    def sample(self, bench, pair):
        figures, worst = {}, 0.0
        for count in self.counts:
            peer = Ours(pair.peer.binary, workers=count)
            fresh = bench.fresh(peer, self.mode)
            try:
                told, cpu, disturbed = measure.measured(
                    lambda: bench.clients.closed(fresh.entry, bench.seconds, 64), fresh.pids(),
                    bench.application.pids())
            finally:
                fresh.close()
            worst = max(worst, disturbed)
            for key, value in self.read(told, cpu).items():
                figures[f"{key}{count}"] = value
        return figures, worst


def rows():
    per = "CPU s / 100k requests"
    share = "requests/s, direct = 1"
    return [
        Row("http", "HTTP/1.1, 64 connections, 1 KiB", HTTP,
            [Figure("cpu", per, LOWER, 1.5), Figure("share", share, HIGHER, 0.40)],
            lambda bench, at: bench.clients.closed(at, bench.seconds, 64)),
        Latency("http-rate", "HTTP/1.1, 2,000 requests/s", HTTP,
                [Figure("added_p50", "added median, ms", LOWER, 0.08), Figure("added_p99", "added p99, ms", LOWER),
                 Figure("cpu", per, LOWER, 7)],
                lambda bench, at: bench.clients.rate(at, bench.seconds, 2000)),
        Row("grpc", "gRPC unary, 64 streams of one connection", GRPC,
            [Figure("cpu", per, LOWER), Figure("share", share, HIGHER)],
            lambda bench, at: bench.clients.streams(at, bench.seconds, 64)),
        Row("upload-16k", "POST of 16 KiB, 32 connections", HTTP,
            [Figure("cpu", per, LOWER), Figure("share", share, HIGHER)],
            lambda bench, at: bench.clients.closed(at, bench.seconds, 32, body=16 << 10, path="/upload")),
        Upload("upload-1m", "POST of 1 MiB, 4 connections", HTTP,
               [Figure("cpu", "CPU s / GiB", LOWER), Figure("mb", "MB/s", HIGHER)],
               lambda bench, at: bench.clients.closed(at, bench.seconds, 4, body=1 << 20, path="/upload")),
        Row("tcp", "TCP round trips, 64 connections", TCP,
            [Figure("cpu", "CPU s / 100k trips", LOWER, 1.6), Figure("share", share.replace("requests", "trips"), HIGHER)],
            lambda bench, at: bench.clients.closed(at, bench.seconds, 64)),
        Row("tcp-connect", "new TCP connections, one request each", TCP,
            [Figure("rate", "connections/s", HIGHER, 10_000), Figure("cpu", "CPU s / 100k", LOWER)],
            lambda bench, at: bench.clients.closed(at, bench.seconds, 64, close=True)),
        Bulk("tcp-bulk", "one TCP stream, download", TCP,
             [Figure("mb", "MB/s", HIGHER, 1400), Figure("cpu", "CPU s / GiB", LOWER, 0.8)],
             lambda bench, at: bench.clients.get(at, bench.seconds, "/big")),
        Bulk("http-bulk", "one HTTP download", HTTP,
             [Figure("mb", "MB/s", HIGHER, 1250), Figure("cpu", "CPU s / GiB", LOWER, 1.0)],
             lambda bench, at: bench.clients.get(at, bench.seconds, "/big")),
        Memory("memory", "resident memory, the larger sidecar", HTTP,
               [Figure("used", "after a request, MiB", LOWER), Figure("idle", "idle, MiB", LOWER, 6),
                Figure("held", "1,000 connections, MiB", LOWER, 16),
                Figure("after", "when they are gone, MiB", LOWER)], None),
        Idle("idle", "10,000 idle connections, the caller's sidecar", HTTP,
             [Figure(HTTP, "HTTP/1.1, MiB", LOWER, 60), Figure(TCP, "TCP, MiB", LOWER, 60)], None),
        *(Fairness(name, f"{kind}, 500 requests/s, p99 beside others", mode,
                   [Figure("alone", "alone, ms", LOWER), Figure("download", "beside a download, ms", LOWER),
                    Figure("upload", "beside an upload, ms", LOWER),
                    Figure("stuck", "beside 16 unread answers", LOWER)], None)
          for name, kind, mode in (("fairness", "HTTP/1.1", HTTP), ("fairness-tcp", "TCP", TCP))),
        *(Loss(name, f"{kind}, 500 requests/s, p99 with packets lost", mode,
               [Figure("none", "none, ms", LOWER), Figure("few", "every 1,000th, ms", LOWER),
                Figure("many", "every 100th, ms", LOWER)])
          for name, kind, mode in (("fairness-loss", "HTTP/1.1", HTTP), ("fairness-loss-tcp", "TCP", TCP))),
        Growth("growth", "1,000 upstreams and intentions, 10 = 1", HTTP,
               [Figure("cpu", "CPU, 10 = 1", LOWER, 1.1), Figure("rate", "requests/s, 10 = 1", HIGHER, 0.9),
                Figure("p50", "median, 10 = 1", LOWER, 1.1),
                Figure("upstream", "KiB an upstream", LOWER, 4), Figure("intention", "KiB an intention", LOWER, 1)],
               None),
        Workers("workers", "more workers, HTTP/1.1", HTTP,
                [Figure(f"cpu{count}", f"{per}, {count}", LOWER) for count in Workers.counts]
                + [Figure(f"rate{count}", f"requests/s, {count}", HIGHER) for count in Workers.counts], None),
    ]

"""The clients, all asked in one way: a dict of what came of it."""

import contextlib
import json
import re
import subprocess
import time

# wrk's numbers as JSON.
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"seconds":%f,"bytes":%d,"failed":%d}\\n', summary.requests,
    summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.timeout + e.status))
end
"""


class Failed(Exception):
    """A client did not get what it should; says what."""


class Clients:
    def __init__(self, ours, folder, env, wrk=None, h2load=None):
        self.ours, self.folder, self.env, self.wrk, self.h2load = ours, folder, env, wrk, h2load
        self.running = []

    def closed(self, address, seconds, connections, body=0, close=False, path="/"):
        """Requests one after the other on each connection, as many as are answered."""
        if not self.wrk:
            return self.mine("closed", address, seconds=seconds, connections=connections, body=body, path=path,
                             close="yes" if close else "no")
        script = self.folder / f"wrk-{body}-{close}.lua"
        lines = [REPORT]
        if body:
            lines.append(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body})\n')
        if close:
            lines.append('wrk.headers["Connection"] = "close"\n')
        script.write_text("".join(lines))
        out = self.run([self.wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s",
                        "-s", script, f"http://{address}{path}"], seconds)
        return self.checked(json.loads(out.strip().splitlines()[-1]), "wrk")

    def streams(self, address, seconds, streams):
        """gRPC's unary calls on the streams of one connection."""
        if not self.h2load:
            return self.mine("streams", address, seconds=seconds, streams=streams)
        data = self.folder / "call"
        data.write_bytes(b"\0\0\0\0\4ping")
        out = self.run([self.h2load, "-c1", f"-m{streams}", "-t1", "-D", str(max(1, round(seconds))), "-d", data,
                        "-H", "content-type: application/grpc", "-H", "te: trailers",
                        f"http://{address}/load.Load/Call"], seconds)
        took, requests = re.search(r"finished in ([\d.]+)s", out), re.search(
            r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", out)
        if not (took and requests):
            raise Failed(f"h2load says what is not understood: {out[-300:]}")
        answered, failed, errored = map(int, requests.groups())
        status = re.search(r"status codes: (\d+) 2xx", out)
        told = {"requests": answered, "seconds": float(took[1]), "failed": failed + errored}
        if status and int(status[1]) < answered:
            told["failed"] += answered - int(status[1])
        return self.checked(told, "h2load")

    def rate(self, address, seconds, per_second, connections=64):
        """Requests at fixed times; latencies count from when each was planned."""
        return self.mine("rate", address, seconds=seconds, connections=connections, **{"per-second": per_second})

    def get(self, address, seconds, path):
        """Large bodies on one connection."""
        return self.mine("get", address, seconds=seconds, path=path)

    def hold(self, address, connections):
        """Opens connections and keeps them; the process, whose standard input ends them."""
        process = self.start("hold", address, connections=connections)
        line = process.stdout.readline()
        if not line:
            raise Failed(process.stderr.read())
        return process, json.loads(line)["open"]

    @contextlib.contextmanager
    def held(self, address, connections):
        """The same, while it lasts."""
        process, opened = self.hold(address, connections)
        try:
            if opened != connections:
                raise Failed(f"mesh-load hold: {opened} of {connections} are open")
            yield
        finally:
            process.communicate("", timeout=60)

    @contextlib.contextmanager
    def beside(self, command, address, **options):
        """A client of ours that runs while something else is measured."""
        if command != "hold":
            options["seconds"] = 600
        process = self.start(command, address, **options)
        self.running.append(process.pid)
        try:
            time.sleep(0.5)  # so that it is well under way
            if process.poll() is not None:
                raise Failed(f"mesh-load {command}: {process.stderr.read().strip()}")
            yield
        finally:
            self.running.remove(process.pid)
            process.kill()
            process.communicate()

    def others(self):
        """The pids of what runs beside."""
        return list(self.running)

    def start(self, command, address, **options):
        return subprocess.Popen(self.command(command, address, options), text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def command(self, command, address, options):
        return [str(self.ours), command, address,
                *(part for name, value in options.items() for part in (f"-{name}", str(value)))]

    def mine(self, command, address, **options):
        out = self.run(self.command(command, address, options), options.get("seconds", 5))
        return self.checked(json.loads(out), f"mesh-load {command}")

    def run(self, command, seconds):
        done = subprocess.run([str(one) for one in command], capture_output=True, text=True, env=self.env,
                              timeout=seconds * 3 + 60)
        if done.returncode != 0:
            raise Failed(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @staticmethod
    def checked(told, who):
        if not told.get("requests") and not told.get("bytes"):
            raise Failed(f"{who}: nothing was answered; {told.get('failure', '')}")
        if told["failed"] > 0.001 * told.get("requests", 0) + 1:
            raise Failed(f"{who}: {told['failed']} of {told['requests']} failed; {told.get('failure', '')}")
        return told

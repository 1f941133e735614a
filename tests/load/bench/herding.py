"""An agent with many sidecars that all start at once, and when each has its leaf."""

import contextlib
import json
import re
import resource
import subprocess
import time

import issuing
import mesh

# Services that the sidecars are of.
SERVICES = 50
# The first port of a sidecar.
FIRST_PORT = 21_000
# What a sidecar logs, and a line's length at most.
WHOSE = re.compile(rb'"leaf in use","proxy":"([^"]+)"')
NO_LEAF, LONGEST = b'"no leaf; asking again"', 1000


class Herd:
    """Servers, an agent, and so many instances with sidecars, none of which runs yet."""

    def __init__(self, kind, count, name="herd"):
        self.count = count
        # A connection for each, at the agent and here.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.signers = issuing.Signers(kind, name=name)
        self.mesh = self.signers.mesh
        try:
            self.register()
        except BaseException:
            self.close()
            raise

    def register(self):
        field = self.mesh
        folder = field.folder / "a10-instances"
        folder.mkdir()
        host = field.address(10)
        (folder / "herd.hcl").write_text("".join(
            f'instance "herd-s{number % SERVICES}" {{\n  id = "herd-{number}"\n  address = "{host}"\n  port = 9\n'
            f'  connect {{\n    sidecar_service {{\n      proxy {{\n        config {{\n          bind_address = "{host}"\n'
            f'        }}\n      }}\n    }}\n  }}\n}}\n' for number in range(self.count)))
        field.agent(extra=f"sidecar_max_port = {FIRST_PORT + self.count + 255}\n")
        services = range(min(SERVICES, self.count))

        def known():
            found = 0
            for service in services:
                _, rows = field.api("GET", f"/v1/catalog/services/herd-s{service}")
                rows = rows if isinstance(rows, list) else rows.get("instances", [])
                found += sum(row["id" if "id" in row else "instance"].startswith("herd-") for row in rows)
            return found == self.count

        mesh.until(f"{self.count} instances in the catalog\n{field.tail('a10')}", known, deadline=120, every=0.5)

    def light(self, seconds=120):
        """Sidecars that do nothing but start: (figures, disturbance)."""
        field = self.mesh
        process = subprocess.Popen(
            [mesh.BIN / "mesh-load", "herd", f"{field.run}/a10.sock", "-count", str(self.count), "-seconds", str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            def work():
                return json.loads(process.stdout.readline() or '{"leaves": 0, "errors": {"it ended": 1}}')

            pids = {"agent": [field.processes["a10"].pid], "herd": [process.pid]}
            told, cost, disturbed = issuing.costs(self.signers, pids, work)
        finally:
            with contextlib.suppress(OSError):
                process.communicate(timeout=30)
            if process.poll() is None:
                process.kill()
                process.wait()
        self.whole(told["leaves"], told["errors"], cost)
        again = sum(told["again"].values())
        return self.figures({"p50": told["p50_ms"] / 1000, "last": told["last_ms"] / 1000, "again": again}, cost), disturbed

    def real(self, seconds=600):
        """As many mesh-proxy: (figures, disturbance)."""
        field = self.mesh
        log = field.folder / "herd.log"
        processes, times = [], []

        def work():
            begin = time.monotonic()
            with open(log, "wb") as to:
                for number in range(self.count):
                    processes.append(subprocess.Popen(
                        [mesh.PROXY, "-sidecar-for", f"herd-{number}", "-agent-socket", f"{field.run}/a10.sock"],
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=to))
            started = time.monotonic() - begin
            text, having = b"", set()
            with open(log, "rb") as lines:
                while len(times) < self.count and time.monotonic() - begin < seconds:
                    new = lines.read()
                    text += new
                    # One that had to come again may have been given two.
                    having.update(line for line in WHOSE.findall(text[-len(new) - LONGEST:]) if new)
                    times.extend([time.monotonic() - begin] * (len(having) - len(times)))
                    time.sleep(0.05)
            pids.extend(process.pid for process in processes)
            return started, text

        # Each is new: what it has used in the end is what it used.
        pids = []
        try:
            (started, text), cost, disturbed = issuing.costs(
                self.signers, {"agent": [field.processes["a10"].pid], "herd": pids}, work)
            lost = [process.pid for process in processes if process.poll() is not None]
            errors = {"no leaf": text.count(NO_LEAF)} if NO_LEAF in text else {}
            if lost:
                errors["ended"] = len(lost)
            self.whole(len(times), errors, cost)
            figures = {"started": started, "p50": times[len(times) // 2], "last": times[-1],
                       "again": text.count(b'"no agent; going on with the last config"')}
            return self.figures(figures, cost), disturbed
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()

    def whole(self, leaves, errors, cost):
        """Every sidecar has its leaf, and none was refused one."""
        if leaves != self.count or errors or cost["not_signed"]:
            raise AssertionError(f"{leaves} of {self.count} sidecars have a leaf; errors: {errors}; the servers did "
                                 f"not sign {cost['not_signed']:.0f}")

    def figures(self, figures, cost):
        for who, used in cost["cpu"].items():
            figures[f"{who}_ms"] = used / self.count * 1000
        figures["bound"] = issuing.bound(self.count / figures["last"], figures["last"], self.signers, cost)
        return {**figures, **cost}

    def close(self):
        self.signers.close()

"""The mesh that every scenario runs in: three servers, three nodes, a caller and what it calls."""

import contextlib
import os
import time

import mesh as lib
from mesh import Mesh, http_get, until
from test_vault import SHORT, TOKEN, leaf_end
from traffic import KEPT_RATE, RATE, STREAMS, Traffic, shown
from vault import Vault, bao, block

SIDECARS = ("web-proxy", "users-1-proxy", "users-2-proxy", "echo-proxy")
LOAD = lib.BIN / "mesh-load"


class Field:
    """name: the scenario. row: what is told of it. vault: where OpenBao is to be had, and how leaves are signed;
    built_in_first: the servers know it, and sign by themselves at first."""

    def __init__(self, name, say, row, leaf_ttl="20s", vault=None, built_in_first=False, idle=False):
        self.say, self.row, self.ttl = say, row, leaf_ttl
        if vault:
            bao()
        self.mesh = Mesh(f"endure-{name}", servers=3, default="allow", leaf_ttl=leaf_ttl)
        self.vault, self.traffic = None, None
        self.with_idle = idle
        self.signing, self.built_in_first = vault, built_in_first

    def __enter__(self):
        self.mesh.__enter__()
        try:
            self.start()
        except BaseException:
            self.close(failed=True)
            raise
        return self

    def __exit__(self, kind, error, trace):
        self.close(failed=kind is not None or bool(self.row["problems"]))

    def close(self, failed):
        if self.traffic:
            if "traffic" not in self.row and self.traffic.lines:
                # It went wrong before the end: what there was until then.
                with contextlib.suppress(AssertionError):
                    self.row["traffic"] = self.traffic.stop()
            self.traffic.kill()
        if failed:
            # The logs stay, and are not printed: they are long.
            self.say(f"    kept: {self.mesh.folder.relative_to(lib.ROOT)}")
        self.mesh.close(failed=failed)

    def start(self):
        mesh = self.mesh
        if self.signing:
            self.vault = Vault(mesh)
            self.vault.policy("-leaf-signing", self.signing)
            file = mesh.folder / "vault-token"
            self.vault.new_token(file)
            mesh.ca = block(self.vault, TOKEN.format(file), SHORT.format(self.ttl), leaf_signing=self.signing)
            if self.built_in_first:
                mesh.ca = mesh.ca.replace('provider = "vault"', 'provider = "built_in"')
                mesh.ca = mesh.ca.replace(f'    leaf_signing = "{self.signing}"\n', "")
        mesh.servers()
        for number in (10, 11, 12):
            mesh.agent(number)
        self.serve("users-1", "users", 11, "serve")
        self.serve("users-2", "users", 12, "serve")
        self.serve("echo", "echo", 11, "echo")
        config = mesh.folder / "users.hcl"
        config.write_text('service "users" {\n  protocol = "http"\n}\n')
        mesh.command("config", "write", config)
        mesh.instance("web", upstreams=[("users", 9001), ("echo", 9002)])
        mesh.sidecar("web")
        if self.with_idle:
            mesh.instance("idle", agent="a12")
            mesh.sidecar("idle", agent="a12")
        mesh.wait_passing("users", 2)
        mesh.wait_passing("echo")
        host = mesh.address(10)
        until("traffic", lambda: http_get(f"http://{host}:9001/")[0] == 200)
        self.traffic = Traffic(f"{host}:9001", f"{host}:9002", self.say)
        self.more(5)

    def serve(self, name, service, node, how):
        """An application, its instance and its sidecar."""
        mesh = self.mesh
        place = f"{mesh.address(node)}:18080" if how == "serve" else f"{mesh.address(node)}:18081"
        mesh.start(f"{name}-app", [LOAD, how, place])
        mesh.instance(name, service=service, port=int(place.rsplit(":", 1)[1]), agent=f"a{node}")
        mesh.sidecar(name, agent=f"a{node}")

    # --- while it runs

    def more(self, seconds):
        """Traffic for so long."""
        time.sleep(seconds)

    def note(self, text):
        """What was waited for, and how long it took."""
        self.row["waited"].append(text)
        self.say(f"    {time.time() - self.traffic.began:6.1f} s  {text}")

    def timed(self, what, probe, deadline=120):
        """Waits for something, and notes how long it took; what it answered."""
        began = time.monotonic()
        answer = until(what, probe, deadline)
        self.note(f"{what}: {time.monotonic() - began:.1f} s")
        return answer

    def problem(self, text):
        self.row["problems"].append(text)

    def ends(self):
        """Until when the certificate of each sidecar is good, in seconds since 1970."""
        return {name: leaf_end(self.mesh, name) for name in SIDECARS}

    def renewals(self):
        """How many certificates each sidecar has had."""
        return {name: self.mesh.processes[name].log.read_text(errors="replace").count("leaf in use")
                for name in SIDECARS}

    def kill(self, number):
        self.mesh.processes[f"s{number}"].kill()

    def restart(self, number):
        self.mesh.processes[f"s{number}"].restart()

    def signal(self, process, number):
        os.kill(self.mesh.processes[process].pid, number)

    # --- the end

    def finish(self, nothing_fails=True):
        """Ends the traffic, and says what went wrong with it."""
        self.more(5)
        told = self.row["traffic"] = self.traffic.stop()
        own = [one for one in self.traffic.failures if one["kind"] == "own"]
        if own:
            self.problem(f"the client's own fault: {shown(own, self.traffic.began)}")
        if told["per_second"] + told["failed"] / told["seconds"] < RATE * KEPT_RATE:
            self.problem(f"the client's own fault, or everything was slow: {told['per_second']:.0f} requests a second were "
                         f"asked, not {RATE}; it was woken up to {told['woken_late_max_ms']:.0f} ms late")
        if nothing_fails:
            failures = [one for one in self.traffic.failures if one["kind"] != "own"]
            if failures:
                self.problem(shown(failures, self.traffic.began))
            if told["opened"] != STREAMS or told["open"] != STREAMS:
                self.problem(f"{told['opened']} streams were opened, and {told['open']} were there at the end, not {STREAMS}")
        for name, process in self.mesh.processes.items():
            if not process.running():
                self.problem(f"{name} has ended, with {process.process.returncode}: {process.tail(3)}")

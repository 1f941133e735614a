"""The mesh as jobs of Nomad: three servers and an agent, on one machine."""

import contextlib
import os
import pathlib
import pwd
import shutil

from mesh import BIN, until
from nomad import NODE, NomadMesh, job_file

# A user that every machine has, and that is not root.
USER = "daemon"


class JobsMesh(NomadMesh):
    """Nomad, and the mesh as its jobs."""

    def __init__(self, name):
        super().__init__(name, servers=3)
        self.run.chmod(0o755)
        (self.shim / "consul").unlink()  # the agent's job makes it
        self.doors["a10"] = "127.0.0.1"
        self.addresses = []  # of the servers' APIs, where Nomad is not to be asked
        self.owner = pwd.getpwnam(USER)
        self.bin = self.run / "bin"
        self.bin.mkdir()
        for name in ("meshctl", "mesh-proxy", "mesh-demo"):
            try:
                os.link(BIN / name, self.bin / name)
            except OSError:
                shutil.copy2(BIN / name, self.bin / name)

    def folder_of(self, name, files):
        """A folder of the machine with files of the operator's, owned as docs/nomad.md says."""
        folder = self.run / name
        folder.mkdir()
        for name, source in files.items():
            shutil.copy(source, folder / name)
            if not name.endswith(".pem"):
                os.chown(folder / name, self.owner.pw_uid, -1)
                os.chmod(folder / name, 0o600)
        return folder

    def prepare(self):
        """What an operator does on each machine."""
        tls = self.folder / "tls"
        ca = {"cluster-ca.pem": tls / "cluster-ca.pem"}
        for number in range(3):
            self.command("tls", "cert", "create", "-server", "-id", f"s{number}", "-dir", tls)
            self.folder_of(f"server-{number}", {
                **ca, "server.pem": tls / f"server-s{number}.pem", "server.key": tls / f"server-s{number}.key",
                "sealing.key": self.sealing})
            state = self.run / f"state-{number}"
            state.mkdir(mode=0o700)
            os.chown(state, self.owner.pw_uid, -1)
        self.cert("agent", "a10")
        self.folder_of("agent", {**ca, "agent.pem": tls / "agent-a10.pem", "agent.key": tls / "agent-a10.key"})

    def volume(self):
        """What Nomad's client has, so that it may have a server."""
        return f'  host_volume "mesh-server" {{\n    path = "{self.run}"\n  }}\n'

    def run_servers(self, config="", deadline=180):
        self.run_job(job_file("mesh-server"), deadline=deadline, variables={
            "bin": self.bin, "user": USER, "distinct_hosts": "false", "http_port": 0, "grpc_port": 0,
            "data_dir": f"{self.run}/state-${{NOMAD_ALLOC_INDEX}}", "node_name": "s${NOMAD_ALLOC_INDEX}",
            "certificates": f"{self.run}/server-${{NOMAD_ALLOC_INDEX}}", "config": config})

    def run_agents(self, config=""):
        self.run_job(job_file("mesh-agent"), deadline=120, variables={
            "bin": self.bin, "user": USER, "certificates": self.run / "agent", "data_dir": self.run / "agent-data",
            "shim_dir": self.shim, "cni_dir": self.folder / "cni", "nomad_addr": f"http://{NODE}:4646",
            "config": config})

    def http_address(self, server):
        """By Nomad's word, as an operator finds it."""
        if "nomad" not in self.processes:
            return super().http_address(server)
        found = self.addresses or self.look()
        return found[(server - 1) % len(found)]

    def look(self):
        found = self.api_nomad("/v1/service/mesh-server-http")
        return [(one["Address"], one["Port"]) for one in sorted(found, key=lambda one: one["AllocID"])]

    def all_ready(self):
        for server in (1, 2, 3):
            until(f"server {server} is ready",
                  lambda at=server: self.api("GET", "/v1/status/ready", server=at, raw=True)[0] == 200)

    def processes_of(self, part):
        """The pids of the servers or the agents."""
        found = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/meshctl") and words[1] == part.encode():
                    found.add(int(entry))
        return found

    def voters(self):
        return [one for one in self.api("GET", "/v1/operator/raft/peers")[1] if one["voter"]]

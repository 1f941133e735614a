"""Clients of a real Nomad, each on a machine of its own: its own network, mounts and folders."""

import contextlib
import os
import pathlib
import signal

from mesh import until
from nomad import NODE, PLUGINS, binary, sh
from quickstart import Guarded

BRIDGE = "mt-br"
# What is a machine's own beneath /run and /var.
OWN = ("/run/netns", "/run/cni", "/run/meshctl", "/var/lib/cni")
# Mounts over what the machines would share, then becomes Nomad: FROM TO pairs, `--`, a command.
BEGIN = f'''set -e
for folder in {" ".join(OWN)}; do
  mount -t tmpfs -o mode=0755 tmpfs "$folder"
done
while [ "$1" != -- ]; do
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"'''


class Machine:
    """One client, on one network with the others."""

    def __init__(self, mesh, number, volume):
        self.mesh, self.name, self.address = mesh, f"machine-{number}", f"10.77.0.{10 + number}"
        self.net, self.folder = f"mt-{number}", mesh.run / self.name
        self.folder.mkdir(mode=0o755)
        self.wire(number)
        pairs = []
        for shared in (mesh.data, mesh.run / "agent-data", mesh.shim, mesh.folder / "cni"):
            own = self.folder / shared.name
            own.mkdir(mode=0o755)
            shared.mkdir(mode=0o755, exist_ok=True)
            pairs += [own, shared]
        self.data = self.folder / mesh.data.name
        # A data_dir that Nomad makes by itself is closed to those who are not root.
        (self.folder / "nomad").mkdir(mode=0o755)
        config = mesh.folder / f"{self.name}.hcl"
        config.write_text(f'''name      = "{self.name}"
data_dir  = "{self.folder}/nomad"
bind_addr = "{self.address}"
client {{
  enabled           = true
  servers           = ["{NODE}:4647"]
  network_interface = "mesh0"
  cni_path          = "{':'.join(PLUGINS)}:{mesh.folder}/cni"
  gc_disk_usage_threshold = 99
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
{mesh.volume() if volume else ""}}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
consul {{
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}}
disable_update_check = true
{mesh.extra}''')
        env = {name: "" for name in os.environ if name.startswith(("NOMAD_", "CONSUL_", "AWS_"))}
        env["PATH"] = f"{mesh.shim}:{os.environ['PATH']}"
        self.process = mesh.start(self.name, [
            "nsenter", f"--net=/run/netns/{self.net}", "unshare", "--mount", "sh", "-c", BEGIN, "sh",
            *pairs, "--", binary(), "agent", "-config", config], env=env)

    def wire(self, number):
        """Its network, on the bridge of all."""
        if BRIDGE not in sh("ip", "link", "show"):
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "link", "set", "mesh1", "master", BRIDGE)
            sh("ip", "link", "set", BRIDGE, "up")
        sh("ip", "netns", "add", self.net)
        sh("ip", "link", "add", f"mt-v{number}", "type", "veth", "peer", "name", "mesh0", "netns", self.net)
        sh("ip", "link", "set", f"mt-v{number}", "master", BRIDGE, "up")
        inside = ("ip", "-n", self.net)
        sh(*inside, "link", "set", "lo", "up")
        sh(*inside, "addr", "add", f"{self.address}/24", "dev", "mesh0")
        sh(*inside, "link", "set", "mesh0", "up")
        sh(*inside, "route", "add", "default", "via", "10.77.0.254")

    def pids(self):
        """All that runs on it."""
        found, own = set(), os.stat(f"/run/netns/{self.net}").st_ino
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.stat(entry / "ns" / "net").st_ino == own:
                    found.add(int(entry.name))
        return found

    def lose(self):
        """It goes, at once and without a word, and Nomad has noticed."""
        self.process.kill()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(f"Nomad misses {self.name}", lambda: self.name not in self.mesh.heard(), deadline=120)


class Machines(Guarded):
    """The quickstart on Nomad's server with a client, and machines besides. Nomad has ACLs, and the quickstart the
    least that it needs."""

    def __init__(self, name):
        super().__init__(name)
        self.machines = {}

    def machine(self, number, volume=True):
        """One more; volume: it may have a server. Waits until Nomad hears it."""
        one = Machine(self, number, volume)
        self.machines[one.name] = one
        until(f"{one.name} is heard\n{self.tail(one.name)}", lambda: one.name in self.heard(), deadline=60)
        return one

    def quickstart(self, **variables):
        """With the ports that it has by itself; every machine may be asked."""
        addresses = [NODE, *(one.address for one in self.machines.values())]
        self.http_address = lambda server: (addresses[server - 1], 8700)
        self.configure(volume="mesh-server", mesh_address=",".join(f"https://{one}:8700" for one in addresses), **variables)
        self.allow()
        self.give_token()

    def heard(self):
        """The names of the machines that Nomad hears."""
        return {one["Name"] for one in self.api_nomad("/v1/nodes") if one["Status"] == "ready"}

    def placed(self, prefix="mesh-server-"):
        """{job: machine} of the jobs that Nomad runs."""
        return {one["JobID"]: one["NodeName"] for one in self.api_nomad("/v1/allocations")
                if one["ClientStatus"] == "running" and one["JobID"].startswith(prefix)}

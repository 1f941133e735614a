"""A real Nomad, one node that is server and client, beside a mesh, in namespaces of the tests' own."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

from mesh import BIN, MESHCTL, ROOT, Mesh, until

NODE = "10.77.0.1"  # in this network namespace only
PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")


def binary():
    given = os.environ.get("NOMAD_BIN")
    return given if given else shutil.which("nomad")


def missing():
    """Why a real Nomad cannot run here, or None."""
    if os.geteuid() != 0:
        return "root is needed: Nomad makes network namespaces"
    if not os.environ.get("MESH_OWN_NAMESPACES"):
        return "namespaces cannot be made here"
    if not binary():
        return "no `nomad` on PATH, and NOMAD_BIN is not set"
    if not any(pathlib.Path(path, "bridge").exists() for path in PLUGINS):
        return "the CNI plugins are not in " + " or ".join(PLUGINS)
    for program in ("iptables", "ip"):
        if not shutil.which(program):
            return f"`{program}` is not on PATH"
    return None


def sh(*arguments, check=True):
    run = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, timeout=60)
    if check and run.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}: exit {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def network():
    """An address that allocations reach, and folders that are this namespace's own. Once a process."""
    if pathlib.Path("/sys/class/net/mesh0").exists() or "mesh0" in sh("ip", "link", "show"):
        return
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "mesh0", "type", "veth", "peer", "name", "mesh1")
    sh("ip", "addr", "add", f"{NODE}/24", "dev", "mesh0")
    sh("ip", "link", "set", "mesh0", "up")
    sh("ip", "link", "set", "mesh1", "up")
    sh("ip", "route", "add", "default", "via", "10.77.0.254")
    # Where Nomad, the plugins and the agent keep what is this machine's otherwise.
    for folder in ("/run/netns", "/run/cni", "/run/meshctl", "/var/lib/cni"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        sh("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)


class NomadMesh(Mesh):
    """A server, an agent where Nomad looks for Consul, and Nomad."""

    def __init__(self, name, default="deny", **options):
        network()
        super().__init__(name, default=default, **options)
        self.shim = self.folder / "shim"
        self.shim.mkdir()
        (self.shim / "consul").symlink_to(MESHCTL)
        self.token = ""  # of Nomad's, where it has ACLs

    def begin(self, extra="", agent_extra="", consul="", server_extra=""):
        """extra: of Nomad's configuration; agent_extra, server_extra: of the mesh's; consul: of Nomad's consul block."""
        self.server(extra=server_extra)
        self.ready()
        self.agent(extra=agent_extra, door="127.0.0.1", advertise=NODE, socket="/run/meshctl/agent.sock")
        self.nomad(extra, consul)

    def nomad(self, extra="", consul="", client="", ready=True):
        """client: of Nomad's client block; ready: waits until Nomad found the agent."""
        config = self.folder / "nomad.hcl"
        config.write_text(f'''data_dir  = "{self.run}/nomad"
bind_addr = "{NODE}"
server {{
  enabled          = true
  bootstrap_expect = 1
}}
client {{
  enabled           = true
  network_interface = "mesh0"
  cni_path          = "{':'.join(PLUGINS)}:{self.folder}/cni"
  # A disk that others fill must not have it take away what a test looks at.
  gc_disk_usage_threshold = 99
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
{client}}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
consul {{
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
{consul}}}
disable_update_check = true
{extra}
''')
        self.start_nomad(ready)

    def start_nomad(self, ready=True):
        env = {"PATH": f"{self.shim}:{os.environ['PATH']}"}
        for name in list(os.environ):
            if name.startswith(("NOMAD_", "CONSUL_", "AWS_")):
                env[name] = ""
        self.start("nomad", [binary(), "agent", "-config", self.folder / "nomad.hcl"], env=env)
        self.until_ready(found=ready)

    def until_ready(self, found=True):
        """found: and has found the agent."""
        def probe():
            nodes = self.api_nomad("/v1/nodes")
            return nodes and nodes[0]["Status"] == "ready" and (not found or self.attribute("consul.grpc"))
        until(f"the Nomad node is ready\n{self.tail('nomad')}", probe, deadline=60)

    def attribute(self, name):
        node = self.api_nomad("/v1/nodes")[0]["ID"]
        return self.api_nomad(f"/v1/node/{node}")["Attributes"].get(name)

    def api_nomad(self, path, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{NODE}:4646{path}", data=data, method=method,
                                         headers={"X-Nomad-Token": self.token} if self.token else {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=15) as response:
            return json.loads(response.read() or b"null")

    def run_job(self, path, deadline=90, variables=None, detach=False):
        """`nomad job run`, to the deployment's end unless detached; its output."""
        arguments = [binary(), "job", "run", *(["-detach"] if detach else [])]
        for key, value in ({"bin": BIN} if variables is None else variables).items():
            arguments += ["-var", f"{key}={value}"]
        run = subprocess.run([*map(str, arguments), str(path)], capture_output=True, text=True, timeout=deadline,
                             env={**os.environ, "NOMAD_ADDR": f"http://{NODE}:4646", "NOMAD_TOKEN": self.token})
        if run.returncode != 0:
            raise AssertionError(f"nomad job run {path}: exit {run.returncode}\n{run.stdout}{run.stderr}\n"
                                 f"{self.tail('nomad')}")
        return run.stdout

    def write_job(self, name, text):
        path = self.folder / f"{name}.nomad.hcl"
        path.write_text(text)
        return path

    def stop_job(self, name):
        self.api_nomad(f"/v1/job/{name}?purge=true", method="DELETE")

    def deployment(self, job):
        return self.api_nomad(f"/v1/job/{job}/deployment")

    def allocations(self, job, running=True):
        found = self.api_nomad(f"/v1/job/{job}/allocations")
        return [one for one in found if not running or one["ClientStatus"] == "running"]

    def allocation(self, job, group):
        """The one running allocation of a group."""
        def probe():
            found = [one for one in self.allocations(job) if one["TaskGroup"] == group]
            return found[0] if len(found) == 1 else None
        return until(f"one running allocation of {job}/{group}", probe)

    def alloc_dir(self, allocation):
        return pathlib.Path(self.run) / "nomad" / "alloc" / allocation["ID"]

    def task_log(self, allocation, task, kind="stdout"):
        return (self.alloc_dir(allocation) / "alloc" / "logs" / f"{task}.{kind}.0").read_text(errors="replace")

    def inside(self, allocation, *arguments, check=True):
        """Runs a program in the allocation's network namespace."""
        return sh("nsenter", f"--net=/run/netns/{allocation['ID']}", *arguments, check=check)

    def sidecars(self):
        """The processes of the sidecars, by their allocation: as they are, not as anyone says."""
        found = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().decode().split("\0")
                if words[0].endswith("/mesh-proxy"):
                    found[pathlib.Path(words[2]).parts[-4]] = int(entry)
        return found

    def instances(self, *services):
        """What the servers know of them."""
        rows = []
        for service in services:
            _, found = self.api("GET", f"/v1/catalog/services/{service}")
            rows += found if isinstance(found, list) else found["instances"]
        return rows

    def registrations(self, agent="a10"):
        """How often an instance was registered with the agent."""
        return self.processes[agent].log.read_text(errors="replace").count("registered instance=")


class Wire:
    """Everything that crosses this namespace's interfaces, for as long as this lives."""

    def __init__(self):
        # Bound to none, so that what the bridge passes from port to port is seen too.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.settimeout(0.2)
        self.packets = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.ending.is_set():
            with contextlib.suppress(socket.timeout):
                self.packets.append(self.socket.recv(65536))

    def stop(self):
        self.ending.set()
        self.thread.join()
        self.socket.close()
        return self.packets


def job_file(name):
    return ROOT / "jobspecs" / f"{name}.nomad.hcl"


def quiet(seconds):
    """Lets time pass: for what must NOT happen in it."""
    time.sleep(seconds)

"""The real `terraform` with the provider as it is built here, from a mirror in a folder."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading

from mesh import BIN

PROVIDER = "registry.terraform.io/meshctl/mesh/0.1.0/linux_amd64/terraform-provider-mesh_v0.1.0"


def program():
    return os.environ.get("TERRAFORM_BIN") or shutil.which("terraform")


def missing():
    """Why terraform cannot run here, or None."""
    return None if program() else "no `terraform` on PATH, and TERRAFORM_BIN is not set"


class Terraform:
    """A configuration in a folder of its own."""

    def __init__(self, source, folder, variables):
        self.folder = pathlib.Path(folder) / "terraform"
        shutil.copytree(source, self.folder)
        self.log = self.folder / "provider.log"
        mirror = pathlib.Path(folder) / "mirror"
        binary = mirror / PROVIDER
        binary.parent.mkdir(parents=True)
        try:
            os.link(BIN / "terraform-provider-mesh", binary)
        except OSError:
            shutil.copy2(BIN / "terraform-provider-mesh", binary)
        config = pathlib.Path(folder) / "terraform.rc"
        config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith(("TF_", "NOMAD_", "MESHCTL_", "AWS_")) and not name.lower().endswith("_proxy")}
        self.env.update(TF_CLI_CONFIG_FILE=str(config), CHECKPOINT_DISABLE="1", TF_IN_AUTOMATION="1",
                        TF_LOG_PROVIDER="DEBUG", TF_LOG_PATH=str(self.log))
        self.write(**variables)
        self.run("init")

    def write(self, **variables):
        """Adds to the variables; a None takes one out."""
        path = self.folder / "terraform.tfvars.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known.update(variables)
        path.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))

    def start(self, *arguments):
        name, *rest = arguments
        flags = ["-no-color", *(["-input=false"] if name in ("init", "plan", "apply", "import") else [])]
        if name == "state":
            flags = []
        return subprocess.Popen([program(), name, *flags, *rest], cwd=self.folder, env=self.env, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True)

    def run(self, *arguments, expect=0, deadline=400):
        """Its output; expect: the exit code."""
        process = self.start(*arguments)
        try:
            said, _ = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise AssertionError(f"terraform {' '.join(arguments)} took more than {deadline} s\n{self.tail()}") from None
        if process.returncode != expect:
            raise AssertionError(f"terraform {' '.join(arguments)}: exit {process.returncode}, not {expect}\n{said}\n{self.tail()}")
        return said

    def kill(self, process):
        """As a crash: terraform and the provider that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def apply(self, **options):
        return self.run("apply", "-auto-approve", **options)

    def changes(self):
        """What a plan would do: {address: actions}, without what stays."""
        self.run("plan", "-out", "plan.bin")
        plan = json.loads(self.run("show", "-json", "plan.bin"))
        found = {one["address"]: one["change"]["actions"] for one in plan.get("resource_changes", [])}
        return {address: actions for address, actions in found.items() if actions != ["no-op"]}

    def state(self, address):
        """The attributes of a resource, as they are kept."""
        state = json.loads(self.run("show", "-json"))
        found = [one for one in state["values"]["root_module"]["resources"] if one["address"] == address]
        return found[0]["values"]

    def tail(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def written(self):
        """Every file that it and its plans left, and its log: (path, bytes)."""
        for path in self.folder.rglob("*"):
            if path.is_file() and ".terraform/" not in str(path) and path.suffix not in (".tf", ".md"):
                yield path, path.read_bytes()


class Door:
    """What stands before the servers: passes each connection on to one of them, as a load balancer does."""

    def __init__(self, address, port, servers):
        self.servers = servers
        self.listener = socket.create_server((address, port))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._pass, args=(connection,), daemon=True).start()

    def _pass(self, connection):
        with connection:
            for target in self.servers():
                with contextlib.suppress(OSError), socket.create_connection(target, timeout=2) as other:
                    other.settimeout(None)
                    back = threading.Thread(target=self._copy, args=(other, connection), daemon=True)
                    back.start()
                    self._copy(connection, other)
                    back.join()
                    return

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()

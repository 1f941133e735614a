"""The real terraform or tofu, with our provider from a filesystem mirror."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

from mesh import BIN, HttpApp

PROVIDER = BIN / "terraform-provider-mesh"
VERSION = "0.1.0"
HEAD = """
terraform {
  required_providers {
    mesh = { source = "meshctl/mesh" }
  }
}
"""


class Failed(AssertionError):
    """It ended badly; all that it said."""


class Terraform:
    """One configuration in a folder of its own."""

    def __init__(self, program, folder, env, provider='provider "mesh" {}'):
        self.program = program
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        mirror = self.folder / "mirror"
        subprocess.run([PROVIDER, "mirror", mirror], check=True, capture_output=True)
        settings = self.folder / "terraformrc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "MESHCTL_"))}
        self.env = {**kept, **env, "TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1",
                    "CHECKPOINT_DISABLE": "1", "NO_COLOR": "1"}
        self.provider = provider
        self.write("")
        self.run("init")

    def write(self, text):
        """The configuration from now on."""
        for file in self.folder.glob("*.tf"):
            file.unlink()
        (self.folder / "main.tf").write_text(f"{HEAD}{self.provider}\n{text}\n")

    def run(self, *arguments, expect=0, env=None):
        """What it printed. expect: the exit code, or None for any, with the code."""
        run = subprocess.run([self.program, *map(str, arguments)], cwd=self.folder, env={**self.env, **(env or {})},
                             capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
        said = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
        if expect is None:
            return run.returncode, said
        if run.returncode != expect:
            shown = " ".join(map(str, arguments))
            raise Failed(f"{self.program} {shown}: exit {run.returncode}, not {expect}\n{said}")
        return said

    def apply(self, text=None, **more):
        if text is not None:
            self.write(text)
        return self.run("apply", "-auto-approve", "-no-color", **more)

    def refused(self, text=None, *, plan=False):
        """What an apply (or a plan) that fails says, in one line."""
        if text is not None:
            self.write(text)
        arguments = ("plan",) if plan else ("apply", "-auto-approve")
        said = self.run(*arguments, "-no-color", expect=1)
        return " ".join(said.replace("│", " ").split())

    def planned(self, text=None):
        """The actions of a plan, by address; an empty one: nothing to do."""
        if text is not None:
            self.write(text)
        code, said = self.run("plan", "-detailed-exitcode", "-out=plan", expect=None)
        if code not in (0, 2):
            raise Failed(said)
        plan = json.loads(self.run("show", "-json", "plan"))
        changes = {one["address"]: one["change"]["actions"] for one in plan.get("resource_changes", [])}
        changes = {address: "/".join(actions) for address, actions in changes.items() if actions != ["no-op"]}
        assert bool(changes) == (code == 2), said
        return changes

    def state(self):
        """The attributes of each resource, by address."""
        state = json.loads(self.run("show", "-json"))
        root = state.get("values", {}).get("root_module", {})
        return {one["address"]: one["values"] for one in root.get("resources", [])}

    def outputs(self):
        return {name: one["value"] for name, one in json.loads(self.run("output", "-json")).items()}

    def destroy(self):
        self.run("destroy", "-auto-approve", "-no-color")

    def popen(self, *arguments):
        return subprocess.Popen([self.program, *arguments], cwd=self.folder, env=self.env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def providers_of(pid):
    """The provider processes that a terraform started."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            name = os.readlink(entry / "exe")
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid and "terraform-provider-mesh" in name:
            found.append(int(entry.name))
    return found


class Between:
    """A server's API in plain HTTP, with somebody who may answer in its place.

    `before(method, path)` and `after(method, path)` see each request: the first may answer
    (status, JSON) itself, the second is called when the server has answered and nobody was told yet.
    """

    def __init__(self, mesh, server=1):
        self.before = self.after = lambda method, path: None
        self.seen = []

        def behave(handler):
            method, path = handler.command, handler.path
            self.seen.append((method, path))
            answer = self.before(method, path)
            if answer is None:
                body = json.loads(handler.body) if handler.body else None
                kept = {"X-Meshctl-Owner": handler.headers.get("X-Meshctl-Owner", "api")}
                answer = mesh.api(method, path, body, server=server, raw=True, headers=kept)
                self.after(method, path)
            status, json_body = answer
            handler.answer(status, json.dumps(json_body).encode(), {"Content-Type": "application/json"})
            return True

        self.app = HttpApp("between", "127.0.0.1", behave)
        self.address = f"http://127.0.0.1:{self.app.port}"

    def close(self):
        self.app.close()


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def found(program):
    return shutil.which(program) is not None

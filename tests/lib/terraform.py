"""The real terraform or tofu, with our provider from a filesystem mirror."""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import zipfile

from mesh import BIN, ROOT, HttpApp

PROVIDER = BIN / "terraform-provider-mesh"
VERSION = "0.1.0"
# By name; $TERRAFORM_BIN and $TOFU_BIN say where, else PATH.
PROGRAMS = ("terraform", "tofu")
PLAIN = ("init", "plan", "apply", "destroy", "import")  # what they say is to be read: no colours, no boxes
HEAD = """
terraform {
  required_providers {
    mesh = { source = "meshctl/mesh" }
  }
}
"""


def found(program):
    """Where it is, or None."""
    return os.environ.get(f"{program.upper()}_BIN") or shutil.which(program)


def missing(program=None):
    """Why it cannot run here, or None; without a name, why neither can."""
    if any(found(one) for one in ([program] if program else PROGRAMS)):
        return None
    return f"there is no {program or ' and no '.join(PROGRAMS)} on PATH"


def either():
    """The program of a test that needs one only: $MESH_TERRAFORM, or the first that there is."""
    return os.environ.get("MESH_TERRAFORM") or next(filter(found, PROGRAMS))


def under_each(cases):
    """Makes a TestCase of it for each program, whose name is `program` in it."""
    for program in PROGRAMS:
        name = f"{cases.__name__}With{program.capitalize()}"
        case = type(name, (cases, unittest.TestCase), {"program": program, "__module__": cases.__module__})
        setattr(sys.modules[cases.__module__], name, unittest.skipIf(missing(program), missing(program))(case))
    return cases


@functools.lru_cache(maxsize=None)
def shared_mirror():
    """As users make it; once a process."""
    base = ROOT / "target" / "tests"
    base.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-", dir=base))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([PROVIDER, "mirror", folder], check=True, capture_output=True)
    return folder


class Failed(AssertionError):
    """It ended badly; all that it said."""


class Terraform:
    """One configuration in a folder of its own: a text (`write`), or a copy of the folder `source` with
    `variables`."""

    def __init__(self, program, folder, env=None, provider='provider "mesh" {}', *, source=None, variables=None,
                 mirror=None):
        self.program = found(program)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "provider.log"
        settings = self.folder / "terraformrc"
        settings.write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror or shared_mirror()}"\n  }}\n}}\n')
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("TF_", "MESHCTL_", "NOMAD_", "AWS_")) and not key.lower().endswith("_proxy")}
        self.env = {**kept, "TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1", "TF_INPUT": "0",
                    "TF_LOG_PROVIDER": "DEBUG", "TF_LOG_PATH": str(self.log), "CHECKPOINT_DISABLE": "1",
                    **{f"TF_CLI_ARGS_{one}": "-no-color" for one in PLAIN}, **(env or {})}
        self.provider = provider
        if source is None:
            self.write("")
        else:
            shutil.copytree(source, self.folder, dirs_exist_ok=True)
            self.set(**(variables or {}))
        self.run("init")

    def write(self, text):
        """The configuration from now on."""
        for file in self.folder.glob("*.tf"):
            file.unlink()
        (self.folder / "main.tf").write_text(f"{HEAD}{self.provider}\n{text}\n")

    def set(self, **variables):
        """Adds to the variables; a None takes one out."""
        path = self.folder / "terraform.tfvars.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known.update(variables)
        path.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))

    def start(self, *arguments, env=None):
        """In a group of its own, so that what it started can be ended with it."""
        return subprocess.Popen([self.program, *map(str, arguments)], cwd=self.folder, env={**self.env, **(env or {})},
                                text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True)

    def run(self, *arguments, expect=0, env=None, deadline=400):
        """What it printed. expect: the exit code, or None for any, with the code."""
        process = self.start(*arguments, env=env)
        shown = " ".join(map(str, (self.program, *arguments)))
        try:
            said, _ = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise Failed(f"{shown}: more than {deadline} s\n{self.tail()}") from None
        if expect is None:
            return process.returncode, said
        if process.returncode != expect:
            raise Failed(f"{shown}: exit {process.returncode}, not {expect}\n{said}\n{self.tail()}")
        return said

    def kill(self, process):
        """As a crash: terraform and the provider that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def apply(self, text=None, **more):
        if text is not None:
            self.write(text)
        return self.run("apply", "-auto-approve", **more)

    def refused(self, text=None, *, plan=False):
        """What an apply (or a plan) that fails says, in one line."""
        if text is not None:
            self.write(text)
        arguments = ("plan",) if plan else ("apply", "-auto-approve")
        return " ".join(self.run(*arguments, expect=1).split())

    def planned(self, text=None):
        """The actions of a plan, by address; an empty one: nothing to do."""
        if text is not None:
            self.write(text)
        code, said = self.run("plan", "-detailed-exitcode", "-out=plan", expect=None)
        if code not in (0, 2):
            raise Failed(f"{said}\n{self.tail()}")
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
        return self.run("destroy", "-auto-approve")

    def tail(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def written(self):
        """Every file that it left, plans unpacked, and its log: (path, bytes)."""
        for path in self.folder.rglob("*"):
            if not path.is_file() or ".terraform/" in str(path) or path.suffix in (".tf", ".md"):
                continue
            if not zipfile.is_zipfile(path):
                yield path, path.read_bytes()
                continue
            with zipfile.ZipFile(path) as packed:
                for name in packed.namelist():
                    yield path / name, packed.read(name)


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


"""The units in jobspecs/systemd: what systemd itself says of them, and what the programs need of it."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from mesh import BIN, MESHCTL, ROOT, Mesh, until

UNITS = ROOT / "jobspecs" / "systemd"
# What `systemd-analyze security` gives: 0 is shut, 10 is open. A new line in a unit that opens it is to be seen.
EXPOSURE = 20  # tenths
# Which unit runs what, as it is started in a test.
PARTS = {"mesh-server.service": "s1", "mesh-agent.service": "a10", "mesh-proxy@.service": "web-proxy"}


def run(*arguments):
    return subprocess.run([str(one) for one in arguments], capture_output=True, text=True, timeout=120)


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
class Units(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="units-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for unit in UNITS.glob("*.service"):
            text = unit.read_text()
            self.assertIn("ExecStart=/usr/local/bin/", text)
            (self.folder / unit.name).write_text(text.replace("/usr/local/bin/", f"{BIN}/"))

    def test_systemd_understands_every_line(self):
        units = sorted(self.folder.glob("*.service"))
        self.assertEqual({unit.name for unit in units}, set(PARTS))
        verified = run("systemd-analyze", "verify", "--man=no", *units)
        self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))

    def test_they_are_shut(self):
        for unit in PARTS:
            said = run("systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", self.folder / unit)
            self.assertEqual(said.returncode, 0, f"{unit}\n{said.stdout[-400:]}{said.stderr}")

    @unittest.skipUnless(shutil.which("strace"), "no strace")
    def test_no_part_makes_a_system_call_that_its_unit_forbids(self):
        with Mesh("units", default="allow") as mesh:
            start = mesh.start

            def traced(name, arguments, **options):
                if name in PARTS.values():
                    arguments = ["strace", "-f", "-qq", "-c", "-U", "name", "-o", mesh.folder / f"{name}.calls", *arguments]
                return start(name, arguments, **options)
            mesh.start = traced
            mesh.servers()
            mesh.agent(start=False)
            # Before it starts, since strace would not pass the signal to read it on.
            mesh.instance("web", port=mesh.app("web").port)
            mesh.start("a10", [MESHCTL, "agent", "-config", mesh.folder / "a10.hcl"])
            mesh.sidecar("web")
            mesh.wait_passing("web")
            mesh.command("intention", "create", "-deny", "-wait", "a", "web")
            for name in reversed(PARTS.values()):
                # strace passes no signal on: its child is told.
                process = mesh.processes[name]
                for child in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(child), 15)
                until(f"{name} ends", lambda it=process: not it.running())
            for unit, name in PARTS.items():
                # The table stands between two rules; before it stand calls in the middle of which a thread ended.
                _, table, _ = re.split(r"(?m)^-+$", (mesh.folder / f"{name}.calls").read_text())
                made = set(table.split())
                self.assertIn("epoll_wait", made)
                forbidden = made - self.allowed((self.folder / unit).read_text())
                self.assertEqual(forbidden, set(), unit)

    def allowed(self, unit):
        calls = set()
        for line in re.findall(r"(?m)^SystemCallFilter=(.*)$", unit):
            groups = set().union(*(self.members(group) for group in line.lstrip("~").split()))
            calls = calls - groups if line.startswith("~") else calls | groups
        return calls | self.members("@default")

    def members(self, group):
        if not group.startswith("@"):
            return {group}
        said = run("systemd-analyze", "syscall-filter", group).stdout.splitlines()[1:]
        names = [line.strip() for line in said]
        return set().union(*(self.members(one) for one in names if one and not one.startswith("#")))

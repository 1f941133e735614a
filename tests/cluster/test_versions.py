"""Servers of two versions in one cluster: one of today beside two of tomorrow, which know a command more."""

import random
import subprocess
import unittest

from mesh import BIN, MESHCTL, PROFILE, ROOT, Mesh, until
from test_crash import ANSWER, leader, names

TOMORROW = BIN / "meshctl-tomorrow"
# The leader looks every half a minute whether all speak more.
RAISE = 120


def setUpModule():
    build = ["cargo", "build", "--locked", "--quiet", "-p", "meshctl", "--bin", "meshctl-tomorrow",
             "--features", "tomorrow", *(["--release"] if PROFILE == "release" else [])]
    subprocess.run(build, cwd=ROOT, check=True)


def level(mesh, number):
    return mesh.api("GET", "/v1/status", server=number)[1]["cluster"]["level"]


class Versions(unittest.TestCase):
    def test_an_upgrade_one_server_after_the_other(self):
        with Mesh("versions", servers=3) as mesh:
            for number, program in ((1, TOMORROW), (2, TOMORROW), (3, MESHCTL)):
                mesh.server(number, program=program)
            mesh.ready()
            for kind, numbers in (("today", (3,)), ("tomorrow", (1, 2))):
                self.lead(mesh, numbers)
                self.works(mesh, kind)
                self.snapshot(mesh, kind, numbers[0])
            self.not_yet(mesh)

            # The last is upgraded: the same data, another program.
            today = mesh.processes["s3"]
            arguments = list(today.arguments)
            self.assertEqual(today.stop(), 0)
            self.not_yet(mesh, (1, 2))
            today.arguments = [str(TOMORROW), *arguments[1:]]
            today.restart()
            mesh.ready(3)
            until("the level rises", lambda: all(level(mesh, number) == 2 for number in (1, 2, 3)), RAISE)
            self.assertIn("every server speaks a new level", "".join(
                mesh.processes[f"s{number}"].log.read_text() for number in (1, 2, 3)))
            mesh.api("POST", "/v1/tomorrow", server=3, timeout=ANSWER)
            self.works(mesh, "raised")
            self.snapshot(mesh, "raised", 1, TOMORROW)
            for number in (1, 2, 3):
                self.assertIn("tomorrow", names(mesh, number))
            # What is on their disks is read again.
            for number in (1, 2, 3):
                mesh.processes[f"s{number}"].kill()
            for number in (1, 2, 3):
                mesh.processes[f"s{number}"].restart()
            mesh.ready()
            for number in (1, 2, 3):
                self.assertIn("tomorrow", names(mesh, number))

            self.comes_back(mesh, arguments)
            self.comes_with_nothing(mesh)

    def lead(self, mesh, numbers):
        """One of these leads, sooner or later: whoever else does is restarted."""

        def probe():
            number = leader(mesh)
            if number is None or number in numbers:
                return number
            mesh.processes[f"s{number}"].kill()
            others = [one for one in (1, 2, 3) if one != number]
            until("another leads", lambda: leader(mesh, others))
            mesh.processes[f"s{number}"].restart()
            mesh.ready()
            return None

        until(f"one of {numbers} leads", probe, RAISE)
        mesh.ready()

    def works(self, mesh, when):
        """Each takes writes, and each has those of the others."""
        wanted = {f"{when}-{number}" for number in (1, 2, 3)}
        for number in (1, 2, 3):
            name = f"{when}-{number}"
            mesh.api("PUT", f"/v1/services/{name}", {"name": name}, server=number, timeout=ANSWER)
        for number in (1, 2, 3):
            self.assertLessEqual(wanted, names(mesh, number))

    def snapshot(self, mesh, when, number, program=MESHCTL):
        """Saved by one, restored by another, and the same on all."""
        file = mesh.folder / f"{when}.snap"
        mesh.command("snapshot", "save", file, server=number, program=program)
        mesh.api("PUT", "/v1/services/late", {"name": "late"}, server=number, timeout=ANSWER)
        other = random.choice([one for one in (1, 2, 3) if one != number])
        mesh.command("snapshot", "restore", file, server=other, program=program)
        for one in (1, 2, 3):
            there = names(mesh, one)
            self.assertIn(f"{when}-1", there)
            self.assertNotIn("late", there)

    def not_yet(self, mesh, numbers=(1, 2, 3)):
        """What only some know is not proposed, whoever is asked."""
        for number in numbers:
            self.assertEqual(level(mesh, number), 1)
            code, answer = mesh.api("POST", "/v1/tomorrow", server=number, raw=True, timeout=ANSWER)
            if number == 3:
                self.assertEqual(code, 404, answer)
                continue
            self.assertEqual((code, answer["error"]["code"]), (409, "level"), answer)

    def comes_back(self, mesh, arguments):
        """One of today, on data of the new level: it ends and says why; its data is as it was."""
        server = mesh.processes["s3"]
        self.assertEqual(server.stop(), 0)
        upgraded, server.arguments = list(server.arguments), arguments
        server.restart()
        until("it ends", lambda: not server.running())
        self.assertNotEqual(server.process.returncode, 0)
        self.assertIn("this server speaks up to 1; run a version of this server that knows it", server.log.read_text())
        until("the others go on", lambda: mesh.api(
            "PUT", "/v1/services/without", {"name": "without"}, server=1, raw=True, timeout=ANSWER)[0] == 200)
        server.arguments = upgraded
        server.restart()
        mesh.ready(3)
        self.assertLessEqual({"without", "tomorrow"}, names(mesh, 3))

    def comes_with_nothing(self, mesh):
        """A new one of today is not taken in."""
        mesh.server(4, program=MESHCTL)
        newcomer = mesh.processes["s4"]
        until("it is refused", lambda: "the cluster is at level 2, and the server speaks up to 1; upgrade it"
              in newcomer.log.read_text())
        self.assertEqual(mesh.api("GET", "/v1/status/ready", server=4, raw=True)[0], 503)
        _, peers = mesh.api("GET", "/v1/operator/raft/peers")
        self.assertEqual(sorted(peer["name"] for peer in peers), ["s1", "s2", "s3"])
        self.works(mesh, "refused")

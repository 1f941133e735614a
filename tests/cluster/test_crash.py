"""Three servers: kill -9 and a pause of the leader under writes, lost data, full disks."""

import http.client
import json
import random
import resource
import shutil
import signal
import threading
import time
import unittest

from mesh import Mesh, until


def leader(mesh, numbers=(1, 2, 3)):
    """The number of the server that leads, by its own word."""
    for number in numbers:
        process = mesh.processes.get(f"s{number}")
        if process is None or not process.running():
            continue
        try:
            _, status = mesh.api("GET", "/v1/status", server=number, timeout=3)
        except (OSError, AssertionError):
            continue
        if status.get("state") == "leader":
            return number
    return None


# Longer than a server works at any write: what it did not answer by then is not
# under way any more. (A write may still come out of another server's log later.)
ANSWER = 40


class Register:
    """A number that one writer counts up, and that many read.

    A read must see at least what was acked, and what any earlier read saw,
    before it began; and nothing that was never written. So that a write whose
    outcome is unknown cannot come after a later one, each names the row that it
    replaces.
    """

    def __init__(self, mesh):
        self.mesh = mesh
        self.lock = threading.Lock()
        self.floor = 0
        self.highest = 0
        self.acked = []
        self.reads = 0
        self.wrong = []
        self.ending = threading.Event()
        _, answer = mesh.api("PUT", "/v1/services/register", {"name": "register", "meta": {"value": "0"}})
        self.index = answer["index"]

    def write(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            with self.lock:
                self.highest = number
            body = {"name": "register", "meta": {"value": str(number)}}
            status, answer = ask(self.mesh, "PUT", f"/v1/services/register?cas={self.index}", body)
            if status == 200:
                self.index = answer["index"]
                with self.lock:
                    self.floor = max(self.floor, number)
                    self.acked.append(number)
                continue
            if status not in (0, 409, 503, 504):
                self.wrong.append(f"write {number}: status {status}")
            # It was done, or not, or will be: what is there now says which row is next.
            status = 0
            while status != 200 and not self.ending.wait(0.05):
                status, row = ask(self.mesh, "GET", "/v1/services/register?consistent")
            if status == 200:
                self.index = row["modify_index"]

    def read(self):
        while not self.ending.is_set():
            with self.lock:
                floor = self.floor
            status, row = ask(self.mesh, "GET", "/v1/services/register?consistent")
            if status != 200:
                self.ending.wait(0.05)
                continue
            value = int(row["meta"]["value"])
            with self.lock:
                self.reads += 1
                if not floor <= value <= self.highest:
                    self.wrong.append(f"read {value}, with {floor} known before and {self.highest} written")
                self.floor = max(self.floor, value)


class Keys:
    """A key for each write: whatever was acked is there in the end."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.acked = []
        self.wrong = []
        self.ending = threading.Event()

    def write(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            name = f"key-{number}"
            status, _ = ask(self.mesh, "PUT", f"/v1/services/{name}", {"name": name})
            if status == 200:
                self.acked.append(name)
            elif status not in (0, 503, 504):
                self.wrong.append(f"write {name}: status {status}")
            else:
                self.ending.wait(0.05)


def ask(mesh, method, path, body=None):
    """Any of the servers; status 0 when there was no answer."""
    try:
        return mesh.api(method, path, body, server=random.randint(1, 3), raw=True, timeout=ANSWER)
    except (OSError, http.client.HTTPException):
        return 0, None


def names(mesh, number=1):
    """Of the services that a server has."""
    _, rows = mesh.api("GET", "/v1/services?consistent", server=number, timeout=ANSWER)
    return {row["name"] for row in rows}


class Waiting:
    """A connection with a request on it whose answer comes when the server goes on."""

    def __init__(self, mesh, number):
        context = mesh.context()
        self.connection = http.client.HTTPSConnection(mesh.address(number), 8700, timeout=ANSWER, context=context)
        self.connection.connect()

    def ask(self, path):
        self.connection.request("GET", path)

    def answer(self):
        response = self.connection.getresponse()
        data = response.read()
        return response.status, json.loads(data), {k.lower(): v for k, v in response.getheaders()}

    def close(self):
        self.connection.close()


class Crash(unittest.TestCase):
    def test_kill_the_leader_under_writes(self):
        with Mesh("crash", servers=3) as mesh:
            mesh.servers()
            register, keys = Register(mesh), Keys(mesh)
            threads = [threading.Thread(target=one.write) for one in (register, keys)] + [
                threading.Thread(target=register.read) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(4):
                    until("some writes", self.progress(register, 20))
                    number = until("a leader", lambda: leader(mesh))
                    mesh.processes[f"s{number}"].kill()
                    until("writes go on without it", self.progress(register, 10))
                    mesh.processes[f"s{number}"].restart()
                    mesh.ready(number)
                # All at once, as a power cut of the whole room.
                for name in ("s1", "s2", "s3"):
                    mesh.processes[name].kill()
                for name in ("s1", "s2", "s3"):
                    mesh.processes[name].restart()
                mesh.ready()
                until("writes go on", self.progress(register, 20))
            finally:
                register.ending.set()
                keys.ending.set()
                for thread in threads:
                    thread.join(ANSWER * 2)
            self.assertEqual(register.wrong + keys.wrong, [])
            self.assertGreater(len(keys.acked), 80)
            self.assertGreater(len(register.acked), 80)
            self.assertGreater(register.reads, 50)
            for number in (1, 2, 3):
                _, row = mesh.api("GET", "/v1/services/register?consistent", server=number)
                self.assertGreaterEqual(int(row["meta"]["value"]), register.acked[-1])
                there = names(mesh, number)
                self.assertEqual([name for name in keys.acked if name not in there], [])

    @staticmethod
    def progress(register, more):
        goal = len(register.acked) + more
        return lambda: len(register.acked) >= goal

    def test_a_leader_that_stood_still_answers_nothing_old(self):
        with Mesh("paused", servers=3) as mesh:
            mesh.servers()
            path = "/v1/services/paused"
            value, fresh = 0, 0
            mesh.api("PUT", path, {"name": "paused", "meta": {"value": "0"}})
            for _ in range(6):
                number = until("a leader", lambda: leader(mesh))
                others = [n for n in (1, 2, 3) if n != number]
                # It answers by its lease, over connections that are there already.
                waiting = [Waiting(mesh, number) for _ in range(8)]
                for one in waiting:
                    one.ask(path)
                    self.assertEqual(one.answer()[0], 200)
                process = mesh.processes[f"s{number}"].process
                process.send_signal(signal.SIGSTOP)
                try:
                    value += 1
                    body = {"name": "paused", "meta": {"value": str(value)}}
                    until("a write without it", lambda: mesh.api(
                        "PUT", path, body, server=random.choice(others), raw=True, timeout=ANSWER)[0] == 200)
                    for one in waiting:
                        one.ask(path)
                finally:
                    process.send_signal(signal.SIGCONT)
                old = []
                for _ in range(10):
                    for one in waiting:
                        status, row, headers = one.answer()
                        if status == 200:
                            fresh += 1
                            if int(row["meta"]["value"]) < value:
                                old.append((row["meta"], headers.get("x-meshctl-last-contact")))
                        one.ask(path)
                for one in waiting:
                    one.close()
                self.assertEqual(old, [])
                mesh.ready()
            self.assertGreater(fresh, 100)

    def test_a_server_whose_data_is_gone_joins_and_does_not_begin_anew(self):
        with Mesh("gone", servers=3) as mesh:
            mesh.servers()
            mesh.command("intention", "create", "-allow", "web", "db")
            _, before = mesh.api("GET", "/v1/status")
            lost = mesh.processes["s2"]
            lost.kill()
            shutil.rmtree(mesh.folder / "s2")
            lost.restart()
            mesh.ready(2)
            _, after = mesh.api("GET", "/v1/status", server=2)
            self.assertEqual(before["cluster"]["id"], after["cluster"]["id"])
            until("it has what was written", lambda: mesh.api(
                "GET", "/v1/intentions/web/db?stale", server=2)[1]["action"] == "allow")
            peers = mesh.command("operator", "raft", "list-peers")
            self.assertIn("s2", peers)

    def test_followers_forward_and_a_minority_refuses(self):
        with Mesh("minority", servers=3) as mesh:
            mesh.servers()
            for number in (1, 2, 3):
                mesh.api("PUT", f"/v1/services/from-{number}", {"name": f"from-{number}"}, server=number)
            number = until("a leader", lambda: leader(mesh))
            others = [n for n in (1, 2, 3) if n != number]
            for other in others:
                mesh.processes[f"s{other}"].kill()

            def refused():
                status, body = mesh.api("PUT", "/v1/services/late", {"name": "late"}, server=number, raw=True,
                                        timeout=40)
                self.assertGreaterEqual(status, 500, body)
                return True
            refused()
            status, _ = mesh.api("GET", "/v1/services/from-1?consistent", server=number, raw=True, timeout=40)
            self.assertGreaterEqual(status, 500)
            status, row = mesh.api("GET", "/v1/services/from-1?stale", server=number)
            self.assertEqual((status, row["name"]), (200, "from-1"))
            for other in others:
                mesh.processes[f"s{other}"].restart()
            mesh.ready()
            mesh.api("PUT", "/v1/services/later", {"name": "later"}, server=number)

    def test_remove_a_peer(self):
        with Mesh("remove", servers=3) as mesh:
            mesh.servers()
            number = until("a leader", lambda: leader(mesh))
            gone = next(n for n in (1, 2, 3) if n != number)
            mesh.processes[f"s{gone}"].kill()
            _, peers = mesh.api("GET", "/v1/operator/raft/peers", server=number)
            peers = peers if isinstance(peers, list) else peers["peers"]
            peer = next(one for one in peers if one["name"] == f"s{gone}")
            mesh.command("operator", "raft", "remove-peer", "-id", str(peer["id"]), server=number)
            until("it is gone", lambda: f"s{gone}" not in mesh.command(
                "operator", "raft", "list-peers", server=number))
            mesh.api("PUT", "/v1/services/after", {"name": "after"}, server=number)

    def test_a_server_that_speaks_one_level_less_stops_and_harms_nobody(self):
        with Mesh("older-server", servers=3) as mesh:
            mesh.servers()
            mesh.command("intention", "create", "-allow", "web", "db")
            older = mesh.processes["s3"]
            arguments = list(older.arguments)
            self.assertEqual(older.stop(), 0)
            older.arguments = [*arguments, "-level", "0"]
            older.restart()
            # It reads a command that it does not know, and skips nothing.
            until("it ends", lambda: not older.running())
            self.assertNotEqual(older.process.returncode, 0)
            self.assertIn("this server speaks up to 0; run a version of this server that knows it", older.log.read_text())
            # Nor is it let in, when it comes with nothing.
            shutil.rmtree(mesh.folder / "s3")
            older.restart()
            until("it is refused", lambda: "speaks up to 0; upgrade it"
                  in older.log.read_text().split("the server started")[-1])
            mesh.api("PUT", "/v1/services/after", {"name": "after"})
            mesh.ready(1)
            mesh.ready(2)
            older.kill()
            # Upgraded, it is one of them.
            older.arguments = arguments
            older.restart()
            mesh.ready(3)
            until("it has what was written", lambda: mesh.api(
                "GET", "/v1/services/after?consistent", server=3)[0] == 200)


def failed(mesh, number):
    _, status = mesh.api("GET", "/v1/status", server=number)
    return status["health"]["status"] == "failed"


class Storage(unittest.TestCase):
    def test_a_full_disk_refuses_writes_and_loses_none(self):
        with Mesh("full") as mesh:
            # As a full disk: no file of the server may grow past this.
            mesh.server(limit_file_size=6 * 1024 * 1024)
            mesh.ready()
            acked, refused = [], None
            for number in range(4000):
                body = {"name": f"s{number}", "meta": {"pad": "x" * 60_000}}
                status, answer = mesh.api("PUT", f"/v1/services/s{number}", body, raw=True, timeout=40)
                if status != 200:
                    refused = (status, answer)
                    break
                acked.append(number)
            self.assertIsNotNone(refused, "the limit was never met")
            # The one that met the full disk may be on it or not; it is not acked.
            if refused[0] == 504:
                self.assertEqual(refused[1]["error"]["code"], "unknown_outcome", refused)
                refused = mesh.api("PUT", "/v1/services/more", {"name": "more"}, raw=True, timeout=40)
            self.assertEqual(refused[0], 503, refused)
            self.assertEqual(refused[1]["error"]["code"], "storage", refused)
            _, status = mesh.api("GET", "/v1/status")
            self.assertEqual(status["health"]["status"], "failed", status)
            server = mesh.processes["s1"]
            server.kill()
            server.limit_file_size = None
            server.restart()
            mesh.ready()
            _, rows = mesh.api("GET", "/v1/services?consistent")
            rows = rows if isinstance(rows, list) else rows["services"]
            names = {row["name"] for row in rows}
            self.assertEqual([n for n in acked if f"s{n}" not in names], [])
            mesh.api("PUT", "/v1/services/again", {"name": "again"})

    def test_a_full_disk_of_a_follower_is_nobodys_trouble(self):
        with self.three("full-follower") as mesh:
            number = until("a leader", lambda: leader(mesh))
            full = next(n for n in (1, 2, 3) if n != number)
            self.fill(mesh, full)
            acked = []
            until("its disk is full", lambda: self.write(mesh, acked, number) and failed(mesh, full), 120, 0)
            for _ in range(20):
                self.assertTrue(self.write(mesh, acked, number))
            self.assertEqual(leader(mesh, [number]), number)
            self.room_again(mesh, full, acked)

    def test_a_full_disk_of_the_leader_is_left_for_another(self):
        with self.three("full-leader") as mesh:
            full = until("a leader", lambda: leader(mesh))
            others = [n for n in (1, 2, 3) if n != full]
            self.fill(mesh, full)
            acked = []

            def write():
                self.write(mesh, acked, random.choice(others))
                return failed(mesh, full)
            until("its disk is full", write, 120, 0)
            until("another leads", lambda: leader(mesh, others))
            for _ in range(20):
                self.assertTrue(self.write(mesh, acked, random.choice(others)))
            status, _ = mesh.api("PUT", "/v1/services/here", {"name": "here"}, server=full, raw=True, timeout=ANSWER)
            self.assertEqual(status, 503)
            self.room_again(mesh, full, acked)

    @staticmethod
    def three(name):
        mesh = Mesh(name, servers=3)
        for number in (1, 2, 3):
            # None, but one that can be made smaller.
            mesh.server(number, limit_file_size=1 << 40)
        mesh.ready()
        return mesh

    @staticmethod
    def fill(mesh, number):
        """From now on its files do not grow by much."""
        largest = max(path.stat().st_size for path in (mesh.folder / f"s{number}").rglob("*") if path.is_file())
        resource.prlimit(mesh.processes[f"s{number}"].pid, resource.RLIMIT_FSIZE,
                         (largest + 256 * 1024, resource.RLIM_INFINITY))

    @staticmethod
    def write(mesh, acked, server):
        """Whether it was acked."""
        name = f"s{len(acked)}-{random.getrandbits(32)}"
        body = {"name": name, "meta": {"pad": "x" * 60_000}}
        status, answer = mesh.api("PUT", f"/v1/services/{name}", body, server=server, raw=True, timeout=ANSWER)
        if status == 200:
            acked.append(name)
        elif status not in (503, 504):
            raise AssertionError(f"write {name}: {status} {answer}")
        return status == 200

    def room_again(self, mesh, number, acked):
        server = mesh.processes[f"s{number}"]
        server.kill()
        server.limit_file_size = None
        server.restart()
        mesh.ready(number)
        for one in (1, 2, 3):
            there = names(mesh, one)
            self.assertEqual([name for name in acked if name not in there], [])

    def test_damaged_files_are_named_and_nothing_is_lost(self):
        with Mesh("damaged") as mesh:
            mesh.servers()
            mesh.command("intention", "create", "-allow", "web", "db")
            server = mesh.processes["s1"]
            self.assertEqual(server.stop(), 0)
            data = mesh.folder / "s1"
            kept = mesh.folder / "kept"
            shutil.copytree(data, kept)
            log = max((path for path in data.rglob("*.redb")), key=lambda path: path.stat().st_size)
            with open(log, "r+b") as file:
                file.write(b"\0" * 4096)
            server.restart()
            until("it ends", lambda: not server.running())
            self.assertNotEqual(server.process.returncode, 0)
            self.assertIn(log.name, server.tail())
            shutil.rmtree(data)
            shutil.copytree(kept, data)
            server.restart()
            mesh.ready()
            self.assertEqual(mesh.command("intention", "check", "web", "db").strip(), "Allowed")

    def test_snapshot_save_inspect_restore(self):
        with Mesh("snapshot") as mesh:
            mesh.servers()
            mesh.command("intention", "create", "-allow", "web", "db")
            _, before = mesh.api("GET", "/v1/status")
            file = mesh.folder / "backup.snap"
            saved = mesh.command("snapshot", "save", file)
            self.assertRegex(saved, r"Saved and verified snapshot to index \d+")
            shown = mesh.command("snapshot", "inspect", file)
            self.assertIn("intention", shown)
            self.assertNotIn("PRIVATE KEY", file.read_bytes().decode(errors="replace"))
            mesh.command("intention", "delete", "web", "db")
            mesh.command("snapshot", "restore", file)
            self.assertEqual(mesh.command("intention", "check", "web", "db").strip(), "Allowed")
            _, after = mesh.api("GET", "/v1/status")
            self.assertNotEqual(before["epoch"], after["epoch"])
            self.assertEqual(before["cluster"]["id"], after["cluster"]["id"])
            broken = mesh.folder / "broken.snap"
            broken.write_bytes(file.read_bytes()[:-40])
            mesh.command("snapshot", "restore", broken, expect=1)
            self.assertEqual(mesh.command("intention", "check", "web", "db").strip(), "Allowed")


if __name__ == "__main__":
    unittest.main()

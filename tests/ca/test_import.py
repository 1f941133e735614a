"""A root and an intermediate that somebody has, with openssl's keys, on three servers under load."""

import base64
import re
import shutil
import subprocess
import unittest

from mesh import Load, Mesh, until
from test_rotation import active, settled
from test_vault import pair, status


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def intermediate(folder, name, root):
    """A chain and a key below a root (certificate, key)."""
    key, request, cert, chain = (folder / f"{name}{end}" for end in (".key", ".csr", ".crt", ".pem"))
    extensions = folder / "extensions"
    extensions.write_text("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", f"/O=Corp/CN={name}", "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", root[0], "-CAkey", root[1], "-CAcreateserial",
            "-days", "300", "-extfile", extensions, "-out", cert)
    chain.write_text(cert.read_text() + root[0].read_text())
    return chain, key


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl, which makes the root")
class Import(unittest.TestCase):
    def test_a_mesh_changes_to_it_and_to_its_next_intermediate_under_load(self):
        with Mesh("import", servers=3, default="allow", leaf_ttl="20s") as mesh:
            corp = mesh.folder / "corp"
            corp.mkdir()
            root = corp / "root.crt", corp / "root.key"
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", root[1], "-out", root[0],
                    "-days", "3000", "-subj", "/O=Corp/CN=Root")
            mesh.servers()
            load = Load(*pair(mesh))
            before = active(mesh)
            chain, key = intermediate(corp, "first", root)
            self.assertIn("is not the key of certificate 1", mesh.command(
                "ca", "import", "-cert", chain, "-key", root[1], expect=None).stderr)
            # From standard input, and to a follower as well as to the leader.
            mesh.command("ca", "import", "-cert", chain, "-key", "-", stdin=key.read_text(), server=2)
            until("the new root signs", lambda: active(mesh) != before)
            taken = settled(mesh)
            self.assertEqual(status(mesh)["root_key"], "elsewhere")
            load.more(50)
            chain, second = intermediate(corp, "second", root)
            mesh.command("ca", "import", "-cert", chain, "-key", second, server=3)
            self.assertEqual(active(mesh), taken)
            self.assertIsNone(status(mesh)["rotation"])
            for number in (1, 2, 3):
                until("it signs", lambda: status(mesh, number)["ready"])
            load.more(50)
            self.assertEqual(load.stop(), [])
            shown = mesh.command("ca", "status", "-o", "json") + mesh.command("ca", "status")
            mesh.command("snapshot", "save", mesh.folder / "snapshot")
            shown += mesh.command("snapshot", "inspect", mesh.folder / "snapshot")
            (mesh.folder / "shown").write_text(shown)
            for name in ("s1", "s2", "s3"):
                mesh.processes[name].stop()
            needles = []
            for file in (key, second):
                text = re.sub(r"-----.*?-----|\s", "", file.read_text())
                der = base64.b64decode(text)
                # The scalar itself, in whatever it stands.
                secret = der[7:39]
                needles += [secret, secret.hex().encode(), text[:40].encode(), base64.b64encode(secret)]
            found = [path.name for path in mesh.folder.rglob("*") if path.is_file() and corp not in path.parents
                     for needle in needles if needle in path.read_bytes()]
            self.assertEqual(found, [])

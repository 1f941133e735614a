"""The keys of the CA are sealed with a file's key, or with one that a real OpenBao opens."""

import base64
import json
import unittest

from mesh import Mesh, http_get, until
from test_vault import TOKEN, metric, pair, status
from vault import Vault, bao

SEALING = 'sealing {{\n  type = "{}"\n  transit {{\n    key = "meshctl"\n  }}\n}}\n'


def forms(key_file):
    """The bytes of a key file's key, as they could stand somewhere."""
    text = [line for line in key_file.read_text().splitlines() if not line.startswith("#")][0]
    raw = base64.b64decode(text)
    return [raw, text.encode(), raw.hex().encode()]


def found(mesh, needles, *allowed):
    return [path.name for path in mesh.folder.rglob("*")
            if path.is_file() and path not in allowed and mesh.folder / "vault" not in path.parents
            for needle in needles if needle in path.read_bytes()]


class Sealing(unittest.TestCase):
    def all_ready(self, mesh):
        for number in range(1, mesh.count + 1):
            until(f"s{number} signs", lambda: status(mesh, number)["ready"], 60)

    def test_from_one_file_to_another(self):
        with Mesh("reseal", servers=3, default="allow") as mesh:
            mesh.servers()
            first = status(mesh)["sealing"]["key_id"]
            old, new = mesh.sealing, mesh.folder / "sealing-2.key"
            mesh.command("operator", "sealing-key", "create", new)
            mesh.sealing = new
            both = f'sealing {{\n  other_key_files = ["{old}"]\n}}\n'
            for number in (1, 2):
                mesh.processes[f"s{number}"].stop()
                mesh.server(number, both)
                mesh.ready()
            # The third has the old one only.
            self.assertIn("server s3", mesh.command("ca", "reseal", "-to", "file", expect=None).stderr)
            self.assertEqual(status(mesh)["sealing"]["key_id"], first)
            mesh.processes["s3"].stop()
            mesh.server(3, both)
            mesh.ready()
            mesh.command("ca", "reseal", "-to", "file")
            self.assertNotEqual(status(mesh)["sealing"]["key_id"], first)
            self.all_ready(mesh)
            # The old one is needed no more.
            for number in (1, 2, 3):
                mesh.processes[f"s{number}"].stop()
                mesh.server(number)
                mesh.ready()
            self.all_ready(mesh)
            pair(mesh)
            mesh.command("snapshot", "save", mesh.folder / "snapshot")
            mesh.command("ca", "rotate")
            self.assertEqual(found(mesh, forms(old) + forms(new), old, new), [])

    def test_vault_opens_the_key(self):
        bao()
        with Mesh("transit", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            vault.do("POST", "sys/mounts/transit", {"type": "transit"})
            vault.do("POST", "transit/keys/meshctl", {})
            vault.policy("-transit")
            token = mesh.folder / "vault-token"
            vault.new_token(token)
            mesh.ca = f'ca {{\n  vault {{\n    address = "{vault.url}"\n{TOKEN.format(token)}  }}\n}}\n'
            for number in (1, 2, 3):
                mesh.server(number, SEALING.format("transit"))
            mesh.ready()
            self.assertEqual(status(mesh)["sealing"]["transit"], "transit/meshctl")
            self.all_ready(mesh)
            pair(mesh)
            # Vault is away: whoever has the key signs on; who starts does all else, and recovers.
            vault.process.kill()
            mesh.processes["s3"].stop()
            mesh.processes["s3"].restart()
            mesh.ready()
            until("it says that it cannot open", lambda: status(mesh, 3)["sealing"]["opens"] is False)
            self.assertEqual(metric(mesh, "meshctl_server_ca_opens", 3), 0)
            self.assertEqual(metric(mesh, "meshctl_server_ca_opens", 1), 1)
            self.assertTrue(status(mesh, 1)["ready"])
            vault.restart()
            vault.unseal()
            self.all_ready(mesh)
            # To the file, and back to another data key.
            first = status(mesh)["sealing"]["key_id"]
            for kind in ("file", "transit"):
                mesh.command("ca", "reseal", "-to", kind)
                until("every server opens it", lambda: all(
                    status(mesh, one)["sealing"]["by"] == kind and status(mesh, one)["ready"] for one in (1, 2, 3)))
            self.assertNotEqual(status(mesh)["sealing"]["key_id"], first)
            mesh.command("ca", "rotate")
            for name in ("s1", "s2", "s3"):
                mesh.processes[name].stop()
            self.assertEqual(vault.leaks(token), [])
            self.assertEqual(found(mesh, forms(mesh.sealing), mesh.sealing), [])

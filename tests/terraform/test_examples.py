"""Every example of the documentation is applied, planned again, and destroyed."""

import pathlib
import subprocess
import tempfile
import unittest

from mesh import Mesh, ROOT
from terraform import PROVIDER, Terraform, under_each

EXAMPLES = ROOT / "terraform" / "provider" / "examples"


@under_each
class Examples:
    def test_each_applies_and_then_has_nothing_to_do(self):
        with Mesh("terraform-examples") as mesh:
            mesh.servers()
            files = sorted(EXAMPLES.glob("*/*.tf"))
            self.assertGreater(len(files), 15)
            for file in files:
                # Those that provision need Nomad: tests/nomad/test_terraform.py.
                if file.parent.name in ("imports", "provider") or file.stem in ("mesh_server", "mesh_agent"):
                    continue
                with self.subTest(f"{file.parent.name}/{file.name}"):
                    tf = Terraform(self.program, mesh.folder / f"{file.parent.name}-{file.stem}", mesh.env())
                    tf.apply(file.read_text())
                    self.assertEqual(tf.planned(), {})
                    imported = EXAMPLES / "imports" / file.name
                    if file.parent.name == "resources":
                        # What the import's example says is what was just made.
                        address = imported.read_text().split("to = ")[1].split()[0]
                        tf.run("state", "rm", address)
                        (tf.folder / "import.tf").write_text(imported.read_text())
                        self.assertIn("1 imported, 0 added, 0 changed", tf.run("apply", "-auto-approve"))
                    tf.destroy()

    def test_the_providers_block(self):
        with Mesh("terraform-block") as mesh:
            mesh.servers()
            text = (EXAMPLES / "provider" / "provider.tf").read_text()
            tf = Terraform(self.program, mesh.folder / "block", mesh.env(), "")
            (tf.folder / "main.tf").write_text(text + 'data "mesh_status" "it" {}\n')
            self.assertEqual(tf.planned(), {})


class Documentation(unittest.TestCase):
    def test_it_is_written_anywhere(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([PROVIDER, "docs", folder], check=True)
            made = {path.relative_to(folder): path.read_text() for path in pathlib.Path(folder).rglob("*.md")}
        kept = ROOT / "terraform" / "provider" / "docs"
        self.assertEqual(made, {path.relative_to(kept): path.read_text() for path in kept.rglob("*.md")})

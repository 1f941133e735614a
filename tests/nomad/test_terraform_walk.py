"""terraform/README.md and the quickstart's, walked as they are written, on one machine: from a provider that is only
built to a mesh with services that call each other, a change, and the end.
"""

import re
import shutil
import unittest

import test_walk
from mesh import BIN, ROOT, http_get, until
from nomad import NODE, job_file, missing
from quickstart import FOLDER
from terraform import PROVIDER, either
from terraform import missing as no_terraform


class Walk(test_walk.Walk):
    def type(self, block):
        """With the program that is here, which asks nobody."""
        block = re.sub(r"(?m)^terraform (apply|destroy)", r"terraform \1 -auto-approve", block)
        block = re.sub(r"(?m)^terraform ", f"{either()} ", block)
        block = block.replace("sudo target/release/terraform-provider-mesh", str(PROVIDER))
        return super().type(f"export CHECKPOINT_DISABLE=1\n{block}")


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Pages(unittest.TestCase):
    def test_from_a_provider_that_is_built_to_the_end_of_a_mesh(self):
        with Walk("terraform-walk", (*test_walk.COVERED, "/usr/share")) as mesh:
            self.walk(mesh)

    def walk(self, mesh):
        [install] = re.findall(r"(?ms)^```sh\n(.*?)^```$", (ROOT / "terraform" / "README.md").read_text())
        build, mirror = install.strip().splitlines()
        self.assertIn("-p terraform-provider-mesh", build)  # that was done before this test
        mesh.type(mirror)
        for file in FOLDER.glob("*.tf"):
            shutil.copy(file, mesh.own)
        blocks = re.findall(r"(?ms)^```(\S+ \S+)\n(.*?)^```$", (FOLDER / "README.md").read_text())
        self.assertEqual([word for word, _ in blocks], ["sh client", "sh own", "hcl tfvars", "sh own", "sh own"])
        said = ""
        for word, block in blocks:
            if word == "hcl tfvars":
                # One machine: the page's last word.
                self.variables = [re.sub(r'"https.*"', f'"https://{NODE}:8700"', block), "server_count = 1\n"]
                (mesh.own / "terraform.tfvars").write_text("".join(self.variables))
                continue
            said = mesh.type(block)
            if word == "sh client":
                # What the page takes from docs/nomad.md.
                mesh.nomad_by_the_page(next(block for word, block in test_walk.section() if word == "nomad"))
        self.assertRegex(said, r"(?m)^State: +leader$")
        until("the agent is known", lambda: mesh.type("meshctl catalog nodes -verbose").count("alive") == 1)
        shutil.copy(BIN / "mesh-demo", "/usr/local/bin/mesh-demo")

        mesh.run_job(job_file("countdash"), variables={}, deadline=150)
        until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)
        self.change(mesh, 'dashboard_action = "deny"\n')
        self.assertIn("0 to add, 1 to change, 0 to destroy", mesh.type("terraform plan"))
        mesh.type("terraform apply")
        until("it is denied", lambda: http_get(f"http://{NODE}:9002/api")[0] == 502)

        mesh.stop_job("countdash")
        self.change(mesh, "force_destroy = true\n")
        mesh.type("terraform apply")
        self.assertIn("Destroy complete", mesh.type("terraform destroy"))
        self.assertEqual(mesh.api_nomad("/v1/vars"), [])
        self.assertEqual({one["ID"] for one in mesh.api_nomad("/v1/jobs") if not one["Stop"]}, set())

    def change(self, mesh, line):
        self.variables.append(line)
        (mesh.own / "terraform.tfvars").write_text("".join(self.variables))

"""The quickstart with the mesh's CA in a Vault (OpenBao), from its first minute."""

import json
import os
import unittest

from nomad import missing
from quickstart import QuickstartMesh
from terraform import missing as no_terraform
from vault import Vault, bao


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class InVault(unittest.TestCase):
    def test_servers_that_terraform_made_have_their_ca_in_vault(self):
        bao()
        with QuickstartMesh("terraform-vault") as mesh:
            vault = Vault(mesh)
            vault.policy("-leaf-signing", "cluster", "-root-pki-path", "pki_root", "-intermediate-pki-path", "pki_mesh")
            token = vault.new_token(mesh.folder / "vault-token")
            mesh.quickstart(vault={"address": vault.url, "root_pki_path": "pki_root",
                                   "intermediate_pki_path": "pki_mesh"})
            # As users are told to give it: in the environment, and in no file of Terraform's.
            mesh.tf.env["TF_VAR_vault_token"] = token
            mesh.tf.apply()
            self.assertEqual(mesh.tf.planned(), {})
            status = json.loads(mesh.command("ca", "status", "-o", "json"))
            self.assertEqual(status["provider"], "vault", status)
            roots = mesh.api("GET", "/v1/ca/roots")[1]["roots"]
            self.assertEqual(len(roots), 1)
            held = vault.ask("GET", "pki_root/cert/ca")[1]
            self.assertEqual(held["data"]["certificate"].split(), roots[0]["pem"].split())
            for path, data in mesh.tf.written():
                self.assertNotIn(token.encode(), data, os.fspath(path))
            for job in mesh.api_nomad("/v1/jobs"):
                self.assertNotIn(token, json.dumps(mesh.api_nomad(f"/v1/job/{job['ID']}")))
            mesh.tf.set(force_destroy=True)
            mesh.tf.apply()
            mesh.tf.run("destroy", "-auto-approve")
            self.assertEqual(mesh.api_nomad("/v1/jobs"), [])

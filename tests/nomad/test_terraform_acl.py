"""The quickstart where Nomad has ACLs: what the policy of the provider's page allows is enough, less is refused with
what is missing, and the token is nowhere.
"""

import json
import os
import pathlib
import unittest

from mesh import until
from nomad import missing
from quickstart import POLICY, Guarded
from terraform import missing as no_terraform

# What is taken out of the policy, and what is said then.
LESS = (
    ('policy = "read"', 'policy = "deny"', "the token lacks `read` in the policy of `node`"),
    ('"list-jobs", ', "", "the token lacks `list-jobs` in the namespace `default`"),
    ('"read", ', "", "the token lacks `read` on the variable `nomad/jobs/mesh-"),
    ('"write", ', "", "the token lacks `write` on the variable `nomad/jobs/mesh-"),
    ('"submit-job", ', "", "the token lacks `submit-job` in the namespace `default`"),
    ('"mount-readwrite"', '"deny"', "`mount-readwrite` on the host volume `mesh-server`"),
    ('"read-job", ', "", "the token lacks `read-job` in the namespace `default`"),
)
# Another way to give it.
VARIABLE = '''variable "nomad_token" {
  type      = string
  ephemeral = true
}
'''
BY_VARIABLE = '''provider "mesh" {
  nomad = {
    address = var.nomad_address
    token   = var.nomad_token
  }
}
'''


@unittest.skipIf(missing() or no_terraform(), missing() or no_terraform())
class Permissions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Guarded("terraform-acl")
        try:
            mesh.quickstart(volume="mesh-server")
        except BaseException:
            mesh.__exit__(True, None, None)
            raise
        cls.tf = mesh.tf
        cls.tf.env["TF_LOG_PROVIDER"] = "TRACE"

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def test_1_without_a_token_and_with_a_wrong_one(self):
        said = self.tf.refused()
        self.assertIn("it asks for a token. Set NOMAD_TOKEN", said)
        self.assertIn("`read` in the policy of `node`", said)
        self.tf.env["NOMAD_TOKEN"] = "00000000-1111-2222-3333-444444444444"
        self.assertIn("it does not know the token (NOMAD_TOKEN", self.tf.refused())

    def test_2_what_is_missing_is_named(self):
        self.mesh.allow()
        type(self).token = self.mesh.give_token()
        for line, less, said in LESS:
            with self.subTest(line):
                rules = POLICY.read_text()
                self.assertIn(line, rules)
                self.mesh.allow(rules.replace(line, less, 1))
                refused = self.tf.refused()
                self.assertIn(said, refused)
                self.assertIn("the provider's page has a policy", refused)

    def test_3_the_policy_of_the_page_is_enough(self):
        self.mesh.allow()
        self.tf.apply()
        self.assertEqual(self.tf.planned(), {})
        self.assertEqual(len(self.mesh.voters()), 3)
        until("the agent is known",
              lambda: [one["state"] for one in self.mesh.api("GET", "/v1/catalog/nodes")[1]] == ["alive"])
        # One after the other, more, and fewer.
        self.tf.set(meshctl_version="2", server_count=5)
        self.tf.apply()
        self.tf.set(server_count=3)
        self.tf.apply()
        self.assertEqual(self.tf.planned(), {})
        self.assertEqual(len(self.mesh.voters()), 3)

    def test_4_it_may_come_from_an_ephemeral_variable(self):
        (self.tf.folder / "token.tf").write_text(VARIABLE)
        (self.tf.folder / "token_override.tf").write_text(BY_VARIABLE)
        del self.tf.env["NOMAD_TOKEN"]
        self.tf.env["TF_VAR_nomad_token"] = self.token
        self.tf.set(meshctl_version="3")
        self.tf.run("plan", "-out=saved")
        self.tf.run("apply", "saved")
        self.assertEqual(self.tf.planned(), {})

    def test_5_it_is_nowhere(self):
        (self.tf.folder / "shown").write_text(self.tf.run("show", "-json", "saved") + self.tf.run("show", "-json"))
        places = list(self.tf.written())
        names = {os.fspath(path.relative_to(self.tf.folder)) for path, _ in places}
        self.assertLessEqual({"terraform.tfstate", "provider.log", "saved/tfplan", "shown"}, names)
        self.assertTrue(any(b"mesh-server-0" in text for path, text in places if path.name == "provider.log"))
        for job in self.mesh.api_nomad("/v1/jobs"):
            places.append((job["ID"], json.dumps(self.mesh.api_nomad(f"/v1/job/{job['ID']}")).encode()))
        for one in self.mesh.api_nomad("/v1/vars"):
            held = self.mesh.api_nomad(f"/v1/var/{one['Path'].replace('/', '%2F')}")
            places.append((one["Path"], json.dumps(held).encode()))
        for pid in self.mesh.processes_of("server") | self.mesh.processes_of("agent"):
            places += [(pathlib.Path("/proc", str(pid), file), pathlib.Path("/proc", str(pid), file).read_bytes())
                       for file in ("cmdline", "environ")]
        self.assertGreater(len(places), 12)
        for path, text in places:
            self.assertNotIn(self.token.encode(), text, os.fspath(path))

    def test_6_and_enough_to_end_it(self):
        self.tf.set(force_destroy=True)
        self.tf.apply()
        rules = POLICY.read_text()
        self.mesh.allow(rules.replace(', "destroy"', ""))
        said = " ".join(self.tf.run("destroy", "-auto-approve", expect=1).split())
        self.assertIn("the token lacks `destroy` on the variable `nomad/jobs/mesh-", said)
        self.mesh.allow()
        self.tf.destroy()
        self.assertEqual(self.mesh.api_nomad("/v1/jobs"), [])
        self.assertEqual(self.mesh.api_nomad("/v1/vars"), [])
        self.assertEqual(list(self.mesh.data.iterdir()), [])

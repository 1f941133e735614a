"""Files of entries, and what becomes of them on a real server."""

import json
import re
import unittest

from mesh import Mesh

EVERYTHING = """
service "shop" {
  protocol = "http"

  subset "v1" { meta = { version = "v1" } }
  subset "v2" { tags = ["b", "a"] }

  load_balancer   = "least_request"
  connect_timeout = "1500ms"
  request_timeout = "0s"
  meta            = { team = "x" }
}

service "shop-db" {}

route "shop" {
  rule "canary" {
    match {
      path_prefix = "/a/"
      methods     = ["get", "POST"]

      header "X-Version" { exact = "v2" }
      query "q" { present = true }
    }

    to "v1" { weight = 75 }
    to "v2" { weight = 25 }

    timeout = "90s"
    retries {
      attempts        = 3
      per_try_timeout = "0.5s"
      on              = ["connect-failure", "5xx"]
      status_codes    = [429]
    }
  }

  rule "rest" {
    to { service = "shop" }
  }
}

intention "web" "shop" {
  description = "because"

  permission {
    action      = "allow"
    methods     = ["GET"]
    path_prefix = "/public/"
  }
  permission { action = "deny" }
}

intention "*" "shop-db" { action = "deny" }
intention "other/web" "shop" { action = "allow" }
"""


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = Mesh("files")
        try:
            mesh.servers()
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def file(self, name, text):
        path = self.mesh.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def rows(self, kind):
        _, rows = self.mesh.api("GET", f"/v1/{kind}")
        return {row["name"]: row["owner"] for row in rows if row.get("defined", True)}

    def test_apply_twice_is_apply_once(self):
        mesh = self.mesh
        path = self.file("idempotent/mesh.hcl", EVERYTHING)
        apply = ("apply", "-f", path.parent, "-owner", "ci", "-auto-approve")
        self.assertIn("Applied: 6 changes", mesh.command(*apply))
        self.assertIn("Nothing to do: 6 entries stand as written.", mesh.command(*apply, "-wait"))
        # Another owner may have what stands, and not change it.
        other = ("apply", "-f", path.parent, "-owner", "other", "-auto-approve")
        self.assertIn("Nothing to do", mesh.command(*other))
        path.write_text(EVERYTHING.replace("weight = 75", "weight = 50").replace("weight = 25", "weight = 50"))
        refused = mesh.command(*other, expect=None)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("belongs to another owner: route shop of ci", refused.stderr)
        # What a config entry made stays; what a block made and no file has any more goes.
        entry = self.file("shop-old.hcl", 'Kind = "service-defaults"\nName = "shop-old"\nProtocol = "http"\n')
        mesh.command("config", "write", "-owner", "ci", entry)
        path.write_text('service "shop" {\n  protocol = "http"\n}\n')
        kept = mesh.command(*apply[:-1], "-dry-run", expect=None)
        self.assertIn("Left as it is: 5 entries of owner ci", kept.stderr)
        self.assertIn("1 row of config entries", kept.stderr)
        mesh.command(*apply, "-prune")
        self.assertEqual([name for name, owner in self.rows("services").items() if owner == "ci"],
                         ["shop", "shop-old"])
        self.assertEqual([name for name, owner in self.rows("routes").items() if owner == "ci"], [])
        mesh.command("config", "delete", "-owner", "ci", "-filename", entry)
        self.file("idempotent/mesh.hcl", "")
        mesh.command(*apply, "-prune")
        self.assertNotIn("ci", self.rows("services").values())

    def test_what_one_file_wrote_it_deletes(self):
        mesh = self.mesh
        path = self.file("write-and-delete.hcl", EVERYTHING.replace("shop", "kiosk"))
        before = (self.rows("services"), self.rows("routes"))
        mesh.command("config", "write", path)
        self.assertIn("kiosk", self.rows("routes"))
        said = mesh.command("config", "delete", "-filename", path, "-wait")
        self.assertIn("Config entry deleted: route/kiosk", said)
        self.assertEqual((self.rows("services"), self.rows("routes")), before)

    def test_a_config_entry_does_not_write_over_a_block(self):
        mesh = self.mesh
        block = self.file("keep.hcl", 'service "keep" {\n  load_balancer = "random"\n\n'
                                      '  subset "v1" { meta = { version = "v1" } }\n}\n')
        entry = self.file("keep-entry.hcl", 'Kind = "service-defaults"\nName = "keep"\nProtocol = "http"\n')
        mesh.command("config", "write", block)
        refused = mesh.command("config", "write", entry, expect=None)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("service keep: belongs to cli, who wrote it directly", refused.stderr)
        self.assertIn("v1", json.loads(mesh.command("config", "read", "-kind", "service", "-name", "keep"))["subsets"])
        mesh.command("config", "write", "-force", entry)
        mesh.command("config", "delete", "-filename", entry)
        self.assertNotIn("keep", self.rows("services"))

    def test_every_command_that_offers_staleness_has_it(self):
        """What the help offers the server takes."""
        self.mesh.command("config", "write", self.file("users.hcl", 'service "users" {}\n'))
        self.mesh.command("intention", "create", "-replace", "web", "users")
        service = ("-kind", "service", "-name", "users")
        arguments = {
            "catalog instances": ("users",), "catalog nodes": (), "catalog services": (),
            "ca config read": (), "ca leaves": (), "ca revocations": (), "ca roots": (),
            "config list": ("-kind", "service"), "config read": service,
            "intention check": ("web", "users"), "intention get": ("web", "users"), "intention list": (),
            "intention match": ("users",), "snapshot save": (self.mesh.folder / "stale.snap",),
        }
        offering = {flag: set(self.offering(flag)) for flag in ("--stale", "--consistent")}
        self.assertEqual(offering["--stale"], set(arguments))
        for flag, commands in offering.items():
            for command in commands:
                with self.subTest(command=command, flag=flag):
                    (self.mesh.folder / "stale.snap").unlink(missing_ok=True)
                    self.mesh.command(*command.split(), flag, *arguments[command])

    def offering(self, flag, path=()):
        """Every command whose help has the flag."""
        said = self.mesh.command(*path, "-h")
        if path and "Commands:" not in said:
            return [" ".join(path)] if flag in said else []
        inner = re.findall(r"^  ([a-z-]+)  ", said, re.M)
        return [found for name in inner if name != "help" for found in self.offering(flag, (*path, name))]


if __name__ == "__main__":
    unittest.main()

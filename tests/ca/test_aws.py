"""Three servers whose CA is below one in AWS Private CA, which moto plays."""

import os
import signal
import unittest

from aws import CREDENTIALS, Aws, block, meshctl, moto
from mesh import Load, Mesh, http_get, until
from test_rotation import settled
from test_vault import SHORT, metric, pair, status


def servers(mesh, numbers=None, **programs):
    """Starts servers that are built with AWS; s1=PROGRAM: but for that one."""
    for number in numbers or range(1, mesh.count + 1):
        mesh.server(number, program=programs.get(f"s{number}", meshctl()), env=CREDENTIALS)
    mesh.ready()


def says(mesh, state, server=1, deadline=90):
    """Waits until a server sees the CA in this state; its words."""
    until(f"AWS is {state}", lambda: (status(mesh, server)["aws_pca"] or {}).get("state") == state, deadline)
    return status(mesh, server)["aws_pca"]["reason"]


class InAws(unittest.TestCase):
    def setUp(self):
        moto()
        meshctl()

    def test_the_servers_sign_below_a_ca_in_aws_and_go_on_without_it(self):
        with Mesh("aws", servers=3, default="allow") as mesh:
            aws = Aws(mesh)
            arn = aws.authority()
            mesh.ca = block(aws, arn, SHORT.format("10m"))
            servers(mesh)
            load = Load(*pair(mesh))
            _, roots = mesh.api("GET", "/v1/ca/roots")
            self.assertEqual([one["pem"].strip() for one in roots["roots"]], [aws.root(arn)])
            for number in (1, 2, 3):
                says(mesh, "ok", number)
            shown = mesh.command("ca", "status")
            self.assertIn("aws_pca", shown)
            self.assertIn(f"ok, {arn}", shown)
            self.assertEqual(metric(mesh, "meshctl_server_ca_aws_up"), 1)
            refused = mesh.command("ca", "rotate", expect=None)
            self.assertIn("make another CA there", refused.stderr)
            # Disabled, enabled; away, back. A new sidecar gets its leaf meanwhile.
            aws.set_status(arn, "DISABLED")
            self.assertIn("DISABLED", says(mesh, "unusable"))
            self.assertEqual(metric(mesh, "meshctl_server_ca_aws_up"), 0)
            aws.set_status(arn, "ACTIVE")
            says(mesh, "ok")
            os.kill(aws.process.pid, signal.SIGSTOP)
            says(mesh, "down")
            self.assertGreater(metric(mesh, 'meshctl_server_ca_aws_failures_total{kind="unavailable"}'), 0)
            self.assertEqual(status(mesh)["ready"], True)
            mesh.instance("more", upstreams=[("users", 9002)])
            mesh.sidecar("more")
            host = mesh.address(10)
            until("traffic", lambda: http_get(f"http://{host}:9002/")[0] == 200)
            os.kill(aws.process.pid, signal.SIGCONT)
            says(mesh, "ok")
            # Another lead renews nothing: what is there is good.
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_built_in_to_aws_to_another_ca_there_and_back_under_load(self):
        with Mesh("rotate-aws", servers=3, default="allow") as mesh:
            aws = Aws(mesh)
            first, second = aws.authority("One"), aws.authority("Two")
            mesh.ca = block(aws, first, SHORT.format("20s"), provider="built_in")
            servers(mesh)
            load = Load(*pair(mesh))
            load.more(50)
            wanted = mesh.folder / "ca.hcl"

            def change(arn):
                wanted.write_text(block(aws, arn, SHORT.format("20s")))
                mesh.command("ca", "config", "write", wanted)
                root = settled(mesh)
                _, roots = mesh.api("GET", "/v1/ca/roots")
                self.assertEqual([one["pem"].strip() for one in roots["roots"]], [aws.root(arn)])
                self.assertIn(arn, mesh.command("ca", "config", "read"))
                load.more(50)
                return root

            wanted.write_text(block(aws, first, SHORT.format("20s")))
            self.assertIn("provider: built_in -> aws_pca", mesh.command("ca", "config", "write", "-dry-run", wanted))
            seen = [change(first), change(second)]
            self.assertEqual(len(set(seen)), 2)
            # Back, while AWS is away.
            aws.process.kill()
            wanted.write_text("ca {\n" + SHORT.format("20s") + "}\n")
            mesh.command("ca", "config", "write", wanted)
            self.assertNotIn(settled(mesh), seen)
            self.assertEqual(status(mesh)["provider"], "built_in")
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_a_server_that_is_built_without_aws(self):
        from mesh import MESHCTL
        with Mesh("aws-without", servers=3, default="allow") as mesh:
            aws = Aws(mesh)
            arn = aws.authority()
            mesh.ca = block(aws, arn, SHORT.format("10m"), provider="built_in")
            servers(mesh, s3=MESHCTL)
            host, port = pair(mesh)
            wanted = mesh.folder / "ca.hcl"
            wanted.write_text(block(aws, arn, SHORT.format("10m")))
            for asked in (1, 3):
                refused = mesh.command("ca", "config", "write", wanted, server=asked, expect=None)
                self.assertEqual(refused.returncode != 0, True)
                self.assertIn("server s3", refused.stderr)
                self.assertIn("--features aws", refused.stderr)
            mesh.processes["s3"].stop()
            servers(mesh, [3])
            mesh.command("ca", "config", "write", wanted)
            until("the new root signs", lambda: status(mesh)["provider"] == "aws_pca")
            # It comes back as it was: it signs on, and says what it cannot.
            mesh.processes["s3"].stop()
            servers(mesh, [3], s3=MESHCTL)
            shown = mesh.command("ca", "status", server=3)
            self.assertIn("--features aws", shown)
            self.assertEqual(status(mesh, 3)["ready"], True)
            self.assertEqual(http_get(f"http://{host}:{port}/")[0], 200)
            # Its own file may not ask for it.
            mesh.processes["s3"].stop()
            mesh.ca = block(aws, arn)
            mesh.server(3, program=MESHCTL, env=CREDENTIALS)
            until("it says so and ends", lambda: not mesh.processes["s3"].running())
            self.assertIn("--features aws", mesh.processes["s3"].tail())

    def test_what_moto_signs_by_itself_is_refused_and_said_and_asked_for_once(self):
        with Mesh("aws-bare", default="allow") as mesh:
            aws = Aws(mesh, whole=False)
            arn = aws.authority()
            mesh.ca = block(aws, arn)
            mesh.server(program=meshctl(), env=CREDENTIALS)
            words = "not the certificate of a CA"
            until("it is refused", lambda: words in (status(mesh)["problem"] or ""))
            self.assertIn(words, mesh.command("ca", "status", expect=1))
            until("it was tried again", lambda: "min" in (status(mesh)["problem"] or "")
                  and "paid for" in status(mesh)["problem"])
            asked = mesh.processes["s1"].log.read_text().count("AWS was asked for an intermediate")
            self.assertEqual(asked, 1)

    def test_no_credentials_and_no_such_ca_are_said_and_waited_for(self):
        with Mesh("aws-denied", default="allow") as mesh:
            aws = Aws(mesh)
            arn = aws.authority()
            missing = arn.rsplit("/", 1)[0] + "/00000000-0000-4000-8000-000000000000"
            mesh.ca = block(aws, missing)
            mesh.server(program=meshctl(), env=CREDENTIALS)
            until("AWS's words", lambda: "ResourceNotFoundException" in (status(mesh)["problem"] or ""))
            mesh.processes["s1"].stop()
            # The chain has nothing; then a file is there, and nothing is started again.
            folder = mesh.folder / "empty"
            folder.mkdir()
            file = folder / "credentials"
            mesh.ca = block(aws, arn)
            hidden = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_CONFIG_FILE": str(folder / "config"),
                      "AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
            mesh.server(program=meshctl(), env=hidden)
            until("no credentials", lambda: "redential" in (status(mesh)["problem"] or ""), 60)
            file.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
            until("the CA is there", lambda: status(mesh)["ready"], 60)
            self.assertEqual(status(mesh)["provider"], "aws_pca")

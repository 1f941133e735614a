"""What goes wrong: connections, leaders, a provider that is killed, secrets, and what is said."""

import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import zipfile

from mesh import Mesh, until
from terraform import PROVIDER, VERSION, Between, Terraform, kill, providers_of, shared_mirror, under_each

INTENTION = 'resource "mesh_intention" "it" {\n source = "a"\n destination = "b"\n action = "allow"\n}\n'
PATH = "/v1/intentions/a/b"


@under_each
class Trouble:
    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("terraform-trouble")
        cls.mesh.servers()

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def terraform(self, env=None, provider='provider "mesh" {}', **more):
        name = self.id().rpartition(".")[2]
        return Terraform(self.program, self.mesh.folder / name, self.mesh.env() if env is None else env, provider, **more)

    def between(self):
        between = Between(self.mesh)
        self.addCleanup(between.close)
        return between, self.terraform({"MESHCTL_HTTP_ADDR": between.address})

    def tearDown(self):
        self.mesh.api("DELETE", PATH + "?force=true", raw=True)

    def row(self):
        status, row = self.mesh.api("GET", PATH, raw=True)
        return row if status == 200 else None

    def test_a_provider_killed_in_the_middle_of_an_apply_is_repaired_by_the_next(self):
        between, tf = self.between()
        tf.write(INTENTION)
        victims = []

        def after(method, path):
            if method == "PUT" and not victims:
                # It is written, and nobody has heard of it.
                victims.extend(providers_of(running.pid))
                for pid in victims:
                    kill(pid)
        between.after = after
        running = tf.start("apply", "-auto-approve")
        said = running.communicate(timeout=120)[0]
        self.assertNotEqual(running.returncode, 0, said)
        self.assertEqual(len(victims), 1, said)
        self.assertEqual(self.row()["owner"], "terraform")
        index = self.row()["modify_index"]
        tf.apply()
        self.assertEqual(tf.planned(), {})
        self.assertEqual(self.row()["modify_index"], index, "the row was taken as it stands")
        # The same with an update, and with a deletion.
        for text, method in ((INTENTION.replace("allow", "deny"), "PUT"), ("", "DELETE")):
            victims.clear()

            def after_one(seen, path, method=method):
                if seen == method and not victims:
                    victims.extend(providers_of(running.pid))
                    for pid in victims:
                        kill(pid)
            between.after = after_one
            tf.write(text)
            running = tf.start("apply", "-auto-approve")
            said = running.communicate(timeout=120)[0]
            self.assertEqual(len(victims), 1, said)
            tf.apply()
            self.assertEqual(tf.planned(), {})
        self.assertIsNone(self.row())

    def test_an_answer_that_is_lost_is_asked_for_again(self):
        between, tf = self.between()
        lost = []

        def before(method, path):
            # Written, and then no answer but that nobody knows.
            if method in ("PUT", "DELETE") and len(lost) < 2:
                lost.append(path)
                if len(lost) == 2:
                    self.mesh.api(method, path, {"action": "allow"} if method == "PUT" else None,
                                  headers={"X-Meshctl-Owner": "terraform"})
                code = "no_leader" if len(lost) == 1 else "unknown_outcome"
                return 503, {"error": {"code": code, "message": "wait", "request_id": "1"}}
            return None
        between.before = before
        tf.apply(INTENTION)
        self.assertEqual(len(lost), 2)
        self.assertEqual(tf.planned(), {})
        lost.clear()
        tf.destroy()
        self.assertIsNone(self.row())

    def test_an_interrupt_ends_what_waits(self):
        between, tf = self.between()
        waiting = threading.Event()

        def before(method, path):
            waiting.set()
            return 503, {"error": {"code": "no_leader", "message": "there is no leader", "request_id": "1"}}
        between.before = before
        tf.write(INTENTION)
        running = tf.start("apply", "-auto-approve")
        self.assertTrue(waiting.wait(60))
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[0]
        # Without it, no answer would be awaited for ten seconds or more.
        self.assertLess(time.monotonic() - began, 9, said)
        self.assertIn("Interrupted", said)
        self.assertNotEqual(running.returncode, 0)

    def test_a_change_between_plan_and_apply_is_not_overwritten(self):
        tf = self.terraform()
        tf.apply(INTENTION)
        tf.write(INTENTION.replace("allow", "deny"))
        tf.run("plan", "-out=saved")
        self.mesh.api("PUT", PATH, {"action": "allow", "description": "by another run"},
                      headers={"X-Meshctl-Owner": "terraform"})
        said = tf.run("apply", "saved", expect=1)
        self.assertIn("intention a => b was changed since it was planned", said)
        self.assertEqual(self.row()["description"], "by another run")
        tf.apply()
        self.assertEqual(self.row()["action"], "deny")

    def test_connections_that_cannot_work_say_why(self):
        wrong = {**self.mesh.env(), "MESHCTL_HTTP_ADDR": f"https://{self.mesh.address(250)}:8700"}
        said = self.terraform(wrong).refused('data "mesh_status" "it" {}', plan=True)
        self.assertIn("No server can be reached", said)
        self.assertIn("MESHCTL_HTTP_ADDR", said)
        # A CA that did not make the server's certificate.
        other = self.mesh.folder / "other"
        self.mesh.command("tls", "ca", "create", "-dir", other)
        wrong = {**self.mesh.env(), "MESHCTL_CACERT": str(other / "cluster-ca.pem")}
        began = time.monotonic()
        said = self.terraform(wrong).refused('data "mesh_status" "it" {}', plan=True)
        self.assertIn("`client_cert` cannot be used", said)
        wrong = {key: wrong[key] for key in ("MESHCTL_HTTP_ADDR", "MESHCTL_CACERT")}
        said = self.terraform(wrong).refused('data "mesh_status" "it" {}', plan=True)
        self.assertIn("do not trust each other", said)
        self.assertIn("MESHCTL_CACERT", said)
        self.assertLess(time.monotonic() - began, 8, "it is not tried again")
        # Variables of its own come before those.
        own = {**self.mesh.env(), "MESH_HTTP_ADDR": f"https://{self.mesh.address(250)}:8700"}
        said = self.terraform(own).refused('data "mesh_status" "it" {}', plan=True)
        self.assertIn("No server can be reached", said)
        said = self.terraform({**self.mesh.env(), "MESH_NAMESPACE": "a b"}).refused(
            'data "mesh_status" "it" {}', plan=True)
        self.assertIn("has the character", said)
        # No certificate: what everybody may see is not enough.
        bare = {key: self.mesh.env()[key] for key in ("MESHCTL_HTTP_ADDR", "MESHCTL_CACERT")}
        said = self.terraform(bare).refused('data "mesh_services" "it" {}', plan=True)
        self.assertIn("client_cert", said)
        # Half a certificate, a file that is not there, no address.
        for block, part in (
                ('client_cert = "x.pem"', "`client_key` is missing"),
                ('client_cert = "x.pem"\n client_key = "y.pem"', "x.pem"),
                ('address = "ftp://a"', "neither http:// nor https://"),
                ('address = "https://a:1"\n ca_file = ""', "cluster-ca.pem"),
                ('owner = "a b"', "must be 1 to 63"),
                ('namespace = "a b"', "has the character")):
            with self.subTest(block):
                said = self.terraform({}, f'provider "mesh" {{\n {block}\n}}').refused(
                    'data "mesh_status" "it" {}', plan=True)
                self.assertIn(part, said)
                self.assertIn("provider", said)

    def test_certificates_may_be_texts(self):
        env = self.mesh.env()
        names = (("ca_file", "MESHCTL_CACERT"), ("client_cert", "MESHCTL_CLIENT_CERT"), ("client_key", "MESHCTL_CLIENT_KEY"))
        block = "\n".join(f'{name} = file("{env[variable]}")' for name, variable in names)
        tf = self.terraform({}, f'provider "mesh" {{\n address = "{env["MESHCTL_HTTP_ADDR"]}"\n {block}\n}}')
        tf.apply(INTENTION)
        self.assertEqual(tf.planned(), {})

    def test_what_is_no_server_of_ours_is_said(self):
        between, tf = self.between()
        for answer in ((200, {"server": {"version": "0.0.1"}, "cluster": {"level": 0}}), (200, {}), (404, {"x": 1})):
            between.before = lambda method, path, answer=answer: answer
            said = tf.refused('data "mesh_status" "it" {}', plan=True) if answer[0] == 404 else tf.refused(INTENTION)
            self.assertIn("no meshctl server, or one that is too old", said)

    def test_a_configuration_that_is_not_known_yet(self):
        tf = self.terraform(provider='resource "terraform_data" "it" {\n input = "terraform"\n}\n'
                                     'provider "mesh" {\n owner = terraform_data.it.output\n}')
        # Planned and applied in one go: nothing has to be asked before it is known.
        tf.apply(INTENTION)
        self.assertEqual(self.row()["owner"], "terraform")
        self.assertEqual(tf.planned(), {})

    def test_what_is_read_and_what_functions_say(self):
        mesh, tf = self.mesh, self.terraform()
        mesh.agent()
        mesh.instance("seen-1", "seen", port=mesh.app("seen").port)
        mesh.sidecar("seen-1")
        mesh.wait_passing("seen")
        tf.apply("""
            data "mesh_status" "it" {}
            data "mesh_ca_roots" "it" {}
            data "mesh_services" "it" {}
            data "mesh_service" "it" { name = "seen" }
            data "mesh_intention_check" "it" {
              source      = "x"
              destination = "seen"
            }
            output "status" { value = data.mesh_status.it }
            output "roots" { value = data.mesh_ca_roots.it }
            output "services" { value = data.mesh_services.it.services[*].name }
            output "seen" { value = data.mesh_service.it }
            output "check" { value = data.mesh_intention_check.it }
            output "id" {
              value = provider::mesh::spiffe_id(data.mesh_status.it.cluster.trust_domain,
                data.mesh_status.it.cluster.datacenter, "seen")
            }
            output "config" { value = provider::mesh::config("service \\"web\\" { protocol = \\"http\\" }") }
        """)
        out = tf.outputs()
        cluster = mesh.api("GET", "/v1/status")[1]["cluster"]
        self.assertEqual(out["status"]["cluster"], cluster)
        self.assertEqual(out["status"]["state"], "leader")
        self.assertEqual(out["roots"]["active_root"], mesh.api("GET", "/v1/ca/roots")[1]["active_root"])
        self.assertIn("BEGIN CERTIFICATE", out["roots"]["roots"][0]["pem"])
        self.assertIn("seen", out["services"])
        self.assertEqual(out["seen"]["counts"]["passing"], 1)
        instance = out["seen"]["instances"][0]
        self.assertEqual((instance["id"], instance["status"]), ("seen-1", "passing"))
        self.assertFalse(out["check"]["allowed"])
        self.assertEqual(out["check"]["default_intention"], "deny")
        self.assertEqual(out["id"], f"spiffe://{cluster['trust_domain']}/ns/default/dc/{cluster['datacenter']}/svc/seen")
        self.assertEqual(out["config"]["services"]["web"]["protocol"], "http")
        said = tf.refused('output "x" {\n value = provider::mesh::config("servce {}")\n}')
        self.assertIn("did you mean `service`?", said)

    def test_a_release_is_installed_from_its_zip(self):
        release = self.mesh.folder / "release"
        subprocess.run([PROVIDER, "release", release], check=True)
        [archive] = release.glob("*.zip")
        mirror = self.mesh.folder / "packed"
        for registry in shared_mirror().iterdir():
            (mirror / registry.name / "meshctl" / "mesh").mkdir(parents=True)
            shutil.copy(archive, mirror / registry.name / "meshctl" / "mesh")
        tf = self.terraform(mirror=mirror)
        tf.apply(INTENTION)
        self.assertIsNotNone(self.row())

    def test_a_mirror_is_found_where_the_program_looks_by_itself(self):
        data = self.mesh.folder / "share"
        subprocess.run([PROVIDER, "mirror", data / "terraform" / "plugins"], check=True)
        nothing = self.mesh.folder / "terraformrc"
        nothing.write_text("")
        tf = self.terraform({**self.mesh.env(), "TF_CLI_CONFIG_FILE": str(nothing), "XDG_DATA_DIRS": str(data)})
        tf.apply(INTENTION)
        self.assertIsNotNone(self.row())


class Packed(unittest.TestCase):
    """The program itself, without terraform."""

    def test_by_hand_it_says_what_it_is(self):
        run = subprocess.run([PROVIDER], capture_output=True, text=True, timeout=30, env={})
        self.assertEqual(run.returncode, 1)
        self.assertIn("This is the Terraform provider `mesh`", run.stderr)

    def test_a_release_is_a_zip_with_a_program_that_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([PROVIDER, "release", folder], check=True)
            subprocess.run(["sha256sum", "--check", "--strict", f"terraform-provider-mesh_{VERSION}_SHA256SUMS"],
                           cwd=folder, check=True, capture_output=True)
            [archive] = pathlib.Path(folder).glob("*.zip")
            with zipfile.ZipFile(archive) as packed:
                self.assertIsNone(packed.testzip())
                [entry] = packed.infolist()
                self.assertEqual(entry.filename, f"terraform-provider-mesh_v{VERSION}")
                self.assertEqual(entry.external_attr >> 16, 0o100755)
                program = pathlib.Path(packed.extract(entry, folder))
            program.chmod(0o755)
            run = subprocess.run([program], capture_output=True, text=True, timeout=30, env={})
            self.assertIn("This is the Terraform provider `mesh`", run.stderr)


@under_each
class Cluster:
    def test_a_leader_that_falls_is_waited_out(self):
        with Mesh("terraform-leader", servers=3) as mesh:
            mesh.servers()
            addresses = ",".join(f"https://{mesh.address(n)}:8700" for n in (1, 2, 3))
            tf = Terraform(self.program, mesh.folder / "tf", {**mesh.env(), "MESHCTL_HTTP_ADDR": addresses})
            _, status = mesh.api("GET", "/v1/status")
            leader = int(status["leader"]["name"][1:])
            left = next(n for n in (1, 2, 3) if n != leader)
            count = 60
            tf.write(f'resource "mesh_intention" "it" {{\n count = {count}\n source = "s${{count.index}}"\n'
                     ' destination = "b"\n action = "allow"\n}\n')
            running = tf.start("apply", "-auto-approve", "-parallelism=2")
            until("the first is written", lambda: len(mesh.api("GET", "/v1/intentions", server=left)[1]) > 3, every=0.01)
            mesh.processes[f"s{leader}"].kill()
            said = running.communicate(timeout=170)[0]
            self.assertEqual(running.returncode, 0, said)
            self.assertIn(f"{count} added", said)
            self.assertEqual(tf.planned(), {})


@under_each
class Secrets:
    """A CA of one's own: its key goes to the servers and is nowhere else."""

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
    def test_the_ca_and_its_key(self):
        with Mesh("terraform-ca") as mesh:
            mesh.servers()
            corp = mesh.folder / "corp"
            corp.mkdir()
            root, root_key, request, below, key, chain, extensions = (corp / name for name in (
                "root.crt", "root.key", "below.csr", "below.crt", "below.key", "chain.pem", "extensions"))
            curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
            extensions.write_text("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n")
            for command in (
                    ["req", "-x509", *curve, "-keyout", root_key, "-out", root, "-days", "3000", "-subj", "/O=Corp/CN=Root"],
                    ["req", *curve, "-keyout", key, "-out", request, "-subj", "/O=Corp/CN=Below"],
                    ["x509", "-req", "-in", request, "-CA", root, "-CAkey", root_key, "-CAcreateserial", "-days", "300",
                     "-extfile", extensions, "-out", below]):
                subprocess.run(["openssl", *command], check=True, capture_output=True)
            chain.write_text(below.read_text() + root.read_text())
            tf = Terraform(self.program, mesh.folder / "tf", mesh.env())
            log = tf.folder / "trace.log"
            secrets = [key.read_text(), root_key.read_text()]
            env = {"TF_LOG": "trace", "TF_LOG_PROVIDER": "trace", "TF_LOG_PATH": str(log), "TF_VAR_key": secrets[0], "TF_VAR_root_key": secrets[1]}
            tf.write("".join(f'variable "{name}" {{\n type = string\n sensitive = true\n ephemeral = true\n}}\n'
                             for name in ("key", "root_key")) +
                     'resource "mesh_ca" "it" {\n leaf_ttl = "12h"\n import = {\n'
                     f'  certificates = file("{chain}")\n  key = var.key\n  root_key = var.root_key\n }}\n}}\n')
            before = mesh.api("GET", "/v1/ca/roots")[1]["active_root"]
            said = tf.run("plan", "-out=saved", env=env)
            said += tf.run("apply", "saved", env=env)
            self.assertEqual(mesh.api("GET", "/v1/ca/config")[1]["leaf_ttl"], "12h")
            until("the corporation's root signs",
                  lambda: mesh.api("GET", "/v1/ca/roots")[1]["active_root"] != before)
            said += tf.run("plan", "-detailed-exitcode", env=env)
            # Where it may not be: plan, state, and every log of terraform and of the provider.
            with zipfile.ZipFile(tf.folder / "saved") as plan:
                places = {f"plan: {name}": plan.read(name) for name in plan.namelist()}
            places["state"] = (tf.folder / "terraform.tfstate").read_bytes()
            places["log"] = log.read_bytes()
            places["output"] = said.encode()
            self.assertTrue(b"POST /v1/ca/import" in places["log"], "the provider's own log is in it")
            for secret in secrets:
                # The two lines in which the secret number is (the third has the public key only, which is
                # in the certificate, too); in plans and logs an end of line may be written otherwise.
                for line in [line for line in secret.splitlines() if "-----" not in line][:2]:
                    for place, content in places.items():
                        self.assertFalse(line.encode() in content, place)
            self.assertIn('"certificates"', json.dumps(tf.state()))
            # Its settings: drift, import, and a destroy that leaves it.
            mesh.api("PUT", "/v1/ca/config", {"provider": "built_in", "leaf_ttl": "6h"})
            code, said = tf.run("plan", "-detailed-exitcode", expect=None, env=env)
            self.assertEqual(code, 2, said)
            self.assertIn('"6h" -> "12h"', said)
            tf.run("state", "rm", "mesh_ca.it")
            tf.write('resource "mesh_ca" "it" {\n leaf_ttl = "6h"\n}\n')
            tf.run("import", "mesh_ca.it", "ca")
            self.assertEqual(tf.planned(), {})
            self.assertIn("The CA stays as it is", tf.run("destroy", "-auto-approve"))
            self.assertEqual(mesh.api("GET", "/v1/ca/config")[1]["leaf_ttl"], "6h")
            said = tf.refused('resource "mesh_ca" "it" {\n leaf_ttl = "soon"\n}\n')
            self.assertIn("is not a duration", said)

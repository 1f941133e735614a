"""Each resource from its creation to its end, under each program that there is."""

from mesh import Mesh
from terraform import Terraform, under_each

# What is written first, what it becomes, what makes it anew; by what it is imported; where it is
# in the API, and what somebody else changes there.
SERVICE = 'resource "mesh_service" "NAME" {{\n name = "NAME"\n protocol = "http"\n {}\n}}\n'
CASES = {
    "mesh_service": dict(
        first='name = "web"\n protocol = "http"\n connect_timeout = "60s"\n meta = {}\n'
              'subsets = { v1 = { meta = { version = "1" }, tags = [] } }\n outlier_detection = {}',
        then='name = "web"\n protocol = "http"\n connect_timeout = "1m30s"\n default_subset = "v1"\n'
             'subsets = { v1 = { tags = ["a", "b"], only_passing = true } }',
        anew='name = "web2"',
        id="web", path="/v1/services/web", gone="/v1/services/web2",
        drift=lambda row: {**row, "load_balancer": "random"}),
    "mesh_route": dict(
        before=SERVICE.replace("NAME", "shop").format('subsets = { v1 = {}, v2 = {} }')
        + SERVICE.replace("NAME", "other").format(""),
        first='name = mesh_service.shop.name\n rules = [{ name = "canary"\n match = [{ path_prefix = "/v1/"\n'
              'methods = ["get"]\n headers = [{ name = "X-A", exact = "b" }]\n query = [{ name = "q", present = true }] }]\n'
              'to = [{ subset = "v1", weight = 33.33 }, { subset = "v2", weight = 66.67 }]\n timeout = "5s"\n'
              'retries = { attempts = 3, on = ["5xx"], status_codes = [503] } }]',
        then='name = mesh_service.shop.name\n rules = [{ name = "all"\n to = [{ service = "other" }] }]',
        anew='name = mesh_service.other.name',
        id="shop", path="/v1/routes/shop", gone="/v1/routes/other",
        drift=lambda row: {**row, "rules": []}),
    "mesh_intention": dict(
        before=SERVICE.replace("NAME", "user-service").format(""),
        first='source = "frontend"\n destination = mesh_service.user-service.name\n'
              'permissions = [{ action = "allow", methods = ["GET", "HEAD"], path_prefix = "/public/" }]',
        then='source = "frontend"\n destination = mesh_service.user-service.name\n action = "deny"\n description = "none"',
        anew='source = "*"\n destination = mesh_service.user-service.name\n action = "deny"',
        id="frontend/user-service", path="/v1/intentions/frontend/user-service", gone="/v1/intentions/*/user-service",
        drift=lambda row: {"action": "allow"}),
    "mesh_defaults": dict(
        first='default_intention = "deny"\n tls = {}',
        then='outbound = "mesh_only"\n tls = { cipher_suites = ["TLS_AES_256_GCM_SHA384"] }',
        anew=None, id="mesh", path="/v1/mesh", gone="/v1/mesh",
        drift=lambda row: {"default_intention": "allow"}),
}
ROW = {"owner", "create_index", "modify_index", "created_at", "modified_at", "instances", "virtual", "defined",
       "effective", "precedence"}


@under_each
class Resources:
    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh("terraform")
        cls.mesh.servers()

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def terraform(self, name):
        return Terraform(self.program, self.mesh.folder / f"{self.program}-{name}", self.mesh.env())

    def exists(self, path):
        status, row = self.mesh.api("GET", path, raw=True)
        return status == 200 and row.get("defined", True)

    def life(self, kind):
        case = CASES[kind]
        tf = self.terraform(kind)
        before = case.get("before", "")
        address = f"{kind}.this"

        def text(body):
            return f'{before}resource "{kind}" "this" {{\n {body}\n}}\n'

        # Create.
        self.assertEqual(tf.planned(text(case["first"]))[address], "create")
        tf.apply()
        self.assertTrue(self.exists(case["path"]))
        self.assertEqual(self.mesh.api("GET", case["path"])[1]["owner"], "terraform")
        self.assertEqual(tf.planned(), {}, "the same again")
        # Update.
        self.assertEqual(tf.planned(text(case["then"])), {address: "update"})
        tf.apply()
        self.assertEqual(tf.planned(), {}, "the same again")
        # Drift.
        row = self.mesh.api("GET", case["path"])[1]
        row = {key: value for key, value in row.items() if key not in ROW}
        self.mesh.api("PUT", case["path"], case["drift"](row), headers={"X-Meshctl-Owner": "terraform"})
        self.assertEqual(tf.planned(), {address: "update"})
        tf.apply()
        self.assertEqual(tf.planned(), {})
        # Deleted outside.
        self.mesh.api("DELETE", case["path"], headers={"X-Meshctl-Owner": "terraform"})
        self.assertEqual(tf.planned(), {address: "create"})
        tf.apply()
        # Import.
        tf.run("state", "rm", address)
        self.assertIn("That id names nothing", tf.run("import", address, "no/such/name", expect=1))
        tf.run("import", address, case["id"])
        self.assertEqual(tf.planned(), {})
        # Generated configuration.
        tf.run("state", "rm", address)
        tf.write(f'{before}import {{\n to = {kind}.made\n id = "{case["id"]}"\n}}\n')
        tf.run("plan", "-generate-config-out=made.tf")
        said = tf.run("apply", "-auto-approve")
        self.assertIn("1 imported, 0 added, 0 changed, 0 destroyed", said)
        tf.run("state", "mv", f"{kind}.made", address)
        if case["anew"]:
            # Replace.
            self.assertEqual(tf.planned(text(case["anew"])), {address: "delete/create"})
            tf.apply()
            self.assertFalse(self.exists(case["path"]))
            self.assertTrue(self.exists(case["gone"]))
            self.assertEqual(tf.planned(), {})
        else:
            tf.write(text(case["then"]))
        # Destroy.
        tf.destroy()
        self.assertFalse(self.exists(case["gone"]))
        self.assertEqual(tf.state(), {})

    def test_a_service(self):
        self.life("mesh_service")

    def test_a_route(self):
        self.life("mesh_route")

    def test_an_intention(self):
        self.life("mesh_intention")

    def test_the_defaults(self):
        self.life("mesh_defaults")

    def test_a_row_of_another_owner_is_refused_and_can_be_imported(self):
        self.mesh.command("intention", "create", "-deny", "a", "b")
        tf = self.terraform("owner")
        text = 'resource "mesh_intention" "it" {\n source = "a"\n destination = "b"\n action = "deny"\n}\n'
        said = tf.refused(text)
        self.assertIn("intention a => b belongs to cli", said)
        self.assertIn('to = mesh_intention.NAME id = "a/b"', said)
        self.assertEqual(self.mesh.api("GET", "/v1/intentions/a/b")[1]["owner"], "cli")
        # As it says; an import and the change of owner are both in the plan.
        tf.write(text + 'import {\n to = mesh_intention.it\n id = "a/b"\n}\n')
        said = tf.run("plan")
        self.assertIn('"cli" -> "terraform"', said)
        self.assertIn("is taken over", said)
        tf.run("apply", "-auto-approve")
        self.assertEqual(tf.planned(), {})
        self.assertEqual(self.mesh.api("GET", "/v1/intentions/a/b")[1]["owner"], "terraform")
        refused = self.mesh.command("intention", "delete", "a", "b", expect=None)
        self.assertIn("terraform", refused.stderr)
        # Taken over by force elsewhere, it is neither overwritten nor deleted unseen.
        self.mesh.command("intention", "create", "-force", "-allow", "-replace", "a", "b")
        said = tf.run("destroy", "-auto-approve", expect=1)
        self.assertIn("belongs to cli", said)
        self.assertTrue(self.exists("/v1/intentions/a/b"))

    def test_a_mistake_is_named_by_its_attribute_before_anything_is_written(self):
        tf = self.terraform("mistakes")
        said = tf.refused(
            'resource "mesh_service" "good" {\n name = "good"\n}\n'
            'resource "mesh_route" "it" {\n name = "good"\n rules = [{\n'
            '  name = "r"\n  to = [{ subset = "v1", weight = 90 }]\n }]\n}\n'
            'resource "mesh_intention" "it" {\n source = "a b"\n destination = "b"\n action = "alow"\n}\n')
        self.assertIn("weights sum to 90", said)
        self.assertIn('rules = [{', said)
        self.assertIn("must be one of allow, deny, not `alow`", said)
        self.assertIn('action = "alow"', said)
        self.assertIn('source = "a b"', said)
        self.assertFalse(self.exists("/v1/services/good"))

    def test_a_route_and_its_service_in_any_order(self):
        tf = self.terraform("order")
        # Nothing says which comes first.
        tf.apply('resource "mesh_route" "it" {\n name = "late"\n rules = [{\n name = "r"\n to = [{ subset = "v1" }]\n }]\n}\n'
                 'resource "mesh_service" "it" {\n name = "late"\n protocol = "http"\n subsets = { v1 = {} }\n}\n')
        self.assertEqual(tf.planned(), {})
        tf.destroy()
        self.assertFalse(self.exists("/v1/services/late"))

    def test_names_are_of_the_providers_namespace(self):
        tf = Terraform(self.program, self.mesh.folder / f"{self.program}-namespace", self.mesh.env(),
                       'provider "mesh" {\n namespace = "team"\n}')
        tf.apply('resource "mesh_service" "it" {\n name = "web"\n protocol = "http"\n}\n'
                 'resource "mesh_intention" "it" {\n source = "default/web"\n destination = mesh_service.it.name\n action = "allow"\n}\n')
        self.assertEqual(tf.planned(), {})
        self.assertTrue(self.exists("/v1/services/team%2Fweb"))
        self.assertTrue(self.exists("/v1/intentions/web/team%2Fweb"))
        tf.run("state", "rm", "mesh_intention.it")
        tf.run("import", "mesh_intention.it", "default/web/team/web")
        self.assertEqual(tf.planned(), {})
        tf.destroy()

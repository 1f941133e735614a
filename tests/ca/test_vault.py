"""Three servers whose CA is in Vault, under exactly the policy that meshctl prints."""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import unittest

from mesh import Load, Mesh, http_get, until
from vault import Vault, bao, block

TOKEN = '    auth "token" {{\n      token_file = "{}"\n    }}\n'
SHORT = '  leaf_ttl = "{}"\n  allow_short_ttl = true\n'


def pair(mesh):
    """A service and one that calls it, with traffic; answers the caller's host and port."""
    mesh.agent()
    app = mesh.app("users")
    mesh.instance("users", port=app.port)
    mesh.instance("web", upstreams=[("users", 9001)])
    (mesh.folder / "users.hcl").write_text('service "users" {\n  protocol = "http"\n}\n')
    mesh.command("config", "write", mesh.folder / "users.hcl")
    mesh.sidecar("users")
    mesh.sidecar("web")
    mesh.wait_passing("users")
    host = mesh.address(10)
    until("traffic", lambda: http_get(f"http://{host}:9001/")[0] == 200)
    return host, 9001


def leaf_end(mesh, name):
    _, _, text = http_get(f"http://{mesh.processes[name].admin}/metrics")
    for line in text.decode().splitlines():
        if line.startswith("mesh_leaf_expiry_timestamp_seconds"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError("no mesh_leaf_expiry_timestamp_seconds")


def renewed(mesh, deadline=60):
    """Waits until both sidecars have leaves that they do not have now."""
    names = ("users-proxy", "web-proxy")
    before = [leaf_end(mesh, name) for name in names]
    until("both leaves renewed", lambda: all(
        leaf_end(mesh, name) > end for name, end in zip(names, before)), deadline)


def status(mesh, server=1):
    return json.loads(mesh.command("ca", "status", "-o", "json", server=server, expect=None).stdout)


def states(mesh, *wanted, deadline=30):
    """Waits until every server sees Vault in one of these states; the words of the last one."""
    servers = range(1, mesh.count + 1)
    until(f"every server sees Vault {wanted}", lambda: all(
        status(mesh, one)["vault"]["state"] in wanted for one in servers), deadline)
    return status(mesh)["vault"]["reason"]


def metric(mesh, name, server=1):
    """The sum of a metric of a server."""
    import http.client
    connection = http.client.HTTPSConnection(mesh.address(server), 8700, timeout=10, context=mesh.context())
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    rows = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


class InVault(unittest.TestCase):
    def setUp(self):
        bao()

    def with_token(self, mesh, vault, signing, ca="", policy=(), **token):
        """Servers that have a token of the printed policy."""
        vault.policy("-leaf-signing", signing, *policy)
        file = mesh.folder / "vault-token"
        vault.new_token(file, **token)
        mesh.ca = block(vault, TOKEN.format(file), ca, leaf_signing=signing)
        return file

    def no_leaks(self, vault, *allowed):
        # The servers write their files when they end.
        for name in [name for name in vault.mesh.processes if name.startswith("s")]:
            vault.mesh.processes[name].stop()
        self.assertEqual(vault.leaks(*allowed), [])

    def leaves_of_the_root(self, mesh, vault):
        """What the mesh trusts is Vault's root."""
        root = vault.do("GET", "pki_root/issuer/default/json")["data"]["certificate"].strip()
        _, roots = mesh.api("GET", "/v1/ca/roots")
        self.assertEqual([one["pem"].strip() for one in roots["roots"]], [root])

    def test_vault_signs_each_leaf(self):
        with Mesh("vault-signs", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            file = self.with_token(mesh, vault, "vault")
            mesh.servers()
            pair(mesh)
            self.leaves_of_the_root(mesh, vault)
            shown = mesh.command("ca", "status", server=2)
            self.assertIn("Provider:", shown)
            self.assertIn(f"ok at {vault.url}", shown)
            # The intermediate's key is nowhere but in Vault; any server signs.
            for number in (1, 2, 3):
                self.assertEqual(status(mesh, number)["ready"], True)
            self.no_leaks(vault, file)

    def test_vault_signs_for_an_ingress_by_its_hosts(self):
        with Mesh("vault-ingress", default="allow") as mesh:
            vault = Vault(mesh)
            file = self.with_token(mesh, vault, "vault")
            mesh.servers()
            mesh.agent()
            port = next(mesh.ports)
            mesh.instance("users", port=mesh.app("users").port)
            (mesh.folder / "mesh.hcl").write_text(
                'service "users" {\n  protocol = "http"\n}\ngateway "edge" {\n  ingress {\n    tls { enabled = true }\n'
                f'    listener {{\n      port = {port}\n      protocol = "http"\n      service {{\n        name = "users"\n'
                '        hosts = ["users.example"]\n      }\n    }\n  }\n}\n')
            mesh.command("apply", "-f", mesh.folder / "mesh.hcl", "-auto-approve")
            made, answer = mesh.agent_api("PUT", "/v1/agent/service/register", {
                "ID": "edge", "Name": "edge", "Kind": "ingress-gateway", "Port": port, "Address": mesh.address(10)})
            self.assertEqual(made, 200, answer)
            for name in ("users", "edge"):
                mesh.sidecar(name)
            context = ssl.create_default_context(cadata=mesh.command("ca", "roots", "-pem"))

            def names():
                with socket.create_connection((mesh.address(10), port), timeout=10) as raw, \
                        context.wrap_socket(raw, server_hostname="users.example") as tls:
                    return sorted(name for kind, name in tls.getpeercert()["subjectAltName"] if kind == "DNS")
            self.assertEqual(until("the host is certified", names),
                             ["*.ingress.consul", "*.ingress.dc1.consul", "users.example"])
            self.no_leaks(vault, file)

    def test_the_cluster_signs_with_an_intermediate_of_vault(self):
        with Mesh("vault-cluster", servers=3, default="allow") as mesh:
            # Reached by its address, while its certificate has a name only.
            vault = Vault(mesh, tls="vault.corp.internal")
            vault.policy("-leaf-signing", "cluster")
            file = mesh.folder / "vault-token"
            vault.new_token(file)
            mesh.ca = block(vault, TOKEN.format(file), leaf_signing="cluster", tls_server_name="vault.corp.internal",
                            ca_file=mesh.folder / "tls" / "cluster-ca.pem")
            mesh.servers()
            pair(mesh)
            self.leaves_of_the_root(mesh, vault)
            # Vault is not needed for leaves.
            vault.process.kill()
            self.assertIn("sys/health", states(mesh, "down"))
            mesh.instance("more", upstreams=[("users", 9002)])
            mesh.sidecar("more")
            host = mesh.address(10)
            until("traffic", lambda: http_get(f"http://{host}:9002/")[0] == 200)
            self.assertEqual(status(mesh)["ready"], True)
            self.assertEqual(metric(mesh, "meshctl_server_ca_vault_up"), 0)
            self.no_leaks(vault, file)

    def test_sealed_and_stopped_while_traffic_flows(self):
        with Mesh("vault-sealed", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            file = self.with_token(mesh, vault, "vault", ca=SHORT.format("40s"))
            mesh.servers()
            load = Load(*pair(mesh))
            load.more(100)
            vault.seal()
            self.assertEqual(states(mesh, "sealed"), "Vault is sealed")
            shown = mesh.command("ca", "status", expect=1)
            self.assertIn("Vault is sealed", shown)
            self.assertEqual(metric(mesh, "meshctl_server_ca_vault_up"), 0)
            load.more(200)
            vault.unseal()
            states(mesh, "ok")
            renewed(mesh)
            # Stopped, started sealed, unsealed; within half a life, so no leaf ends meanwhile.
            vault.process.kill()
            states(mesh, "down")
            load.more(200)
            vault.restart()
            states(mesh, "sealed")
            vault.unseal()
            states(mesh, "ok")
            renewed(mesh)
            # It takes connections and answers nothing.
            os.kill(vault.process.pid, signal.SIGSTOP)
            self.assertIn("no answer within", states(mesh, "down", deadline=60))
            load.more(100)
            os.kill(vault.process.pid, signal.SIGCONT)
            states(mesh, "ok")
            renewed(mesh)
            load.more(100)
            self.assertEqual(load.stop(), [])
            self.no_leaks(vault, file)

    def test_a_revoked_token_and_its_successor(self):
        with Mesh("vault-revoked", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            file = self.with_token(mesh, vault, "vault", ca=SHORT.format("60s"), ttl="10s", renewable=True)
            mesh.servers()
            load = Load(*pair(mesh))
            first = time.monotonic()
            # It is renewed past its end.
            until("more than its life", lambda: time.monotonic() - first > 12, 30)
            states(mesh, "ok")
            vault.do("POST", "auth/token/revoke", {"token": file.read_text().strip()})
            self.assertIn("permission denied", states(mesh, "denied"))
            load.more(100)
            vault.new_token(file)
            states(mesh, "ok")
            renewed(mesh)
            self.assertEqual(load.stop(), [])
            self.no_leaks(vault, file)

    def test_root_and_intermediate_in_namespaces_of_their_own(self):
        with Mesh("vault-namespaces", default="allow") as mesh:
            vault = Vault(mesh)
            for name in ("corp", "team"):
                vault.do("POST", f"sys/namespaces/{name}")
                vault.do("POST", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}}, namespace=name)
            vault.do("POST", "pki/root/generate/internal", {"common_name": "corp", "ttl": "80000h"}, namespace="corp")
            places = {"root_pki_path": "corp/pki", "intermediate_pki_path": "team/pki"}
            vault.policy("-leaf-signing", "vault", "-existing", "-root-pki-path", "corp/pki",
                         "-intermediate-pki-path", "team/pki")
            file = mesh.folder / "vault-token"
            vault.new_token(file)
            mesh.ca = block(vault, TOKEN.format(file), leaf_signing="vault", **places)
            mesh.servers()
            pair(mesh)
            root = vault.do("GET", "pki/cert/ca", namespace="corp")["data"]["certificate"]
            self.assertIn(root.strip(), mesh.command("ca", "roots", "-pem"))
            self.assertTrue(vault.do("GET", "pki/roles?list=true", namespace="team")["data"]["keys"])
            self.no_leaks(vault, file)

    def test_approle_logs_in_again(self):
        with Mesh("vault-approle", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            vault.do("POST", "sys/namespaces/team")
            space = {"namespace": "team"}
            vault.policy("-leaf-signing", "vault", **space)
            vault.do("POST", "sys/auth/approle", {"type": "approle"}, **space)
            # Three seconds, and no more than six however often it is renewed.
            vault.do("POST", "auth/approle/role/mesh", {
                "token_policies": ["mesh"], "token_no_default_policy": True,
                "token_ttl": "3s", "token_max_ttl": "6s"}, **space)
            role = vault.do("GET", "auth/approle/role/mesh/role-id", **space)["data"]["role_id"]
            secret = vault.do("POST", "auth/approle/role/mesh/secret-id", {}, **space)["data"]["secret_id"]
            file = mesh.folder / "secret-id"
            vault.secret(file, secret)
            auth = f'    auth "approle" {{\n      role_id = "{role}"\n      secret_id_file = "{file}"\n    }}\n'
            mesh.ca = block(vault, auth, SHORT.format("10s"), leaf_signing="vault", namespace="team")
            mesh.servers()
            load = Load(*pair(mesh))
            for _ in range(4):
                renewed(mesh)
            self.assertEqual(load.stop(), [])
            self.assertGreater(mesh.processes["s1"].log.read_text().count("logged in to Vault"), 2)
            self.no_leaks(vault, file)

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl, which signs the JWT")
    def test_a_workload_identity_logs_in(self):
        with Mesh("vault-jwt", default="allow") as mesh:
            vault = Vault(mesh)
            vault.policy("-leaf-signing", "vault")
            key, public = mesh.folder / "nomad.key", mesh.folder / "nomad.pub"
            for arguments in (["genrsa", "-out", key, "2048"], ["rsa", "-in", key, "-pubout", "-out", public]):
                subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
            vault.do("POST", "sys/auth/jwt", {"type": "jwt"})
            vault.do("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public.read_text()]})
            vault.do("POST", "auth/jwt/role/mesh", {
                "role_type": "jwt", "bound_audiences": ["vault.io"], "user_claim": "nomad_job_id",
                "token_policies": ["mesh"], "token_no_default_policy": True, "token_ttl": "1h"})
            file = mesh.folder / "nomad_vault_default.jwt"
            auth = f'    auth "jwt" {{\n      role = "mesh"\n      jwt_file = "{file}"\n    }}\n'
            mesh.ca = block(vault, auth, leaf_signing="vault")
            mesh.server()
            # Nomad has not written it yet: the server waits, and says for what.
            until("it says what is missing", lambda: "jwt_file" in mesh.processes["s1"].log.read_text())
            vault.secret(file, jwt(key, {"aud": "vault.io", "nomad_job_id": "mesh", "exp": int(time.time()) + 600,
                                    "nbf": int(time.time()) - 5}))
            until("the CA is there", lambda: status(mesh)["ready"])
            pair(mesh)
            self.no_leaks(vault, file)

    def test_what_is_there_is_used_and_what_is_not_allowed_is_said(self):
        with Mesh("vault-existing", default="allow") as mesh:
            vault = Vault(mesh)
            for path in ("corp/root", "corp/mesh"):
                vault.do("POST", f"sys/mounts/{path}", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
            vault.do("POST", "corp/root/root/generate/internal", {
                "common_name": "Corp root", "key_type": "rsa", "key_bits": 2048, "ttl": "8000h"})
            # A token that may nothing: Vault's words, and nothing is given up.
            vault.do("PUT", "sys/policies/acl/mesh", {"policy": 'path "auth/token/lookup-self" {\n  capabilities = ["read"]\n}\n'})
            file = mesh.folder / "vault-token"
            vault.new_token(file)
            paths = {"root_pki_path": "corp/root", "intermediate_pki_path": "corp/mesh", "leaf_signing": "vault"}
            mesh.ca = block(vault, TOKEN.format(file), **paths)
            mesh.server()
            words = "POST corp/mesh/issuers/generate/intermediate/internal: 403: permission denied"
            until("the server says what Vault says", lambda: words in (status(mesh)["problem"] or ""))
            self.assertIn(words, mesh.command("ca", "status", expect=1))
            vault.policy("-existing", "-config", mesh.folder / "s1.hcl")
            until("the CA is there", lambda: status(mesh)["ready"])
            pair(mesh)
            _, roots = mesh.api("GET", "/v1/ca/roots")
            root = vault.do("GET", "corp/root/issuer/default/json")["data"]["certificate"].strip()
            self.assertEqual([one["pem"].strip() for one in roots["roots"]], [root])
            # The right to sign is taken away: Vault's words, and no restart when it is given back.
            text = mesh.command("ca", "vault-policy", "-existing", "-config", mesh.folder / "s1.hcl")
            vault.do("PUT", "sys/policies/acl/mesh", {"policy": text.replace("corp/mesh/sign/", "corp/mesh/signs/")})
            mesh.instance("more", upstreams=[("users", 9002)])
            mesh.sidecar("more", ready=False)
            until("the server says what Vault says", lambda: "/sign/meshctl-" in mesh.processes["s1"].log.read_text()
                  and "403: permission denied" in mesh.processes["s1"].log.read_text())
            self.assertGreater(metric(mesh, 'meshctl_server_ca_vault_failures_total{kind="denied"}'), 0)
            self.assertEqual(status(mesh)["vault"]["state"], "ok")
            vault.do("PUT", "sys/policies/acl/mesh", {"policy": text})
            admin = mesh.processes["more-proxy"].admin
            until("it has its leaf", lambda: http_get(f"http://{admin}/ready")[0] == 200)
            mounts = vault.do("GET", "sys/mounts")["data"]
            self.assertNotIn("pki_root/", mounts)
            self.no_leaks(vault, file)


def jwt(key, claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    head = part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    signed = head + b"." + part(json.dumps(claims).encode())
    made = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(key)], input=signed, check=True, capture_output=True)
    return (signed + b"." + part(made.stdout)).decode()

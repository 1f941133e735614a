"""Nomad's side of workload identity, without Nomad: a key, where it is published, what is signed."""

import base64
import json
import subprocess
import time
import uuid

from mesh import HttpApp


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs workloads' identities; its keys are read at `address`."""

    def __init__(self, folder, host):
        self.key = folder / "nomad-identity.pem"
        self.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key)
        modulus = self.openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip().split("=")[1]
        keys = {"keys": [{"kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig",
                          "n": base64url(bytes.fromhex(modulus)), "e": "AQAB"}]}
        self.app = HttpApp("nomad", host, behave=lambda it: it.answer(
            200, json.dumps(keys).encode(), {"Content-Type": "application/json"}) or True)
        self.address = f"http://{host}:{self.app.port}"

    @staticmethod
    def openssl(*arguments, stdin=None):
        run = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=60)
        if run.returncode:
            raise AssertionError(f"openssl {arguments}: {run.stderr}")
        return run.stdout

    def identity(self, allocation, service):
        """The JWT of a service of an allocation."""
        now = int(time.time())
        claims = {"sub": f"global:default:job:group:{service}:consul-service_{service}-http", "aud": ["consul.io"],
                  "iat": now, "nbf": now, "exp": now + 3600, "jti": str(uuid.uuid4()),
                  "nomad_namespace": "default", "nomad_job_id": "job", "nomad_allocation_id": allocation,
                  "nomad_service": service}
        header = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
        said = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = self.openssl("dgst", "-sha256", "-sign", self.key, stdin=said.encode())
        return f"{said}.{base64url(signature)}"

    def login(self, mesh, allocation, service, agent="a10"):
        """The token that the agent gives for it, as Nomad asks for it."""
        body = {"AuthMethod": "nomad-workloads", "BearerToken": self.identity(allocation, service),
                "Meta": {"requested_by": f"nomad_service_{service}"}}
        status, answer = mesh.agent_api("POST", "/v1/acl/login", body, agent=agent)
        if status != 200:
            raise AssertionError(f"login: {status} {answer}")
        return json.loads(answer)["SecretID"]

    def close(self):
        self.app.close()

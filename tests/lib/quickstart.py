"""terraform/examples/quickstart with the real `terraform`, on a real Nomad with one machine."""

import contextlib
import socket
import threading

from mesh import ROOT, until
from meshjobs import USER, JobsMesh
from nomad import NODE
from terraform import Terraform, either

FOLDER = ROOT / "terraform" / "examples" / "quickstart"


POLICY = ROOT / "terraform" / "provider" / "examples" / "provider" / "nomad-policy.hcl"


class QuickstartMesh(JobsMesh):
    """Nomad, and the quickstart that is to be applied there: `tf`; the servers' data are in `data`."""

    # More of Nomad's configuration.
    extra = ""

    def quickstart(self, **variables):
        self.begin_nomad()
        # What stands before the servers must be known before they are made.
        self.door = Door(NODE, 8700, self.http_addresses)
        self.http_address = lambda server: (NODE, 8700)
        self.configure(**{"distinct_hosts": False, "http_port": 0, "grpc_port": 0, "mesh_address": f"https://{NODE}:8700",
                          **variables})

    def begin_nomad(self):
        self.data = self.run / "servers"
        self.nomad(self.extra, client=self.volume(), ready=False)

    def configure(self, **variables):
        trust = self.folder / "trust"
        trust.mkdir(mode=0o700)
        self.command("tls", "cert", "create", "-cli", "-id", "me", "-dir", self.folder / "tls")
        for name in ("cluster-ca.pem", "cluster-ca.key", "cli-me.pem", "cli-me.key"):
            (trust / name).write_bytes((self.folder / "tls" / name).read_bytes())
        (trust / "sealing.key").write_bytes(self.sealing.read_bytes())
        self.tf = Terraform(either(), self.folder / "terraform", source=FOLDER, variables={
            "nomad_address": f"http://{NODE}:4646", "trust": str(trust),
            "binary": str(self.bin / "meshctl"), "server_user": USER, "agent_user": USER,
            "server_data_dir": str(self.data), "agent_data_dir": str(self.run / "agent-data"),
            "shim_dir": str(self.shim), "cni_dir": str(self.folder / "cni"), "server_memory": 64, **variables})

    def http_addresses(self):
        found = self.api_nomad("/v1/service/mesh-server-http")
        return [(one["Address"], one["Port"]) for one in found]

    def close(self, **options):
        if hasattr(self, "door"):
            self.door.close()
        super().close(**options)


class Guarded(QuickstartMesh):
    """Where Nomad has ACLs: the tests have its first token, the quickstart another one."""

    extra = "acl {\n  enabled = true\n}\n"

    def until_ready(self, found=True):
        if not self.token:
            made = until("there is a token", lambda: self.api_nomad("/v1/acl/bootstrap", method="POST", body={}), deadline=60)
            self.token = made["SecretID"]
        super().until_ready(found)

    def allow(self, rules=None):
        """Makes the policy `mesh-terraform`, as the provider's page has it, or another one in its place."""
        self.api_nomad("/v1/acl/policy/mesh-terraform", method="PUT",
                       body={"Name": "mesh-terraform", "Rules": POLICY.read_text() if rules is None else rules})

    def give_token(self):
        """One with that policy, to the quickstart."""
        made = self.api_nomad("/v1/acl/token", method="PUT",
                              body={"Name": "terraform", "Type": "client", "Policies": ["mesh-terraform"]})
        self.tf.env["NOMAD_TOKEN"] = made["SecretID"]
        return made["SecretID"]


class Door:
    """What stands before the servers: passes each connection on to one of them, as a load balancer does."""

    def __init__(self, address, port, servers):
        self.servers = servers
        self.listener = socket.create_server((address, port))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._pass, args=(connection,), daemon=True).start()

    def _pass(self, connection):
        with connection:
            for target in self.servers():
                with contextlib.suppress(OSError), socket.create_connection(target, timeout=2) as other:
                    other.settimeout(None)
                    back = threading.Thread(target=self._copy, args=(other, connection), daemon=True)
                    back.start()
                    self._copy(connection, other)
                    back.join()
                    return

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()

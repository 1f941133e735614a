"""terraform/examples/quickstart with the real `terraform`, on a real Nomad with one machine."""

from mesh import ROOT
from meshjobs import USER, JobsMesh
from nomad import NODE
from tfproject import Door, Terraform

FOLDER = ROOT / "terraform" / "examples" / "quickstart"


class QuickstartMesh(JobsMesh):
    """Nomad, and the quickstart that is to be applied there: `tf`; the servers' data are in `data`."""

    def quickstart(self, **variables):
        trust = self.folder / "trust"
        trust.mkdir(mode=0o700)
        self.command("tls", "cert", "create", "-cli", "-id", "me", "-dir", self.folder / "tls")
        for name in ("cluster-ca.pem", "cluster-ca.key", "cli-me.pem", "cli-me.key"):
            (trust / name).write_bytes((self.folder / "tls" / name).read_bytes())
        (trust / "sealing.key").write_bytes(self.sealing.read_bytes())
        self.data = self.run / "servers"
        self.nomad(ready=False)
        self.door = Door(NODE, 8700, self.http_addresses)
        self.http_address = lambda server: (NODE, 8700)
        self.tf = Terraform(FOLDER, self.folder, {
            "nomad_address": f"http://{NODE}:4646", "mesh_address": f"https://{NODE}:8700", "trust": str(trust),
            "binary": str(self.bin / "meshctl"), "server_user": USER, "agent_user": USER,
            "server_data_dir": str(self.data), "agent_data_dir": str(self.run / "agent-data"),
            "shim_dir": str(self.shim), "cni_dir": str(self.folder / "cni"),
            "distinct_hosts": False, "http_port": 0, "grpc_port": 0, "server_memory": 64, **variables})

    def http_addresses(self):
        found = self.api_nomad("/v1/service/mesh-server-http")
        return [(one["Address"], one["Port"]) for one in found]

    def close(self, **options):
        if hasattr(self, "door"):
            self.door.close()
        super().close(**options)

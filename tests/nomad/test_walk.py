"""docs/nomad.md, "The mesh as Nomad's jobs", walked as it is written, on one machine.

The commands are taken from the page. They write into the machine's own folders, so those are
covered, in this namespace only: what is written goes to a folder that ends with the test.
"""

import os
import pathlib
import re
import shutil
import subprocess
import unittest

from mesh import BIN, ROOT, http_get, until
from nomad import NODE, NomadMesh, binary, missing, sh

PAGE = ROOT / "docs" / "nomad.md"
COVERED = ("/etc", "/usr/local", "/usr/lib", "/var/lib", "/opt")
# What Nomad has before the page begins.
NOMAD = '''data_dir  = "{data}"
bind_addr = "0.0.0.0"
advertise {{
  http = "{node}"
  rpc  = "{node}"
  serf = "{node}"
}}
server {{
  enabled          = true
  bootstrap_expect = 1
}}
client {{
  enabled           = true
  network_interface = "mesh0"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
disable_update_check = true
'''


def section():
    """(word after ```, text) of each block of the page's section."""
    text = PAGE.read_text().split("\n## The mesh as Nomad's jobs\n")[1].split("\n## ")[0]
    return re.findall(r"(?ms)^```(\S+ ?\S*)\n(.*?)^```$", text)


class Walk(NomadMesh):
    """Only Nomad, the folders and the network: the rest is the page's."""

    def __init__(self, name="walk", covered=COVERED):
        super().__init__(name)
        # Tasks of other users have their folders below it.
        self.run.chmod(0o755)
        cover = pathlib.Path(self.run) / "cover"
        cover.mkdir()
        # Not beside what is covered, which would then be its own cover.
        sh("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", cover)
        for folder in covered:
            upper, work = cover / f"u{folder.replace('/', '-')}", cover / f"w{folder.replace('/', '-')}"
            upper.mkdir(mode=0o755)
            work.mkdir()
            sh("mount", "-t", "overlay", "-o", f"lowerdir={folder},upperdir={upper},workdir={work}", "overlay", folder)
        self.own = pathlib.Path(self.run) / "own"
        self.own.mkdir()
        for name in ("meshctl", "mesh-proxy", "mesh-demo"):
            (self.own / name).symlink_to(BIN / name)

    def nomad_by_the_page(self, block):
        base, page = self.folder / "nomad.hcl", self.folder / "mesh.hcl"
        base.write_text(NOMAD.format(data=f"{self.run}/nomad", node=NODE))
        page.write_text(block)
        drop_in = (ROOT / "jobspecs" / "systemd" / "nomad.service.d" / "mesh.conf").read_text()
        path = re.search(r"(?m)^Environment=PATH=(\S+)$", drop_in)[1]
        self.start("nomad", [binary(), "agent", "-config", base, "-config", page],
                   env={"PATH": path, **{name: "" for name in os.environ if name.startswith(("NOMAD_", "AWS_"))}})
        self.until_ready(found=False)

    def type(self, block):
        """As somebody types it in a shell that stays open."""
        for here, there in (("10.0.0.1", NODE), (" jobspecs/mesh-server", f" -var count=1 {ROOT}/jobspecs/mesh-server"),
                            (" jobspecs/", f" {ROOT}/jobspecs/")):
            block = block.replace(here, there)
        script = f"set -e\n[ ! -f .shell ] || . ./.shell\n{block}\nexport -p > .shell\n"
        env = {"PATH": f"{self.own}:{pathlib.Path(binary()).parent}:{os.environ['PATH']}", "HOME": str(self.own),
               "NOMAD_ADDR": f"http://{NODE}:4646"}
        run = subprocess.run(["bash", "-c", script], cwd=self.own, env=env, capture_output=True, text=True, timeout=150)
        if run.returncode != 0:
            raise AssertionError(f"{block}\nexit {run.returncode}\n{run.stdout}{run.stderr}\n{self.tail('nomad')}")
        return run.stdout + run.stderr


@unittest.skipIf(missing(), missing())
class Page(unittest.TestCase):
    def test_from_an_empty_cluster_to_the_count_dashboard(self):
        with Walk() as mesh:
            self.walk(mesh)

    def walk(self, mesh):
        blocks = section()
        self.assertEqual([word for word, _ in blocks],
                         ["sh own", "sh client", "sh server", "nomad", "sh own", "sh own"])
        said = ""
        for word, block in blocks:
            if word == "nomad":
                mesh.nomad_by_the_page(block)
                continue
            if "countdash" in block:
                # What the page asks for before it.
                shutil.copy(BIN / "mesh-demo", "/usr/local/bin/mesh-demo")
            said += mesh.type(block)
        self.assertIn("Deployment completed successfully", said)
        until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)
        doctor = until("the doctor is through", lambda: mesh.type("nomad alloc logs -job mesh-agent doctor"), deadline=90)
        self.assertIn("Nomad's connect blocks can run on this node.", doctor)
        # A new version, as the page has it.
        for part in ("mesh-server", "mesh-agent"):
            mesh.type(f"nomad job restart -yes -batch-wait=1s {part}")
        until("it counts on", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)
        until("the agent speaks with a server", lambda: mesh.type("meshctl catalog nodes -verbose").count("alive") == 1)

"""What the doctor finds of transparent proxies' rules, in network namespaces of the test's own."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import uuid

from mesh import MESHCTL, until
from test_cni import PREVIOUS, namespaces

UID = 43101


@unittest.skipIf(namespaces(), namespaces())
class Rules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mesh-doctor-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.folder.chmod(0o755)
        self.name = f"mt-{uuid.uuid4().hex[:12]}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.addCleanup(subprocess.run, ["ip", "netns", "delete", self.name])

    def redirect(self):
        netns = f"/var/run/netns/{self.name}"
        config = {"ConsulDNSIP": "", "ConsulDNSPort": 0, "ProxyUserID": str(UID), "ProxyInboundPort": 20000,
                  "ProxyOutboundPort": 15001, "ExcludeInboundPorts": None, "ExcludeOutboundPorts": None,
                  "ExcludeOutboundCIDRs": None, "ExcludeUIDs": None, "NetNS": netns, "IptablesProvider": None}
        plugin = self.folder / "consul-cni"
        plugin.symlink_to(MESHCTL)
        network = {"cniVersion": "0.4.0", "name": "nomad", "type": "consul-cni", "prevResult": PREVIOUS}
        done = subprocess.run([plugin], input=json.dumps(network), capture_output=True, text=True, timeout=60, env={
            "PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", "CNI_NETNS": netns, "CNI_CONTAINERID": self.name,
            "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": f"IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG={json.dumps(config)}"})
        self.assertEqual(done.returncode, 0, done.stdout)

    def inside(self, name):
        """Starts a program of this name in the namespace, as the sidecar's user."""
        program = self.folder / name
        shutil.copy(shutil.which("cat"), program)
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.name}", "setpriv", f"--reuid={UID}",
                                    "--clear-groups", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        process.stdin.write(b"there\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"there\n")
        return process

    def findings(self):
        """Those about this namespace, each (what, state, found, fix)."""
        run = subprocess.run([MESHCTL, "doctor", "-agent-addr", "127.0.0.1:1", "-nomad-addr", "http://127.0.0.1:1",
                              "-o", "json"], capture_output=True, text=True, timeout=90)
        found = json.loads(run.stdout)["findings"]
        return [one for one in found if self.name in one["found"]]

    def test_rules_that_nobody_uses_and_users_that_they_let_pass(self):
        self.assertEqual(self.findings(), [], "a namespace without rules")
        self.redirect()
        [gone] = self.findings()
        self.assertEqual((gone["what"], gone["state"]), ("rules", "warning"))
        self.assertIn(f"ip netns delete {self.name}", gone["fix"])
        sidecar = self.inside("mesh-proxy")
        self.assertEqual(self.findings(), [], "it is in use")
        application = self.inside("mt-application")
        [passes] = self.findings()
        self.assertEqual((passes["what"], passes["state"]), ("sidecar's user", "warning"))
        self.assertIn(f"uid {UID}", passes["found"])
        self.assertIn(f"mt-application ({application.pid})", passes["found"])
        for process in (application, sidecar):
            process.communicate(timeout=30)
        until("it is left behind again", lambda: [one["what"] for one in self.findings()] == ["rules"])

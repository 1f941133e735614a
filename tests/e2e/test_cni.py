"""meshctl by the name consul-cni, asked as Nomad asks it."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from mesh import MESHCTL

PREVIOUS = {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "eth0", "mac": "c2:0e:22:34:1b:aa", "sandbox": "/var/run/netns/a"}],
    "ips": [{"version": "4", "interface": 0, "address": "172.26.64.5/20", "gateway": "172.26.64.1"}],
    "dns": {},
}


def namespaces():
    """Why there are none to be had; empty when there are."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for program in ("ip", "iptables", "ip6tables"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        return "this root may not make network namespaces"
    return ""


class Cni(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mesh-cni-")
        self.addCleanup(folder.cleanup)
        self.program = pathlib.Path(folder.name) / "consul-cni"
        self.program.symlink_to(MESHCTL)

    def ask(self, stdin=None, **variables):
        """Runs the plugin with these variables beside PATH."""
        text = "" if stdin is None else json.dumps(stdin)
        return subprocess.run([self.program], input=text, env={"PATH": os.environ["PATH"], **variables},
                              capture_output=True, text=True, timeout=60)

    def test_the_probe(self):
        # Nomad gives it no arguments, nothing to read, and three seconds.
        probe = subprocess.run([self.program], stdin=subprocess.DEVNULL, env={}, capture_output=True,
                               text=True, timeout=30)
        self.assertEqual((probe.returncode, probe.stderr), (0, ""))
        versions = [word for word in probe.stdout.split() if re.fullmatch(r"v?\d+\.\d+\.\d+", word)]
        first = [int(part) for part in versions[0].lstrip("v").split(".")]
        self.assertGreaterEqual(first, [1, 4, 2])

    def test_version(self):
        said = self.ask(CNI_COMMAND="VERSION")
        self.assertEqual(said.returncode, 0)
        self.assertIn("0.4.0", json.loads(said.stdout)["supportedVersions"])

    def test_an_error_is_cnis(self):
        said = self.ask({"cniVersion": "0.4.0", "name": "nomad", "type": "consul-cni"}, CNI_COMMAND="ADD")
        self.assertEqual(said.returncode, 1)
        error = json.loads(said.stdout)
        self.assertEqual((error["cniVersion"], error["code"]), ("0.4.0", 7))
        self.assertEqual(len(said.stderr.splitlines()), 1, said.stderr)

    @unittest.skipIf(namespaces(), namespaces())
    def test_add_add_check_del(self):
        # Held by a process, so that nothing has to be taken away.
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.communicate)
        holder.stdin.write("\n")
        holder.stdin.flush()
        holder.stdout.readline()
        netns = f"/proc/{holder.pid}/ns/net"
        config = {
            "ConsulDNSIP": "192.168.1.117", "ConsulDNSPort": 8600, "ProxyUserID": "101",
            "ProxyInboundPort": 9999, "ProxyOutboundPort": 15001, "ExcludeInboundPorts": ["9002"],
            "ExcludeOutboundPorts": None, "ExcludeOutboundCIDRs": None, "ExcludeUIDs": None,
            "NetNS": netns, "IptablesProvider": None,
        }
        common = {"CNI_CONTAINERID": "5f0a", "CNI_IFNAME": "eth0", "CNI_NETNS": netns, "CNI_PATH": "/opt/cni/bin"}
        args = f"NOMAD_REGION=global;CONSUL_IPTABLES_CONFIG={json.dumps(config)};IgnoreUnknown=true"
        network = {"cniVersion": "0.4.0", "name": "nomad", "type": "consul-cni", "log_level": "debug",
                   "prevResult": PREVIOUS}

        def rules():
            return [subprocess.run(["nsenter", f"--net={netns}", program, "-t", "nat", "-S"], check=True,
                                   capture_output=True, text=True).stdout
                    for program in ("iptables", "ip6tables")]

        seen = []
        for _ in range(2):
            said = self.ask(network, CNI_COMMAND="ADD", CNI_ARGS=args, **common)
            self.assertEqual(said.returncode, 0, said.stdout)
            self.assertEqual(json.loads(said.stdout), PREVIOUS)
            self.assertEqual(len(said.stderr.splitlines()), 1, said.stderr)
            seen.append(rules())
        self.assertEqual(seen[0], seen[1])
        for table in seen[0]:
            self.assertIn("--to-ports 9999", table)
        said = self.ask(network, CNI_COMMAND="CHECK", CNI_ARGS=args, **common)
        self.assertEqual((said.returncode, said.stdout), (0, ""))
        said = self.ask({"cniVersion": "0.4.0", "name": "nomad", "type": "consul-cni"}, CNI_COMMAND="DEL", **common)
        self.assertEqual((said.returncode, said.stdout), (0, ""))
        self.assertEqual(rules(), seen[0])

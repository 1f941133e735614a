"""The CNI plugin under a real Nomad: what Nomad finds of it, and what it does for an allocation."""

import unittest

from mesh import MESHCTL, until
from nomad import NODE, NomadMesh, binary, missing, sh

JOB = '''job "transparent" {
  group "one" {
    network {
      mode = "bridge"

      port "mapped" {
        static = 9102
        to     = 9102
      }

      port "bare" {
        static = 9103
      }
    }

    service {
      name = "one"
      port = "9001"

      connect {
        sidecar_service {
          proxy {
            transparent_proxy {
              uid                    = "4321"
              exclude_inbound_ports  = ["9104"]
              exclude_outbound_ports = [5432]
              exclude_outbound_cidrs = ["192.168.0.0/16", "fd00::/8"]
              exclude_uids           = ["4322"]
              no_dns                 = true
            }
          }
        }

        sidecar_task {
          driver = "raw_exec"

          config {
            command = "/bin/sleep"
            args    = ["infinity"]
          }
        }
      }
    }

    task "sleep" {
      driver = "raw_exec"

      config {
        command = "/bin/sleep"
        args    = ["infinity"]
      }
    }
  }
}
'''


@unittest.skipIf(missing(), missing())
class Cni(unittest.TestCase):
    def test_nomad_finds_and_runs_it(self):
        with NomadMesh("cni") as mesh:
            plugins = mesh.folder / "cni"
            plugins.mkdir()
            (plugins / "consul-cni").symlink_to(MESHCTL)
            mesh.begin()
            self.assertEqual(mesh.attribute("plugins.cni.version.consul-cni"), "v1.9.0")
            sh(binary(), "job", "run", "-detach", f"-address=http://{NODE}:4646",
               mesh.write_job("transparent", JOB))

            def placed():
                found = mesh.allocations("transparent", running=False)
                return found[0] if found else None
            allocation = until("an allocation", placed)
            port = next(port["Value"] for network in self.network(mesh, allocation)
                        for port in network["DynamicPorts"] if port["Label"] == "connect-proxy-one")
            for program, kept, other in (("iptables", "192.168.0.0/16", "fd00::/8"),
                                         ("ip6tables", "fd00::/8", "192.168.0.0/16")):
                def table():
                    return mesh.inside(allocation, program, "-t", "nat", "-S")
                until(f"rules of {program}", lambda: "-A OUTPUT -j MESH_OUTPUT" in table().splitlines())
                lines = table()
                for rule in (f"-A MESH_INBOUND -p tcp -j REDIRECT --to-ports {port}",
                             "-A MESH_INBOUND -p tcp -m tcp --dport 9102 -j RETURN",
                             "-A MESH_INBOUND -p tcp -m tcp --dport 9104 -j RETURN",
                             "-A MESH_OUTPUT -p tcp -j REDIRECT --to-ports 15001",
                             "-A MESH_OUTPUT -p tcp -m tcp --dport 5432 -j RETURN",
                             "-A MESH_OUTPUT -m owner --uid-owner 4321 -j RETURN",
                             "-A MESH_OUTPUT -m owner --uid-owner 4322 -j RETURN",
                             f"-A MESH_OUTPUT -d {kept} -j RETURN"):
                    self.assertIn(rule, lines.splitlines())
                self.assertNotIn(other, lines)
                self.assertNotIn("15053", lines)
            # A static port without `to` comes as 0, which says nothing.
            until("the log says so", lambda: "give it `to`" in mesh.processes["nomad"].log.read_text(errors="replace"))
            mesh.stop_job("transparent")
            until("the namespace is gone", lambda: allocation["ID"] not in sh("ip", "netns", "list"), deadline=60)

    def network(self, mesh, allocation):
        whole = mesh.api_nomad(f"/v1/allocation/{allocation['ID']}")
        return [whole["AllocatedResources"]["Shared"]["Networks"][0]]


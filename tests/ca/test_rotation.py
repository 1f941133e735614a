"""The root changes while traffic flows, and no request fails."""

import json
import socket
import ssl
import unittest

from mesh import Load, Mesh, http_get, until
from test_vault import SHORT, TOKEN, pair
from vault import Vault, bao, block


def status(mesh, server=1):
    return json.loads(mesh.command("ca", "status", "-o", "json", server=server, expect=None).stdout)


def active(mesh, server=1):
    _, roots = mesh.api("GET", "/v1/ca/roots", server=server)
    return roots["active_root"]


def settled(mesh, server=1, deadline=120):
    """Waits until one root is left, and answers it."""
    def probe():
        # The status is what that server has; a fresh read first, since it may have just started.
        active(mesh, server)
        shown = status(mesh, server)
        return not shown["rotation"] and len(shown["roots"]) == 1 and shown["roots"][0]["id"]
    return until("the old root is gone", probe, deadline)


def leader(mesh):
    """The number of the server that leads."""
    def probe():
        for number in range(1, mesh.count + 1):
            if mesh.processes[f"s{number}"].running():
                _, shown = mesh.api("GET", "/v1/status", server=number)
                if shown["leader"]:
                    return int(shown["leader"]["name"][1:])
        return None
    return until("a leader", probe)


def pems(mesh):
    """The roots, by id."""
    _, roots = mesh.api("GET", "/v1/ca/roots")
    return {root["id"]: root["pem"] for root in roots["roots"]}


def certified(mesh, *arguments):
    """Begins a change of the root, whose new root the old one must certify."""
    change = json.loads(mesh.command("ca", *arguments, "-o", "json"))
    cross = change["cross_signature"]
    assert cross["made"] and not cross["reason"] and change["rotates"], change
    return cross["by"], change["root"]


def replaced(mesh, root, leaves=2):
    """Waits until that root signs, and every sidecar has a leaf of it."""
    until("leaves are replaced", lambda: any(
        one["id"] == root and one["state"] == "active" and one["leaves"] == leaves for one in status(mesh)["roots"]), 60)


class Program:
    """One that is none of the mesh's, has OpenSSL, and calls a service's sidecar."""

    def __init__(self, mesh, service):
        entries = json.loads(mesh.agent_api("GET", f"/v1/health/connect/{service}?passing")[1])
        service, node = entries[0]["Service"], entries[0]["Node"]
        self.address = (service["Address"] or node["Address"], service["Port"])

    def takes_it(self, pem):
        """Whether it believes what answers there when it trusts only this root."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=pem)
        try:
            with socket.create_connection(self.address, timeout=30) as raw:
                # It shows no certificate itself: the sidecar refuses it, after it has shown its own.
                context.wrap_socket(raw).close()
        except ssl.SSLCertVerificationError:
            return False
        return True


class Rotation(unittest.TestCase):
    def test_a_program_that_trusts_one_root_only_is_not_cut_off(self):
        with Mesh("rotate-cross", default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            load = Load(*pair(mesh))
            program = Program(mesh, "users")
            first = active(mesh)
            roots = pems(mesh)
            self.assertTrue(program.takes_it(roots[first]))
            self.assertIn("would be certified by root", mesh.command("ca", "rotate", "-dry-run"))
            wanted = mesh.folder / "ca.hcl"
            wanted.write_text("ca {\n" + SHORT.format("20s") + '  key_type = "rsa-2048"\n}\n')
            by, second = certified(mesh, "config", "write", wanted)
            self.assertEqual(by, first)
            replaced(mesh, second)
            roots.update(pems(mesh))
            self.assertIn("is certified by root", mesh.command("ca", "status"))
            for root in (first, second):
                self.assertTrue(program.takes_it(roots[root]))
            # And again, while the first one retires.
            wanted.write_text("ca {\n" + SHORT.format("20s") + "}\n")
            by, third = certified(mesh, "config", "write", wanted)
            self.assertEqual(by, second)
            replaced(mesh, third)
            roots.update(pems(mesh))
            self.assertEqual(len(roots), 3)
            for root in (first, second, third):
                self.assertTrue(program.takes_it(roots[root]))
            # Nothing hangs on the old ones: they go, and with them what they certified.
            self.assertEqual(settled(mesh), third)
            until("the chain is short again", lambda: not program.takes_it(roots[second]), 60)
            self.assertFalse(program.takes_it(roots[first]))
            self.assertTrue(program.takes_it(roots[third]))
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_twice_in_a_row_under_load(self):
        with Mesh("rotate", servers=3, default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            load = Load(*pair(mesh))
            load.more(100)
            first = active(mesh)
            planned = mesh.command("ca", "rotate", "-dry-run")
            self.assertIn("Nothing was changed", planned)
            self.assertEqual(active(mesh), first)
            seen = [first]
            for _ in range(2):
                mesh.command("ca", "rotate")
                until("the new root signs", lambda: active(mesh) not in seen)
                seen.append(active(mesh))
                load.more(100)
            # Both old ones go, when the leaves of each have ended or were replaced.
            self.assertEqual(settled(mesh), seen[-1])
            load.more(100)
            self.assertEqual(load.stop(), [])

    def test_from_ec_to_rsa_and_back_under_load(self):
        with Mesh("rotate-keys", default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            load = Load(*pair(mesh))
            wanted = mesh.folder / "ca.hcl"
            for kind, shown in (("rsa-2048", "RSA 2048"), ("ec-p384", "EC P-384")):
                wanted.write_text("ca {\n" + SHORT.format("20s") + f'  key_type = "{kind}"\n}}\n')
                mesh.command("ca", "config", "write", wanted)
                until("the new root signs", lambda: any(
                    root["state"] == "active" and root["key_type"] == shown for root in status(mesh)["roots"]))
                load.more(50)
            settled(mesh)
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_the_leader_is_killed_at_each_step(self):
        with Mesh("rotate-killed", servers=3, default="allow", leaf_ttl="20s") as mesh:
            mesh.servers()
            load = Load(*pair(mesh))
            load.more(50)
            first = active(mesh)
            # As soon as the rotation has begun.
            number = leader(mesh)
            asked = number % 3 + 1
            mesh.command("ca", "rotate", server=asked)
            mesh.processes[f"s{number}"].kill()
            until("the new root signs", lambda: active(mesh, asked) != first, 60)
            mesh.processes[f"s{number}"].restart()
            mesh.ready()
            # After the switch, before the old one has gone.
            number = leader(mesh)
            mesh.processes[f"s{number}"].kill()
            asked = number % 3 + 1
            second = settled(mesh, asked)
            self.assertNotEqual(second, first)
            mesh.processes[f"s{number}"].restart()
            mesh.ready()
            load.more(100)
            self.assertEqual(load.stop(), [])

    def test_a_sidecar_that_is_away_is_waited_for_and_catches_up(self):
        with Mesh("rotate-away", default="allow", leaf_ttl="10m") as mesh:
            mesh.servers()
            host, port = pair(mesh)
            first = active(mesh)
            # Its sidecar stands still: it acks nothing, and is not gone either.
            import os
            import signal
            sidecar = mesh.processes["web-proxy"]
            os.kill(sidecar.pid, signal.SIGSTOP)
            mesh.command("ca", "rotate")
            waits = until("it is waited for", lambda: [
                one for one in (status(mesh)["rotation"] or {}).get("waiting", [])
                if one["proxy"] == "web-sidecar-proxy" and "trust" in one["reason"]])
            self.assertEqual(len(waits), 1)
            shown = mesh.command("ca", "status")
            self.assertIn("web-sidecar-proxy on a10", shown.replace(mesh.net, ""))
            refused = mesh.command("ca", "rotate", expect=None)
            self.assertIn("under way", refused.stderr)
            # Undone: the old root alone.
            mesh.command("ca", "rotate", "-abort")
            self.assertEqual(settled(mesh), first)
            # And again; now it comes back.
            mesh.command("ca", "rotate")
            self.assertEqual(active(mesh), first)
            os.kill(sidecar.pid, signal.SIGCONT)
            until("the new root signs", lambda: active(mesh) != first)
            until("leaves are replaced", lambda: all(
                root["leaves"] == 2 for root in status(mesh)["roots"] if root["state"] == "active"), 60)
            self.assertEqual(http_get(f"http://{host}:{port}/")[0], 200)

    def test_a_node_that_is_silent_is_not_waited_for_and_catches_up(self):
        with Mesh("rotate-silent", default="allow", leaf_ttl="10m") as mesh:
            mesh.servers()
            load = Load(*pair(mesh))
            mesh.agent(11)
            mesh.instance("far", upstreams=[("users", 9003)], agent="a11")
            mesh.sidecar("far", agent="a11")
            far = f"http://{mesh.address(11)}:9003/"
            until("traffic from the other node", lambda: http_get(far)[0] == 200)
            first = active(mesh)
            mesh.processes["a11"].kill()
            mesh.command("ca", "rotate")
            until("its node is waited for", lambda: any(
                one["node"] and "no server" in one["reason"] for one in status(mesh)["rotation"]["waiting"]))
            self.assertEqual(active(mesh), first)
            # Its lease ends; the others go on.
            until("the new root signs", lambda: active(mesh) != first, 60)
            load.more(100)
            mesh.processes["a11"].restart()
            until("leaves are replaced", lambda: all(
                root["leaves"] == 3 for root in status(mesh)["roots"] if root["state"] == "active"), 60)
            until("traffic from the other node", lambda: http_get(far)[0] == 200)
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_built_in_to_vault_and_back(self):
        bao()
        with Mesh("rotate-vault", servers=3, default="allow") as mesh:
            vault = Vault(mesh)
            vault.policy("-leaf-signing", "vault")
            file = mesh.folder / "vault-token"
            vault.new_token(file)
            # Each server knows how Vault is reached; the CA is built in.
            mesh.ca = block(vault, TOKEN.format(file), SHORT.format("20s")).replace(
                'provider = "vault"', 'provider = "built_in"')
            mesh.servers()
            load = Load(*pair(mesh))
            load.more(50)
            first = active(mesh)
            wanted = mesh.folder / "ca.hcl"
            wanted.write_text('ca {\n  provider = "vault"\n' + SHORT.format("20s")
                              + '  vault {\n    leaf_signing = "vault"\n  }\n}\n')
            self.assertIn("provider: built_in -> vault", mesh.command("ca", "config", "write", "-dry-run", wanted))
            program, roots = Program(mesh, "users"), pems(mesh)

            def old_root_leads_on(by, to):
                """What the new root signs, who trusts only the old one takes."""
                replaced(mesh, to)
                roots.update(pems(mesh))
                self.assertTrue(program.takes_it(roots[by]) and program.takes_it(roots[to]))

            by, second = certified(mesh, "config", "write", wanted)
            self.assertEqual(by, first)
            old_root_leads_on(first, second)
            self.assertEqual(settled(mesh), second)
            root = vault.do("GET", "pki_root/issuer/default/json")["data"]["certificate"].strip()
            _, roots = mesh.api("GET", "/v1/ca/roots")
            self.assertEqual([one["pem"].strip() for one in roots["roots"]], [root])
            self.assertIn("vault", mesh.command("ca", "config", "read"))
            # Another root in Vault; and back to the servers' own.
            by, third = certified(mesh, "rotate")
            self.assertEqual(by, second)
            old_root_leads_on(second, third)
            self.assertEqual(settled(mesh), third)
            wanted.write_text("ca {\n" + SHORT.format("20s") + "}\n")
            by, fourth = certified(mesh, "config", "write", wanted)
            self.assertEqual(by, third)
            old_root_leads_on(third, fourth)
            self.assertEqual(settled(mesh), fourth)
            self.assertEqual(status(mesh)["provider"], "built_in")
            load.more(50)
            self.assertEqual(load.stop(), [])

    def test_away_from_a_vault_that_is_gone(self):
        bao()
        with Mesh("rotate-gone", default="allow") as mesh:
            vault = Vault(mesh)
            vault.policy("-leaf-signing", "vault")
            file = mesh.folder / "vault-token"
            vault.new_token(file)
            mesh.ca = block(vault, TOKEN.format(file), SHORT.format("10m"), leaf_signing="vault")
            mesh.servers()
            load = Load(*pair(mesh))
            load.more(50)
            vault.process.kill()
            wanted = mesh.folder / "ca.hcl"
            wanted.write_text('ca {\n  leaf_ttl = "10m"\n}\n')
            # Vault certifies nothing any more: that is said, and holds nothing up.
            self.assertIn("is not certified by root", mesh.command("ca", "config", "write", wanted))
            until("the servers sign by themselves", lambda: status(mesh)["provider"] == "built_in")
            until("leaves are replaced", lambda: all(
                root["leaves"] == 2 for root in status(mesh)["roots"] if root["state"] == "active"), 60)
            load.more(50)
            self.assertEqual(load.stop(), [])

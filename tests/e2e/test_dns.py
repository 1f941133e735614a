"""The mesh's names at the agent's own DNS port, as users of Consul's DNS ask for them."""

import socket
import struct
import unittest

from mesh import Mesh, until

A, SRV = 1, 33


def ask(host, port, name, kind=A, tcp=False):
    """(rcode, whether it was cut, [(type, data)]) of the answers."""
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    message = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)
    if tcp:
        with socket.create_connection((host, port), timeout=10) as stream:
            stream.sendall(struct.pack(">H", len(message)) + message)
            file = stream.makefile("rb")
            answer = file.read(struct.unpack(">H", file.read(2))[0])
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(10)
            datagrams.sendto(message, (host, port))
            answer = datagrams.recv(65535)
    _, flags, _, count, _, _ = struct.unpack(">6H", answer[:12])
    at = len(message)
    records = []
    for _ in range(count):
        assert answer[at:at + 2] == b"\xc0\x0c", "the name that was asked for"
        found, _, _, length = struct.unpack(">HHIH", answer[at + 2:at + 12])
        records.append((found, answer[at + 12:at + 12 + length]))
        at += 12 + length
    return flags & 0xF, bool(flags & 0x0200), records


class Dns(unittest.TestCase):
    def test_names_of_services(self):
        with Mesh("dns") as mesh:
            mesh.servers()
            host = mesh.address(10)
            mesh.agent(extra=f'dns {{\n  bind = "{host}"\n}}\n')
            app = mesh.app("web")
            mesh.instance("web", port=app.port, more='  tags = ["blue"]\n')
            mesh.sidecar("web")
            mesh.wait_passing("web")
            own = (A, socket.inet_aton(host))
            for name in ("web.service.consul", "blue.web.service.consul", "_web._tcp.service.dc1.consul",
                         "web.connect.consul"):
                self.assertEqual(ask(host, 8600, name), (0, False, [own]), name)
            self.assertEqual(ask(host, 8600, "web.service.consul", tcp=True), (0, False, [own]))
            rcode, _, [(kind, data)] = ask(host, 8600, "web.service.consul", kind=SRV)
            self.assertEqual((rcode, kind, struct.unpack(">3H", data[:6])), (0, SRV, (1, 1, app.port)))
            hexed = socket.inet_aton(host).hex()
            self.assertIn(hexed.encode(), data[6:])
            self.assertEqual(ask(host, 8600, f"{hexed}.addr.dc1.consul"), (0, False, [own]))
            rcode, _, [(_, virtual)] = ask(host, 8600, "web.virtual.consul")
            self.assertGreaterEqual(virtual[0], 240)
            for name in ("red.web.service.consul", "db.service.consul", "db.virtual.consul", "web.service.dc2.consul"):
                self.assertEqual(ask(host, 8600, name), (3, False, []), name)
            # One whose check fails is not told of.
            app.close()
            until("it is gone", lambda: ask(host, 8600, "web.service.consul")[0] == 3)

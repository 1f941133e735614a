"""Checks that a pair does what it is measured for: mTLS between its two ends, by
TLS 1.3 and AES-128-GCM, with the right identity and no other."""

import contextlib
import socket
import ssl
import struct
import threading

from peers import CALLED, CALLER, STRANGER, SNI, TCP

AES_128_GCM, TLS_1_3 = 0x1301, 0x0304
MARK = b"x-load-mark-in-the-clear"


class Wrong(AssertionError):
    """What a pair does not do."""


class Tap:
    """Stands between the two ends, and keeps what goes by."""

    def __init__(self, address, port, to):
        self.to, self.up, self.down = to, bytearray(), bytearray()
        self.listener = socket.create_server((address, port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to, timeout=10)
            except OSError:
                return
            for source, sink, kept in ((near, far, self.up), (far, near, self.down)):
                threading.Thread(target=self._copy, args=(source, sink, kept), daemon=True).start()

    @staticmethod
    def _copy(source, sink, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


def server_hello(data):
    """(version, suite) of the first ServerHello in what a server sent."""
    if len(data) < 44 or data[0] != 22 or data[5] != 2:
        raise Wrong("what goes between the two ends does not begin as TLS")
    at = 5 + 4 + 2 + 32
    at += 1 + data[at]
    (suite,) = struct.unpack_from(">H", data, at)
    at += 3
    (length,) = struct.unpack_from(">H", data, at)
    at += 2
    end, version = at + length, 0
    while at + 4 <= min(end, len(data)):
        kind, size = struct.unpack_from(">HH", data, at)
        if kind == 43:
            (version,) = struct.unpack_from(">H", data, at + 4)
        at += 4 + size
    return version, suite


def encrypted(tap):
    """What the tap saw was TLS as wanted."""
    if MARK in tap.up or b"HTTP/1.1 200" in tap.down:
        raise Wrong("a request went in the clear")
    version, suite = server_hello(bytes(tap.down))
    if (version, suite) != (TLS_1_3, AES_128_GCM):
        raise Wrong(f"TLS version {version:#06x} with suite {suite:#06x}, not 0x0304 with 0x1301")


def takes(pair, name):
    """Whether the application's sidecar serves who has this certificate (None: who has none)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(f"{pair.certs}/roots.pem")
    if name:
        context.load_cert_chain(f"{pair.certs}/{name}.pem", f"{pair.certs}/{name}.key")
    if pair.mode != TCP:
        context.set_alpn_protocols(["http/1.1"])
    try:
        with socket.create_connection(pair.door, timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname=SNI) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n")
            return first_line(tls)
    except (OSError, ssl.SSLError):
        return False


def first_line(stream):
    data = b""
    while b"\r\n" not in data:
        more = stream.recv(4096)
        if not more:
            break
        data += more
    return data.startswith(b"HTTP/1.1 200")


def door(pair):
    """The application's sidecar takes the caller, and neither a stranger nor who shows nothing."""
    if not takes(pair, CALLER):
        raise Wrong(f"{pair.peer.name} {pair.mode}: the caller is not served")
    if takes(pair, STRANGER):
        raise Wrong(f"{pair.peer.name} {pair.mode}: a stranger is served")
    if takes(pair, None):
        raise Wrong(f"{pair.peer.name} {pair.mode}: who shows no certificate is served")


def answers(pair, clients):
    """Whether a call through the pair is answered as it should be."""
    host, port = pair.entry.split(":")
    if pair.mode == "grpc":
        try:
            return clients.mine("streams", pair.entry, streams=1, seconds=0.05)["requests"] > 0
        except Exception:  # whatever it says: no answer
            return False
    request = b"GET / HTTP/1.1\r\nhost: load\r\n" + MARK + b": yes\r\nconnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, int(port)), timeout=10) as stream:
            stream.sendall(request)
            return first_line(stream)
    except OSError:
        return False


def whole(make, clients, address):
    """All of it, with pairs of their own. make(through=…, called=…) starts one."""
    from peers import IN, TAP

    tap = Tap(address, TAP, (address, IN))
    try:
        pair = make(through=f"{address}:{TAP}")
        try:
            door(pair)
            if not answers(pair, clients):
                raise Wrong(f"{pair.peer.name} {pair.mode}: a call through the pair is not answered")
            encrypted(tap)
        finally:
            pair.close()
        pair = make(called=STRANGER)
        try:
            if answers(pair, clients):
                raise Wrong(f"{pair.peer.name} {pair.mode}: a stranger in {CALLED}'s place is called")
        finally:
            pair.close()
    finally:
        tap.close()

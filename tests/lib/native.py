"""An application that is in the mesh by itself, with nothing but Python's ssl module.

    python3 native.py serve SERVICE HOST PORT    echoes lines to whom the agent authorizes
    python3 native.py call SERVICE OTHER TEXT    one line to an instance of OTHER
    python3 native.py get SERVICE OTHER PATH     one request to an instance of OTHER
    python3 native.py leaf SERVICE INDEX         the certificate that comes after INDEX

What Nomad gives a task it takes from the environment: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN.
"""

import http.client
import json
import os
import socket
import ssl
import sys
import threading


def ask(method, path, body=None):
    """(answer, index) of the agent."""
    where = os.environ["CONSUL_HTTP_ADDR"]
    if where.startswith("unix://"):
        connection = http.client.HTTPConnection("agent", timeout=90)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(where[len("unix://"):])
    else:
        connection = http.client.HTTPConnection(where.replace("http://", ""), timeout=90)
    headers = {"X-Consul-Token": os.environ.get("CONSUL_HTTP_TOKEN", "")}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{method} {path}: {response.status} {text}")
    return json.loads(text), response.getheader("X-Consul-Index")


class Mesh:
    """What a service has of the mesh; the key is in memory only."""

    def __init__(self, service):
        self.service = service
        self.leaf, self.index = ask("GET", f"/v1/agent/connect/ca/leaf/{service}")
        roots, _ = ask("GET", "/v1/agent/connect/ca/roots")
        self.domain = roots["TrustDomain"]
        self.roots = "".join(root["RootCert"] for root in roots["Roots"])

    def context(self, side):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.roots)
        secret = os.memfd_create("leaf")  # the module wants a file
        try:
            os.write(secret, (self.leaf["CertPEM"] + self.leaf["PrivateKeyPEM"]).encode())
            context.load_cert_chain(f"/proc/self/fd/{secret}")
        finally:
            os.close(secret)
        return context

    def connect(self, other):
        """A connection to an instance of another service, which has proved that it is one."""
        entries, _ = ask("GET", f"/v1/health/connect/{other}?passing")
        if not entries:
            raise SystemExit(f"no instance of {other}")
        service, node = entries[0]["Service"], entries[0]["Node"]
        raw = socket.create_connection((service["Address"] or node["Address"], service["Port"]), timeout=30)
        tls = self.context("client").wrap_socket(raw)  # no name in the hello, no protocol
        wanted = f"spiffe://{self.domain}/ns/default/dc/{node['Datacenter']}/svc/{other}"
        if uri(tls) != wanted:
            raise SystemExit(f"{uri(tls)} answers in place of {wanted}")
        return tls


def uri(tls):
    names = [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "URI"]
    return names[0] if len(names) == 1 else None


def serve(service, host, port):
    mesh = Mesh(service)
    listener = socket.create_server((host, int(port)), backlog=64)
    print("listening", flush=True)
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=answer, args=(mesh, raw), daemon=True).start()


def answer(mesh, raw):
    try:
        tls = mesh.context("server").wrap_socket(raw, server_side=True)
        caller = uri(tls)
        said, _ = ask("POST", "/v1/agent/connect/authorize",
                      {"Target": mesh.service, "ClientCertURI": caller, "ClientCertSerial": ""})
        print(json.dumps({"caller": caller, "alpn": tls.selected_alpn_protocol(), **said}), flush=True)
        if said["Authorized"]:
            while data := tls.recv(65536):
                tls.sendall(data)
            tls.unwrap()
    except (OSError, ssl.SSLError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
    finally:
        raw.close()


def call(service, other, text):
    tls = Mesh(service).connect(other)
    tls.sendall(text.encode() + b"\n")
    got = b""
    while not got.endswith(b"\n"):
        data = tls.recv(65536)
        if not data:
            raise SystemExit(f"{other} ended the connection")
        got += data
    print(got.decode().strip())


def get(service, other, path):
    connection = http.client.HTTPConnection(other, timeout=30)
    connection.sock = Mesh(service).connect(other)
    connection.request("GET", path)
    response = connection.getresponse()
    print(json.dumps({"status": response.status, "body": response.read().decode(),
                      "denied": response.getheader("x-mesh-denied")}))


def leaf(service, index):
    after = f"?index={index}&wait=80s" if index != "0" else ""
    print(json.dumps(ask("GET", f"/v1/agent/connect/ca/leaf/{service}{after}")[0]))


if __name__ == "__main__":
    {"serve": serve, "call": call, "get": get, "leaf": leaf}[sys.argv[1]](*sys.argv[2:])

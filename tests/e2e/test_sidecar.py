"""The sidecar's process: how it is started, fed, told, and ended."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from mesh import MESHCTL, PROXY, ROOT, HttpApp, Mesh, Process, http_get, subnet, until

DOMAIN = "static.mesh"


def identity(service):
    return f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{service}"


class Authority:
    """A CA of openssl's, and leaves for services."""

    def __init__(self, folder):
        self.folder = folder
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test root", "-days", "2")

    def openssl(self, *arguments):
        run = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60)
        if run.returncode:
            raise AssertionError(f"openssl {' '.join(arguments)}: {run.stderr}")

    def leaf(self, service, days):
        """Writes SERVICE.pem and SERVICE.key."""
        (self.folder / f"{service}.ext").write_text(
            f"subjectAltName = URI:{identity(service)}\nkeyUsage = digitalSignature\n"
            "extendedKeyUsage = serverAuth, clientAuth\nbasicConstraints = CA:FALSE\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", f"{service}.key", "-out", f"{service}.csr", "-subj", "/CN=leaf")
        self.openssl("x509", "-req", "-in", f"{service}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                     "-CAcreateserial", "-extfile", f"{service}.ext", "-days", str(days), "-out", f"{service}.pem")


class Statics:
    """Two sidecars from files: `web` calls `api`."""

    def __init__(self):
        base = ROOT / "target" / "tests"
        base.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="static-", dir=base))
        self.host = subnet() + "1"
        self.ca = Authority(self.folder)
        self.app = HttpApp("api", self.host)
        self.processes = {}
        for service in ("api", "web"):
            self.ca.leaf(service, 1)

    def file(self, service, admin, **config):
        whole = {
            "proxy": f"{service}-proxy", "service": {"name": service}, "identity": identity(service),
            "trust_domain": DOMAIN, "policy": {"default": "allow"}, "outbound": [], "clusters": {}, **config,
        }
        path = self.folder / f"{service}.json"
        path.write_text(json.dumps({
            "config": whole, "chain": str(self.folder / f"{service}.pem"),
            "key": str(self.folder / f"{service}.key"), "roots": str(self.folder / "ca.pem"), "admin": admin}))
        return path

    def api(self, **config):
        inbound = {"address": self.host, "port": 21000, "protocol": "http",
                   "application": f"{self.host}:{self.app.port}", "connect_timeout": "5s"}
        return self.file("api", f"{self.host}:19000", inbound=inbound, **config)

    def web(self):
        cluster = {"service": {"name": "api"}, "sni": f"api.default.dc1.internal.{DOMAIN}", "protocol": "http",
                   "load_balancer": "round_robin", "connect_timeout": "5s",
                   "endpoints": [{"id": "n/api", "address": self.host, "port": 21000,
                                  "identity": identity("api"), "weight": 1, "health": "healthy"}]}
        outbound = {"service": {"name": "api"}, "bind": {"tcp": {"address": self.host, "port": 9001}},
                    "protocol": "http", "cluster": "api", "timeout": "15s"}
        return self.file("web", f"{self.host}:19001", outbound=[outbound], clusters={"api": cluster})

    def start(self, name, path, *options):
        process = Process(name, [PROXY, "-static", path, *options], self.folder)
        self.processes[name] = process
        until(f"{name} ready\n{process.tail()}", lambda: http_get(f"http://{self.admin(name)}/ready")[0] == 200)
        return process

    def admin(self, name):
        return f"{self.host}:{19000 if name == 'api' else 19001}"

    def call(self):
        return http_get(f"http://{self.host}:9001/")

    def metric(self, name, series):
        _, _, text = http_get(f"http://{self.admin(name)}/metrics")
        rows = [line for line in text.decode().splitlines() if line.startswith(series)]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for process in self.processes.values():
            if kind is not None:
                print(f"--- {process.name}\n{process.tail()}")
            if process.running():
                process.kill()
        self.app.close()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)


@unittest.skipUnless(shutil.which("openssl"), "makes its certificates with openssl")
class FromAFile(unittest.TestCase):
    def test_reads_its_file_again_and_drains(self):
        with Statics() as both:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
            try:
                api = both.start("api", both.api(), "-access-log", "off")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            limits = pathlib.Path(f"/proc/{api.pid}/limits").read_text()
            files = next(line for line in limits.splitlines() if line.startswith("Max open files"))
            self.assertEqual(files.split()[3], files.split()[4], files)

            web = both.start("web", both.web())
            self.assertEqual(both.call()[0], 200)

            # What is wrong changes nothing, the certificates included.
            expiry = "mesh_leaf_expiry_timestamp_seconds"
            before = both.metric("api", expiry)
            both.ca.leaf("api", 2)
            both.api(identity=identity("other"))
            api.process.send_signal(signal.SIGHUP)
            until("it is refused", lambda: "not taken" in api.tail())
            self.assertEqual(both.metric("api", expiry), before)
            self.assertEqual(both.call()[0], 200)

            # What is right is in use, and cuts what it denies.
            both.api(policy={"default": "deny"})
            api.process.send_signal(signal.SIGHUP)
            until("it is denied", lambda: both.call()[0] == 403)
            self.assertGreater(both.metric("api", expiry), before)
            until("without an access log the log says so",
                  lambda: '"denied"' in api.tail() and "GET /" in api.tail())
            both.api()
            api.process.send_signal(signal.SIGHUP)
            until("it is allowed", lambda: both.call()[0] == 200)

            for process in (web, api):
                self.assertEqual(http_get(f"http://{both.admin(process.name)}/drain", method="POST")[0], 202)
                self.assertEqual(process.process.wait(20), 0)

    def test_a_log_that_nobody_reads_stops_nothing(self):
        with Statics() as both:
            path = both.api()
            # The other end of the pipe is open, and never read.
            process = subprocess.Popen([PROXY, "-static", path, "-l", "debug"], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                until("ready", lambda: http_get(f"http://{both.admin('api')}/ready")[0] == 200)
                both.start("web", both.web())

                def fill():
                    for _ in range(200):
                        # As a check of the port does; each is a line.
                        with socket.create_connection((both.host, 21000), timeout=10):
                            pass
                    return both.metric("api", "mesh_log_dropped_total") > 0
                until("the pipe is full", fill)
                self.assertEqual(both.metric("api", "mesh_tls_handshake_failures_total"), 0)
                for _ in range(20):
                    self.assertEqual(both.call()[0], 200)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(20), 0)
            finally:
                if process.poll() is None:
                    process.kill()
                for pipe in (process.stdout, process.stderr):
                    pipe.close()
                process.wait()


class FromABootstrap(unittest.TestCase):
    def test_as_nomad_starts_it(self):
        with Mesh("bootstrap", default="allow") as mesh:
            mesh.servers()
            mesh.agent()
            app = mesh.app("users")
            mesh.instance("users", port=app.port)
            mesh.instance("web", upstreams=[("users", 9001)])
            (mesh.folder / "users.hcl").write_text('service "users" {\n  protocol = "http"\n}\n')
            mesh.command("config", "write", mesh.folder / "users.hcl")

            # One reads its bootstrap from a file, the other from its standard input.
            path = mesh.folder / "envoy_bootstrap.json"
            path.write_text(bootstrap(mesh, "users", 19100))
            users = mesh.start("users-proxy", [PROXY, "-c", path, "-l", "info", "--concurrency", "1",
                                               "--disable-hot-restart"])
            host = mesh.address(10)
            wait_ready(mesh, "users-proxy", 19100)
            with open(mesh.folder / "web.log", "wb") as log:
                web = subprocess.Popen([PROXY, "-c", "-"], stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=log)
            try:
                web.stdin.write(bootstrap(mesh, "web", 19101).encode())
                web.stdin.close()
                until("traffic", lambda: http_get(f"http://{host}:9001/")[0] == 200)

                _, _, text = http_get(f"http://{host}:19100/config")
                port = json.loads(text)["config"]["inbound"]["port"]
                with socket.create_connection((host, port), timeout=10):
                    pass
                self.assertEqual(http_get(f"http://{host}:19100/drain", method="POST")[0], 202)
                self.assertEqual(users.process.wait(40), 0)

                # Before its first config nobody can be connected: Nomad's check gates on that.
                path.write_text(bootstrap(mesh, "users", 19100))
                agent = mesh.processes["a10"].process
                agent.send_signal(signal.SIGSTOP)
                try:
                    users.start()
                    until("it waits", lambda: http_get(f"http://{host}:19100/ready")[0] == 503)
                    with self.assertRaises(ConnectionRefusedError):
                        socket.create_connection((host, port), timeout=10).close()
                finally:
                    agent.send_signal(signal.SIGCONT)
                wait_ready(mesh, "users-proxy", 19100)
                until("traffic again", lambda: http_get(f"http://{host}:9001/")[0] == 200)
                web.send_signal(signal.SIGTERM)
                self.assertEqual(web.wait(40), 0)
            finally:
                if web.poll() is None:
                    web.kill()
                    web.wait()

            # A sidecar's key is in its memory alone. (tls/ is the cluster's own.)
            looked = 0
            for folder in (mesh.folder, mesh.run):
                for file in folder.rglob("*"):
                    if file.is_symlink() or not file.is_file() or mesh.folder / "tls" in file.parents:
                        continue
                    looked += 1
                    self.assertFalse(b"PRIVATE KEY" in file.read_bytes(), file)
            self.assertGreater(looked, 5)


def bootstrap(mesh, instance, admin):
    """What Nomad's command prints: our binary, called by the name consul."""
    host = mesh.address(10)
    name = mesh.run / "consul"
    if not name.exists():
        name.symlink_to(os.path.relpath(MESHCTL, mesh.run.resolve()))

    def ask():
        run = subprocess.run(
            [name, "connect", "envoy", "-grpc-addr", f"{host}:8502", "-http-addr", f"{host}:8500",
             "-admin-bind", f"{host}:{admin}", "-proxy-id", f"{instance}-sidecar-proxy", "-bootstrap"],
            capture_output=True, text=True, timeout=60)
        if run.returncode:
            raise AssertionError(f"consul connect envoy: exit {run.returncode}: {run.stderr}")
        return run.stdout
    return until(f"a bootstrap for {instance}", ask)


def wait_ready(mesh, name, admin):
    until(f"{name} ready\n{mesh.tail(name)}",
          lambda: http_get(f"http://{mesh.address(10)}:{admin}/ready")[0] == 200)


if __name__ == "__main__":
    unittest.main()

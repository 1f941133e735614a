"""Real processes of the mesh on loopback, for tests.

Each test has a /24 of 127.0.0.0/8 for itself, so that every part listens on its
usual port and no two tests meet. Everything stands in a folder under target/.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = os.environ.get("MESH_PROFILE", "debug")
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / PROFILE
MESHCTL = BIN / "meshctl"
PROXY = BIN / "mesh-proxy"
DEADLINE = 30.0


def until(what, probe, deadline=DEADLINE, every=0.05):
    """The first true answer of probe; an AssertionError that says what was awaited."""
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            answer = probe()
            if answer:
                return answer
            last = answer
        except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline} s for: {what}; last: {last!r}")
        time.sleep(every)


def subnet():
    """A 127.A.B. prefix on which nothing listens."""
    for _ in range(100):
        prefix = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}."
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in (8700, 8701, 8500):
                probe = stack.enter_context(socket.socket())
                probe.bind((prefix + "1", port))
            return prefix
    raise RuntimeError("no free part of 127.0.0.0/8")


class Process:
    """A process whose output goes to a file, ended by its pid."""

    def __init__(self, name, arguments, folder, env=None, limit_file_size=None):
        self.name = name
        self.arguments = [str(one) for one in arguments]
        self.log = pathlib.Path(folder) / f"{name}.log"
        self.out = pathlib.Path(folder) / f"{name}.out"
        self.env = {**os.environ, **(env or {}), "RUST_BACKTRACE": "1"}
        self.limit_file_size = limit_file_size
        self.start()

    def start(self):
        limit = self.limit_file_size

        def prepare():
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=self.env,
                preexec_fn=prepare,
                # Python ignores SIGXFSZ; the child must too, to see an error.
                restore_signals=limit is None,
            )

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def kill(self):
        """As a crash: kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self, deadline=20):
        """As an operator does: SIGTERM. The exit code."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(deadline)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not end within {deadline} s of SIGTERM")
        return self.process.returncode

    def restart(self):
        self.start()

    def tail(self, lines=30):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Mesh:
    """Servers, agents, sidecars and applications of one test."""

    def __init__(self, name, servers=1, default="deny", leaf_ttl="24h"):
        base = ROOT / "target" / "tests"
        base.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
        # Sockets have a short path limit, folders under target/ need not.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="mesh-"))
        self.net = subnet()
        self.default = default
        self.leaf_ttl = leaf_ttl
        self.ca = None  # a whole `ca` block for the servers, in place of the usual one
        self.processes = {}
        self.apps = []
        self.agents = {}
        self.doors = {}
        self.ports = iter(range(15000, 20000))
        self.count = servers
        self.command("tls", "ca", "create", "-dir", self.folder / "tls")
        self.sealing = self.folder / "sealing.key"
        self.command("operator", "sealing-key", "create", self.sealing)
        self.cert("cli", "test")

    # --- parts

    def address(self, number):
        return f"{self.net}{number}"

    def cert(self, role, name):
        self.command("tls", "cert", "create", f"-{role}", "-id", name, "-dir", self.folder / "tls",
                     *(["-additional-ipaddress", self.address(int(name[1:]))] if role == "server" else []))

    def tls(self, role, name):
        folder = self.folder / "tls"
        return (f'tls {{\n  ca_file = "{folder}/cluster-ca.pem"\n  cert_file = "{folder}/{role}-{name}.pem"\n'
                f'  key_file = "{folder}/{role}-{name}.key"\n}}\n')

    def server(self, number=1, extra="", start=True, program=MESHCTL, **options):
        """program: a meshctl of another version."""
        name = f"s{number}"
        config = self.folder / f"{name}.hcl"
        if not (self.folder / "tls" / f"server-{name}.pem").exists():
            self.cert("server", name)
        join = ", ".join(f'"{self.address(n)}"' for n in range(1, self.count + 1))
        how = "bootstrap = true" if self.count == 1 else \
            f"bootstrap_expect = {self.count}\nretry_join = [{join}]"
        config.write_text(
            f'node_name = "{name}"\ndata_dir = "{self.folder}/{name}"\n'
            f'bind_addr = "{self.address(number)}"\n{how}\n'
            f'sealing_key_file = "{self.sealing}"\ndefault_intention = "{self.default}"\n'
            + (self.ca or f'ca {{\n  leaf_ttl = "{self.leaf_ttl}"\n  allow_short_ttl = true\n}}\n') + f'{self.tls("server", name)}{extra}\n')
        if start:
            self.start(name, [program, "server", "-config", config], **options)
        return name

    def servers(self):
        for number in range(1, self.count + 1):
            self.server(number)
        self.ready()

    def ready(self, number=None):
        numbers = [number] if number else range(1, self.count + 1)
        for one in numbers:
            until(f"server s{one} ready\n{self.tail(f's{one}')}",
                  lambda: self.api("GET", "/v1/status/ready", server=one, raw=True)[0] == 200)

    def agent(self, number=10, extra="", start=True, servers=None, options=(), door=None, advertise=None,
              socket=None):
        """door: where it answers in Consul's place; advertise: its node's address for other nodes."""
        name = f"a{number}"
        self.doors[name] = door = door or self.address(number)
        instances = self.folder / f"{name}-instances"
        instances.mkdir(exist_ok=True)
        if not (self.folder / "tls" / f"agent-{name}.pem").exists():
            self.cert("agent", name)
        targets = ", ".join(f'"{self.address(n)}:8701"' for n in (servers or range(1, self.count + 1)))
        config = self.folder / f"{name}.hcl"
        config.write_text(
            f'node_name = "{name}"\ndata_dir = "{self.folder}/{name}"\n'
            f'servers = [{targets}]\nbind_addr = "{self.address(number)}"\n'
            f'advertise_addr = "{advertise or self.address(number)}"\n'
            f'http_addr = "{door}:8500"\ngrpc_addr = "{door}:8502"\n'
            f'socket = "{socket or f"{self.run}/{name}.sock"}"\ninstance_dir = "{instances}"\n{self.tls("agent", name)}{extra}\n')
        self.agents[name] = number
        if start:
            self.start(name, [MESHCTL, "agent", "-config", config, *options])
            until(f"agent {name} answers\n{self.tail(name)}",
                  lambda: self.agent_api("GET", "/v1/agent/self", agent=name)[0] == 200)
        return name

    def instance(self, name, service=None, port=0, upstreams=(), meta=None, agent="a10", checks=True, more=""):
        """Writes the instance's file and has the agent read it. upstreams: (name, local port)."""
        address = self.address(self.agents[agent])
        blocks = "".join(
            f'        upstreams {{\n          destination_name = "{to}"\n          local_bind_port = {at}\n'
            f'          local_bind_address = "{address}"\n        }}\n' for to, at in upstreams)
        pairs = "".join(f'  {key} = "{value}"\n' for key, value in (meta or {}).items())
        check = ('  check {\n    type = "tcp"\n    interval = "1s"\n    timeout = "1s"\n  }\n'
                 if checks and port else "")
        text = (f'instance "{service or name}" {{\n  id = "{name}"\n  address = "{address}"\n'
                + (f"  port = {port}\n" if port else "")
                + (f"  meta = {{\n{pairs}  }}\n" if pairs else "") + check + more
                + '  connect {\n    sidecar_service {\n      proxy {\n'
                f'        local_service_address = "{address}"\n'
                f'        config {{\n          bind_address = "{address}"\n        }}\n'
                f'{blocks}      }}\n    }}\n  }}\n}}\n')
        (self.folder / f"{agent}-instances" / f"{name}.hcl").write_text(text)
        if agent in self.processes:
            self.processes[agent].process.send_signal(signal.SIGHUP)

    def sidecar(self, instance, agent="a10", options=(), ready=True):
        """Starts the sidecar; answers (process, admin address)."""
        admin = f"{self.address(self.agents[agent])}:{next(self.ports)}"
        process = self.start(f"{instance}-proxy", [
            PROXY, "-sidecar-for", instance, "-agent-socket", f"{self.run}/{agent}.sock",
            "-admin-bind", admin, "-drain-time-s", "10", *options])
        process.admin = admin
        if ready:
            until(f"sidecar of {instance} ready\n{process.tail()}\n{self.tail(agent)}",
                  lambda: http_get(f"http://{admin}/ready")[0] == 200)
        return process

    def start(self, name, arguments, **options):
        process = Process(name, arguments, self.folder, **options)
        self.processes[name] = process
        return process

    def tail(self, name):
        process = self.processes.get(name)
        return f"--- {name}\n{process.tail()}" if process else f"--- {name}: never started"

    # --- talking to them

    def http_address(self, server):
        """Where a server's API is: (host, port)."""
        return self.address(server), 8700

    def env(self, server=1):
        tls = self.folder / "tls"
        host, port = self.http_address(server)
        return {
            "MESHCTL_HTTP_ADDR": f"https://{host}:{port}",
            "MESHCTL_CACERT": str(tls / "cluster-ca.pem"),
            "MESHCTL_CLIENT_CERT": str(tls / "cli-test.pem"),
            "MESHCTL_CLIENT_KEY": str(tls / "cli-test.key"),
            "NO_COLOR": "1",
        }

    def command(self, *arguments, server=1, expect=0, stdin=None, program=MESHCTL):
        """Runs meshctl; its standard output. expect: the exit code, or None for any."""
        run = subprocess.run([program, *map(str, arguments)], env={**os.environ, **self.env(server)},
                             capture_output=True, text=True, timeout=90, input=stdin)
        if expect is not None and run.returncode != expect:
            shown = " ".join(map(str, arguments))
            raise AssertionError(f"meshctl {shown}: exit {run.returncode}, not {expect}\n"
                                 f"{run.stdout}{run.stderr}")
        return run.stdout if expect is not None else run

    def context(self):
        import ssl

        tls = self.folder / "tls"
        context = ssl.create_default_context(cafile=str(tls / "cluster-ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(tls / "cli-test.pem", tls / "cli-test.key")
        return context

    def api(self, method, path, body=None, server=1, raw=False, headers=None, timeout=15):
        """(status, JSON) of the servers' API; with raw also of an error."""
        if not hasattr(self, "_context"):
            self._context = self.context()
        connection = http.client.HTTPSConnection(*self.http_address(server), timeout=timeout, context=self._context)
        try:
            payload = None if body is None else json.dumps(body)
            given = {"Content-Type": "application/json"} if payload else {}
            connection.request(method, path, payload, {**given, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
            parsed = json.loads(data) if data else None
            if not raw and response.status >= 400:
                raise AssertionError(f"{method} {path}: {response.status} {data!r}")
            return response.status, parsed
        finally:
            connection.close()

    def agent_api(self, method, path, body=None, agent="a10", headers=None):
        connection = http.client.HTTPConnection(self.doors[agent], 8500, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def wait_passing(self, service, count=1):
        def probe():
            _, rows = self.api("GET", f"/v1/catalog/services/{service}")
            rows = rows if isinstance(rows, list) else rows.get("instances", [])
            return sum(row.get("status") == "passing" for row in rows) >= count
        until(f"{count} passing instances of {service}", probe)

    # --- the end

    def close(self, failed=False):
        for process in reversed(list(self.processes.values())):
            if process.running():
                process.process.terminate()
        for process in self.processes.values():
            try:
                process.process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        for app in self.apps:
            app.close()
        shutil.rmtree(self.run, ignore_errors=True)
        if not failed:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(f"--- kept: {self.folder.relative_to(ROOT)}", file=sys.stderr)
            for name in self.processes:
                print(self.tail(name), file=sys.stderr)
        self.close(failed=kind is not None)

    # --- applications

    def app(self, name, host=None, behave=None):
        app = HttpApp(name, host or self.address(10), behave)
        self.apps.append(app)
        return app

    def echo(self, host=None):
        app = EchoApp(host or self.address(10))
        self.apps.append(app)
        return app


class HttpApp:
    """A plain HTTP/1.1 application that tells its name; behave(handler) may answer otherwise."""

    def __init__(self, name, host, behave=None):
        self.requests = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status=200, body=b"", headers=None):
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_any(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.body = self.rfile.read(length)
                outer.requests.append((self.command, self.path, dict(self.headers)))
                if behave is not None and behave(self):
                    return
                told = {"app": name, "method": self.command, "path": self.path,
                        "headers": {k.lower(): v for k, v in self.headers.items()}, "bytes": len(self.body)}
                self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a caller that timed out and went away

            request_queue_size = 512

        self.server = Server((host, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class EchoApp:
    """Sends back what comes, until the other side has finished."""

    def __init__(self, host):
        self.listener = socket.create_server((host, 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def close(self):
        self.listener.close()


def http_get(url, method="GET", headers=None, body=None, timeout=10):
    """(status, headers with lower-case names, body)."""
    match = re.match(r"http://([^/:]+):(\d+)(/.*)?$", url)
    connection = http.client.HTTPConnection(match[1], int(match[2]), timeout=timeout)
    try:
        connection.request(method, match[3] or "/", body, headers or {})
        response = connection.getresponse()
        data = response.read()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, data
    finally:
        connection.close()


def first_bytes(host, port, sent=b""):
    """What comes first on a new connection; nothing when it is closed or reset, at whatever moment."""
    try:
        with socket.create_connection((host, port), timeout=10) as stream:
            if sent:
                stream.sendall(sent)
            return stream.recv(1000)
    except ConnectionError:
        return b""


class Load:
    """Steady requests on kept-alive connections; counts what came of them."""

    def __init__(self, host, port, path="/", threads=4, pause=0.005):
        self.failures = []
        self.done = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(host, port, path, pause), daemon=True)
                        for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, host, port, path, pause):
        connection = None
        while not self.ending.wait(pause):
            try:
                connection = connection or http.client.HTTPConnection(host, port, timeout=15)
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                failure = None if response.status == 200 else (response.status, dict(response.getheaders()), body[:200])
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
                connection = None
            with self.lock:
                self.done += 1
                if failure:
                    self.failures.append((time.time(), failure))

    def count(self):
        with self.lock:
            return self.done

    def more(self, number, deadline=DEADLINE):
        """Waits until so many more requests were made."""
        goal = self.count() + number
        until(f"{number} more requests", lambda: self.count() >= goal, deadline)

    def stop(self):
        """What failed."""
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
        return self.failures

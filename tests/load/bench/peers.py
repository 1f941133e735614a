"""Pairs of sidecars, ours and others', set up alike.

A pair is what stands between a client and an application: the caller's sidecar,
which takes plain bytes and speaks mTLS, and the application's, the other way
round. One worker each, TLS 1.3 with AES-128-GCM, no resumption; each end requires
the other's certificate and the identity in it, by its SPIFFE ID (HAProxy 2.6 cannot
read that, and takes the common name).
"""

import json
import pathlib
import resource
import socket

import mesh

DOMAIN = "load.mesh"
CALLER, CALLED, STRANGER = "frontend", "backend", "stranger"
SNI = f"{CALLED}.default.dc1.internal.{DOMAIN}"
HTTP, GRPC, TCP = "http", "grpc", "tcp"
OUT, IN, TAP = 9001, 21000, 22000


def files():
    """How many files a process that is started here may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def identity(name):
    return f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{name}"


class Pair:
    """Two running sidecars on an address of their own."""

    def __init__(self, peer, mode, address, application, folder, certs, through=None, called=CALLED, **options):
        """through: where the caller's sidecar finds the other, if not at its port; called: whose
        certificate the other has."""
        self.peer, self.mode, self.address, self.certs = peer, mode, address, certs
        self.entry = f"{address}:{OUT}"
        self.door = (address, IN)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = []
        try:
            self.processes.append(peer.inside(self, mode, application, called, **options))
            self.processes.append(peer.outside(self, mode, through or f"{address}:{IN}", **options))
            for (host, port), process in zip(((address, IN), (address, OUT)), self.processes):
                started(process, host, port)
        except BaseException:
            self.close()
            raise

    def pids(self):
        return [process.pid for process in self.processes]

    def close(self):
        for process in self.processes:
            if process.running():
                process.kill()

    def start(self, name, arguments, env=None):
        return mesh.Process(name, arguments, self.folder, env=env)

    def write(self, name, content):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path


def started(process, host, port):
    """Waits until the process listens there. One that has ended is not waited for."""
    def probe():
        if not process.running():
            return True
        with socket.create_connection((host, port), timeout=1):
            return True

    mesh.until(f"{process.name} listens at {host}:{port}", probe)
    if not process.running():
        raise AssertionError(f"{process.arguments[0]} ended as soon as it was started:\n{process.tail()}")


class Ours:
    name = "ours"

    def __init__(self, binary, workers=1):
        self.binary, self.workers = binary, workers

    @staticmethod
    def most():
        """Connections of the application that it takes."""
        return min(16 * 1024, files() - 1000)

    def outside(self, pair, mode, to, upstreams=1, **_):
        config = self.config(pair, CALLER, mode)
        host, port = to.split(":")
        for number in range(upstreams):
            # The last is the one that is called: what is looked through is looked through.
            last = number == upstreams - 1
            name = CALLED if last else f"service-{number}"
            rules = [] if mode == TCP else [
                {"name": "admin", "match": [{"path_prefix": "/admin/"}], "timeout": "15s",
                 "to": [{"cluster": f"{name}.default", "weight": 1}]},
                {"name": "all", "timeout": "15s", "to": [{"cluster": f"{name}.default", "weight": 1}]}]
            config["outbound"].append({
                "service": {"namespace": "default", "name": name}, "protocol": mode, "rules": rules,
                "bind": {"tcp": {"address": pair.address, "port": OUT if last else 10000 + number}},
                "cluster": f"{name}.default", "timeout": "15s"})
            config["clusters"][f"{name}.default"] = {
                "service": {"namespace": "default", "name": name}, "protocol": mode, "connect_timeout": "5s",
                "sni": SNI.replace(CALLED, name, 1), "load_balancer": "least_request",
                "endpoints": [{"id": f"node-1/{name}", "address": host, "port": int(port),
                               "identity": identity(name), "weight": 1, "health": "healthy"}]}
        return self.run(pair, "out", CALLER, config)

    def inside(self, pair, mode, application, called, upstreams=1, **_):
        config = self.config(pair, CALLED, mode)
        config["identity"] = identity(called)  # it would not start with another's certificate
        config["inbound"] = {"address": pair.address, "port": IN, "protocol": mode, "application": application,
                             "connect_timeout": "5s"}
        callers = [f"caller-{number}" for number in range(upstreams - 1)] + [CALLER]
        config["policy"]["intentions"] = [
            {"source": {"namespace": "default", "name": name},
             "destination": {"namespace": "default", "name": CALLED}, "action": "allow"} for name in callers]
        return self.run(pair, "in", called, config)

    @staticmethod
    def config(pair, service, mode):
        return {"proxy": f"{service}-proxy", "service": {"namespace": "default", "name": service},
                "identity": identity(service), "trust_domain": DOMAIN,
                "policy": {"default": "deny", "intentions": []}, "outbound": [], "clusters": {}}

    def run(self, pair, side, name, config):
        certs = pair.certs
        file = {"config": config, "chain": f"{certs}/{name}.pem", "key": f"{certs}/{name}.key",
                "roots": f"{certs}/roots.pem", "admin": ""}
        path = pair.write(f"{side}.json", file)
        return pair.start(side, [self.binary, "-static", path, "-access-log", "off", "--concurrency", self.workers])


class Envoy:
    name = "envoy"

    def __init__(self, binary, env):
        self.binary, self.env = binary, env

    @staticmethod
    def most():
        return files() - 1000

    def outside(self, pair, mode, to, **_):
        tls = {"sni": SNI, "max_session_keys": 0, "common_tls_context": self.context(pair, CALLER, CALLED, mode)}
        upstream = self.cluster("peer", to, None if mode == TCP else "h2")
        upstream["transport_socket"] = self.socket("UpstreamTlsContext", tls)
        listener = self.listener(pair, OUT, mode, "peer")
        return self.run(pair, "out", [listener], [upstream])

    def inside(self, pair, mode, application, called, **_):
        listener = self.listener(pair, IN, mode, "application")
        tls = {"require_client_certificate": True, "disable_stateless_session_resumption": True,
               "disable_stateful_session_resumption": True,
               "common_tls_context": self.context(pair, called, CALLER, mode)}
        listener["filter_chains"][0]["transport_socket"] = self.socket("DownstreamTlsContext", tls)
        form = {HTTP: "h1", GRPC: "h2", TCP: None}[mode]
        return self.run(pair, "in", [listener], [self.cluster("application", application, form)])

    @staticmethod
    def context(pair, own, other, mode):
        match = {"san_type": "URI", "matcher": {"exact": identity(other)}}
        context = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": f"{pair.certs}/{own}.pem"},
                                  "private_key": {"filename": f"{pair.certs}/{own}.key"}}],
            "validation_context": {"trusted_ca": {"filename": f"{pair.certs}/roots.pem"},
                                   "match_typed_subject_alt_names": [match]}}
        if mode != TCP:
            context["alpn_protocols"] = ["h2", "http/1.1"]
        return context

    @staticmethod
    def socket(kind, tls):
        place = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
        return {"name": "tls", "typed_config": {"@type": place + kind, **tls}}

    @staticmethod
    def listener(pair, port, mode, cluster):
        place = "type.googleapis.com/envoy.extensions.filters."
        if mode == TCP:
            network = {"name": "tcp", "typed_config": {"@type": place + "network.tcp_proxy.v3.TcpProxy",
                                                       "stat_prefix": "tcp", "cluster": cluster}}
        else:
            router = {"name": "router", "typed_config": {"@type": place + "http.router.v3.Router"}}
            routes = [{"match": {"prefix": "/admin/"}, "route": {"cluster": cluster, "timeout": "15s"}},
                      {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "15s"}}]
            network = {"name": "http", "typed_config": {
                "@type": place + "network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http", "codec_type": "AUTO", "http_filters": [router],
                "forward_client_cert_details": "SANITIZE_SET",
                "set_current_client_cert_details": {"uri": True},
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}}}
        host = {"address": pair.address, "port_value": port}
        return {"name": "in", "address": {"socket_address": host}, "filter_chains": [{"filters": [network]}]}

    @staticmethod
    def cluster(name, to, form):
        host, port = to.split(":")
        endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        many = 1_000_000
        limits = {"max_connections": many, "max_pending_requests": many, "max_requests": many}
        cluster = {"name": name, "type": "STATIC", "connect_timeout": "5s",
                   "circuit_breakers": {"thresholds": [limits]},
                   "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}
        if form:
            kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            options = "http2_protocol_options" if form == "h2" else "http_protocol_options"
            cluster["typed_extension_protocol_options"] = {kind: {
                "@type": f"type.googleapis.com/{kind}", "explicit_http_config": {options: {}}}}
        return cluster

    def run(self, pair, side, listeners, clusters):
        path = pair.write(f"{side}.json", {"static_resources": {"listeners": listeners, "clusters": clusters}})
        return pair.start(side, [self.binary, "-c", path, "--concurrency", "1", "--disable-hot-restart",
                                 "-l", "warning"], env=self.env)


class HAProxy:
    name = "haproxy"

    def __init__(self, binary, env):
        self.binary, self.env = binary, env

    @staticmethod
    def most():
        # It will not start with more than it has files for.
        return min(12_000, files() // 2 - 100)

    def outside(self, pair, mode, to, **_):
        alpn = "" if mode == TCP else " alpn h2"
        return self.run(pair, "out", mode, f"""
frontend out
  bind {pair.address}:{OUT}{" proto h2" if mode == GRPC else ""}
{self.routes(mode)}
  default_backend peer
# Without a name in the hello: HAProxy would want that in the certificate, and not verifyhost.
backend peer
  server peer {to} ssl crt {pair.certs}/{CALLER}.both.pem ca-file {pair.certs}/roots.pem verify required verifyhost {CALLED}{alpn} no-ssl-reuse
""")

    def inside(self, pair, mode, application, called, **_):
        who = f"{{ ssl_c_s_dn(cn) -m str {CALLER} }}"
        check = f"""  tcp-request content reject unless {who}""" if mode == TCP else f"""  http-request deny unless {who}
  http-request set-header x-forwarded-client-cert %[ssl_c_s_dn(cn)]"""
        alpn = "" if mode == TCP else " alpn h2,http/1.1"
        return self.run(pair, "in", mode, f"""
frontend in
  bind {pair.address}:{IN} ssl crt {pair.certs}/{called}.both.pem ca-file {pair.certs}/roots.pem verify required{alpn}
{check}
  default_backend application
backend application
  server application {application}{" proto h2" if mode == GRPC else ""}
""")

    @staticmethod
    def routes(mode):
        return "" if mode == TCP else "  use_backend peer if { path_beg /admin/ }"

    def run(self, pair, side, mode, rest):
        path = pair.write(f"{side}.cfg", f"""global
  nbthread 1
  maxconn {self.most()}
  tune.ssl.cachesize 0
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
  mode {"tcp" if mode == TCP else "http"}
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-request 30s
  timeout http-keep-alive 600s
{"" if mode == TCP else "  http-reuse always"}
{rest}""")
        return pair.start(side, [self.binary, "-f", path, "-db"], env=self.env)

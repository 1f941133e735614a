"""The application behind the pairs: nginx, or where that is not to be had our own."""

import mesh
from peers import started

PLAIN, PRIOR = 8080, 8081  # HTTP/1.1; HTTP/2 without TLS
BIG = 1 << 30  # bytes


class Application:
    def __init__(self, address, folder, nginx=None, env=None, ours=None):
        self.address, self.name = address, "nginx" if nginx else "mesh-load"
        self.http, self.grpc = f"{address}:{PLAIN}", f"{address}:{PRIOR}"
        folder.mkdir(parents=True, exist_ok=True)
        if nginx:
            path = self.config(folder)
            self.processes = [mesh.Process("nginx", [nginx, "-p", folder, "-c", path], folder, env=env)]
        else:
            self.processes = [mesh.Process(f"application-{port}", [ours, "serve", f"{address}:{port}"], folder)
                              for port in (PLAIN, PRIOR)]
        for process, port in zip(self.processes * 2, (PLAIN, PRIOR)):
            started(process, address, port)

    def pids(self):
        return [process.pid for process in self.processes]

    def close(self):
        for process in self.processes:
            process.kill()

    def config(self, folder):
        with open(folder / "big", "wb") as big:
            big.truncate(BIG)
        (folder / "upload").touch()
        path = folder / "nginx.conf"
        path.write_text(f"""daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  tcp_nodelay on;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {self.address}:{PLAIN} backlog=16384;
    listen {self.address}:{PRIOR} http2 backlog=16384;
    location / {{ return 200 "{"x" * 1024}"; }}
    location = /big {{ root {folder}; sendfile on; }}
    # Answers when it has read the body: the mirror is what reads it, and a file takes no POST.
    location = /upload {{
      root {folder};
      mirror /nothing;
      error_page 405 =200 @thanks;
    }}
    location = /nothing {{ internal; return 204; }}
    location @thanks {{ return 200 "thanks"; }}
    location /load.Load/ {{
      default_type application/grpc;
      add_trailer grpc-status 0;
      return 200 "{"x" * 1024}";
    }}
  }}
}}
""")
        return path

"""Job files of the tests, put together from parts."""

from mesh import BIN


def sidecar(more=""):
    return f'''
        sidecar_task {{
          driver = "raw_exec"
          config {{
            command = "{BIN}/mesh-proxy"
            args    = ["-c", "${{NOMAD_SECRETS_DIR}}/envoy_bootstrap.json"]
          }}
{more}        }}
'''


def service(name, port, upstreams="", more="", proxy="", task=""):
    """task: more of the sidecar's task."""
    at = f'      port = "{port}"\n' if port else ""
    inner = f"          proxy {{\n{proxy}{upstreams}          }}\n" if upstreams or proxy else ""
    return f'''
    service {{
      name = "{name}"
{at}{more}
      connect {{
        sidecar_service {{
{inner}        }}
{sidecar(task)}      }}
    }}
'''


def task(name, mode, port, more=""):
    return f'''
    task "{name}" {{
      driver = "raw_exec"
      config {{
        command = "{BIN}/mesh-demo"
        args    = ["{mode}"]
      }}
      env {{
        PORT = "{port}"
{more}
      }}
    }}
'''


def check(path="/health", more=""):
    return f'''      check {{
        type     = "http"
        path     = "{path}"
        expose   = true
        interval = "1s"
        timeout  = "1s"
{more}      }}
'''


def upstream(name, port):
    return f'''            upstreams {{
              destination_name = "{name}"
              local_bind_port  = {port}
            }}
'''


def program(name, words, env="", more=""):
    """A task that runs a command: its words as HCL has them."""
    command, *arguments = words
    listed = ", ".join(f'"{one}"' for one in arguments)
    return f'''
    task "{name}" {{
      driver = "raw_exec"
{more}
      config {{
        command = "{command}"
        args    = [{listed}]
      }}
      env {{
{env}
      }}
    }}
'''


def group(name, body, network="", more=""):
    return f'''  group "{name}" {{
{more}    network {{
      mode = "bridge"
{network}    }}
{body}  }}
'''


def job(name, *groups, more=""):
    """groups: texts of `group`, or (name, inner text of network, body)."""
    texts = (one if isinstance(one, str) else group(one[0], one[2], network=one[1]) for one in groups)
    return f'job "{name}" {{\n{more}{"".join(texts)}}}\n'

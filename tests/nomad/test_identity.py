"""Sidecars only with Nomad's word: `attestation = "workload"`."""

import json
import unittest

from mesh import http_get, until
from nomad import NODE, NomadMesh, job_file, missing


@unittest.skipIf(missing(), missing())
class Identity(unittest.TestCase):
    def test_a_job_runs_with_its_workloads_identity_and_root_alone_registers_nothing(self):
        identity = '  token = "any"\n  service_identity {\n    aud = ["consul.io"]\n    ttl = "1h"\n  }\n'
        with NomadMesh("identity", default="allow") as mesh:
            mesh.begin(consul=identity, agent_extra=(
                f'attestation = "workload"\nnomad {{\n  address = "http://{NODE}:4646"\n}}\n'))
            mesh.run_job(job_file("countdash"), deadline=150)
            until("the dashboard counts", lambda: http_get(f"http://{NODE}:9002/api")[0] == 200)
            body = {"Name": "intruder", "Port": 80, "Connect": {"SidecarService": {}}}
            for token in ({}, {"X-Consul-Token": "any"}):
                status, answer = mesh.agent_api("PUT", "/v1/agent/service/register", body, headers=token)
                self.assertEqual(status, 403, answer)
            # The token is nowhere where a task of another user could read it.
            for allocation in mesh.allocations("countdash"):
                for file in mesh.alloc_dir(allocation).glob("*/secrets/envoy_bootstrap.json"):
                    text = file.read_text()
                    self.assertNotIn("meshworkload", text)
                    self.assertEqual(json.loads(text)["node"]["id"].count("sidecar-proxy"), 1)
            # After a restart of the agent the tokens are still good.
            mesh.processes["a10"].restart() if not mesh.processes["a10"].running() else (
                mesh.processes["a10"].stop(), mesh.processes["a10"].restart())
            until("the agent answers", lambda: mesh.agent_api("GET", "/v1/agent/self")[0] == 200)
            mesh.stop_job("countdash")
            until("nothing is registered", lambda: mesh.agent_api("GET", "/v1/agent/services")[1] == b"{}", 60)

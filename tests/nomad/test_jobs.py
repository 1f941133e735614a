"""The example jobs, as they stand in jobspecs/."""

import collections
import json
import unittest

from mesh import ROOT, http_get, until
from nomad import NODE, NomadMesh, job_file, missing


@unittest.skipIf(missing(), missing())
class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = NomadMesh("jobs")
        try:
            mesh.begin()
        except BaseException:
            mesh.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.mesh.close()

    def test_a_canary_by_subset(self):
        self.mesh.command("apply", "-f", ROOT / "jobspecs" / "canary.hcl", "-auto-approve", "-wait")
        self.mesh.run_job(job_file("canary"), deadline=120)

        def call():
            return http_get(f"http://{NODE}:9012/api")
        until("the dashboard counts", lambda: call()[0] == 200)
        seen = collections.Counter(json.loads(call()[2])["version"] for _ in range(200))
        self.assertEqual(sum(seen.values()), 200)
        # One in ten; three standard deviations are 13 of 200.
        self.assertTrue(5 <= seen["v2"] <= 45, seen)
        self.mesh.stop_job("canary")

    def test_a_batch_job_ends_with_its_main_task(self):
        self.mesh.run_job(job_file("countdash"), deadline=120)
        self.mesh.command("intention", "create", "-allow", "count-batch", "count-api")
        self.mesh.run_job(job_file("batch"))
        allocation = until("the batch is over", lambda: next(
            (one for one in self.mesh.allocations("count-batch", running=False)
             if one["ClientStatus"] in ("complete", "failed")), None), deadline=60)
        self.assertEqual(allocation["ClientStatus"], "complete", json.dumps(allocation["TaskStates"])[:3000])
        self.assertIn("call 10: ", self.mesh.task_log(allocation, "count"))

        def gone():
            _, answer = self.mesh.agent_api("GET", "/v1/agent/services")
            return not any("count-batch" in one for one in json.loads(answer))
        until("nothing of it is registered", gone, deadline=60)
        self.mesh.stop_job("countdash")

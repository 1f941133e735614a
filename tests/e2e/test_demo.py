"""The README's command, without a terminal."""

import os
import re
import subprocess
import unittest

from mesh import MESHCTL, Mesh, Process, subnet, until
import pathlib
import shutil
import tempfile


class Demo(unittest.TestCase):
    def test_deny_allow_and_shift_the_canary(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="demo-"))
        host = subnet() + "1"
        demo = Process("demo", [MESHCTL, "dev", "-demo", "-bind", host, "-demo-dir", folder / "files"], folder)
        env = {**os.environ, "MESHCTL_HTTP_ADDR": f"http://{host}:8700", "NO_COLOR": "1"}
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)

        def meshctl(*arguments):
            run = subprocess.run([MESHCTL, *arguments], env=env, capture_output=True, text=True, timeout=60)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
            return run.stdout

        def latest(service):
            """The newest line of the table for the service."""
            lines = [line for line in demo.out.read_text().splitlines() if f"-> {service}" in line]
            return lines[-1] if lines else ""

        def share(version):
            match = re.search(rf"{version} (\d+) %", latest("user-service"))
            return int(match[1]) if match else 0

        try:
            until("calls are answered", lambda: share("v1") > 0 and "100 %" in latest("payment"), 90)
            until("the canary gets its part", lambda: 1 <= share("v2") <= 30)
            self.assertNotIn("failed", latest("user-service"))
            meshctl("intention", "create", "-deny", "frontend", "payment")
            until("payment is denied", lambda: "denied 100 %" in latest("payment"))
            self.assertIn("frontend => payment (deny)", demo.out.read_text())
            meshctl("intention", "create", "-allow", "-replace", "frontend", "payment")
            until("payment is allowed", lambda: "v1 100 %" in latest("payment"))
            meshctl("config", "write", str(folder / "files" / "canary-50.hcl"))
            until("the canary gets half", lambda: 30 <= share("v2") <= 70)
        except BaseException:
            print(demo.out.read_text()[-3000:])
            print(demo.tail())
            raise
        finally:
            code = demo.stop()
        self.assertEqual(code, 0)


if __name__ == "__main__":
    unittest.main()

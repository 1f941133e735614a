"""The README's commands, as a newcomer runs them."""

import os
import pathlib
import pty
import re
import shutil
import subprocess
import tempfile
import unittest

from mesh import BIN, MESHCTL, ROOT, Process, subnet, until

README = (ROOT / "README.md").read_text()


def blocks(section):
    """The fenced blocks of a section of the README, as (language, text)."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


class Demo(unittest.TestCase):
    def test_deny_allow_and_shift_the_canary(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="demo-"))
        host = subnet() + "1"
        files = folder / "meshctl-demo"
        demo = Process("demo", [MESHCTL, "dev", "-demo", "-bind", host, "-demo-dir", files], folder)
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        # A newcomer stands in the repository, with a release build.
        (folder / "target").mkdir()
        (folder / "target" / "release").symlink_to(BIN)

        def shell(script):
            """Runs it as in a terminal, where every question is answered with yes."""
            env = {key: value for key, value in os.environ.items() if not key.startswith("MESHCTL_")}
            env = {**env, "NO_COLOR": "1", "MESHCTL_HTTP_ADDR": f"http://{host}:8700"}
            ours, theirs = pty.openpty()
            try:
                os.write(ours, b"yes\n")
                run = subprocess.run(["sh", "-ec", script], env=env, stdin=theirs, cwd=folder,
                                     capture_output=True, text=True, timeout=60)
            finally:
                os.close(ours)
                os.close(theirs)
            self.assertEqual(run.returncode, 0, f"{script}\n{run.stdout}{run.stderr}")
            return run.stdout

        def told():
            """The commands that the demo tells, after the one that says where its server is."""
            found = re.search(r"in another terminal:\n\n(.*?)\n\n", demo.out.read_text(), re.S)
            lines = [line.strip() for line in found[1].splitlines()]
            self.assertEqual(lines[0], f"export MESHCTL_HTTP_ADDR=http://{host}:8700")
            return lines[1:]

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
            self.assertNotIn("failed", demo.out.read_text())
            deny, allow, shift = told()
            # The README tells the same.
            (_, told_there) = blocks("See it run")[1]
            here = [line.replace(str(MESHCTL), "target/release/meshctl").replace(str(files), files.name)
                    for line in (deny, allow, shift)]
            self.assertEqual(told_there.splitlines(), here)
            shell(deny)
            until("payment is denied", lambda: "denied 100 %" in latest("payment"))
            self.assertIn("frontend => payment (deny)", demo.out.read_text())
            shell(allow)
            until("payment is allowed", lambda: "v1 100 %" in latest("payment"))
            shell(shift)
            until("the canary gets half", lambda: 30 <= share("v2") <= 70)
            self.first_five_minutes(folder, shell)
            until("the canary gets its part again", lambda: 1 <= share("v2") <= 30)
        except BaseException:
            print(demo.out.read_text()[-3000:])
            print(demo.tail())
            raise
        finally:
            code = demo.stop()
        self.assertEqual(code, 0)

    def first_five_minutes(self, folder, shell):
        """The README's section, with the demo running."""
        script = []
        for language, text in blocks("The first five minutes"):
            if language == "hcl":
                path = folder / re.match(r"# (\S+)\n", text)[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            else:
                script += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        self.assertGreater(len(script), 4, script)
        # One shell: what is exported holds for what comes after.
        said = shell("\n".join(script))
        self.assertRegex(said, r"user-service +2 passing")
        self.assertIn("~ route user-service", said)
        self.assertRegex(said, r"Applied: \d+ changes")


if __name__ == "__main__":
    unittest.main()

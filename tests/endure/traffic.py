"""What flows while a scenario runs: tests/load/client's `steady`, and what it tells."""

import json
import subprocess
import threading
import time

import mesh as lib

RATE = 1000  # requests per second
FRESH = 50  # of these, on connections of their own
STREAMS = 50
EVERY = 15.0  # seconds between two progress lines
KEPT_RATE = 0.95  # of what was planned: less is the client's own fault


class Traffic:
    """Requests at a constant rate and echoes on streams, until it is stopped."""

    def __init__(self, http, tcp, say):
        self.say = say
        self.lines, self.failures, self.last = [], [], {}
        self.began = time.time()
        self.process = subprocess.Popen(
            [str(lib.BIN / "mesh-load"), "steady", http, "-tcp", tcp, "-per-second", str(RATE), "-fresh", str(FRESH),
             "-streams", str(STREAMS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        lib.until("all streams echo", lambda: self.lines and self.lines[-1]["open"] == STREAMS)

    def _read(self):
        said = time.monotonic()
        for text in self.process.stdout:
            line = json.loads(text)
            for failure in line.pop("failures"):
                self.failures.append(failure)
                if len(self.failures) <= 20:
                    at = failure["first"] - self.began
                    self.say(f"    {at:6.1f} s  {failure['count']} × {failure['kind']}: {failure['what']}")
            self.lines.append(line)
            if line.get("last"):
                self.last = line
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                self.say(f"    {line['at'] - self.began:6.1f} s  {line['kept'] + line['fresh']:,} answered, "
                         f"{line['failed']:,} failed, {line['open']} streams, {line['broken']} broken")

    def answered(self):
        """How many requests were answered so far."""
        line = self.lines[-1]
        return line["kept"] + line["fresh"]

    def answered_between(self, begin, end):
        """How many were answered between two times; to the second."""
        inside = [line for line in self.lines if begin <= line["at"] <= end]
        if len(inside) < 2:
            return None
        first, last = inside[0], inside[-1]
        return last["kept"] + last["fresh"] - first["kept"] - first["fresh"]

    def failed_after(self, when):
        return [one for one in self.failures if one["last"] > when and one["kind"] != "own"]

    def failed_before(self, when):
        return [one for one in self.failures if one["first"] < when and one["kind"] != "own"]

    def stop(self):
        """Ends it; what it was, with milliseconds."""
        if not self.last:
            self.process.stdin.close()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("the client did not end within 40 s") from None
            self.reader.join(10)
        told = dict(self.last)
        for key in [key for key in told if key.endswith("_us")]:
            told[key[:-3] + "_ms"] = round(told.pop(key) / 1000, 2)
        # Each is counted open until the client itself ends it.
        told["open"] = next((line["open"] for line in reversed(self.lines) if not line.get("last")), 0)
        return told

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def shown(failures, began):
    """Some of them, for people."""
    said = [f"{one['count']} × {one['kind']} at {one['first'] - began:.1f} to {one['last'] - began:.1f} s: {one['what']}"
            for one in failures]
    return "; ".join(said[:4]) + (f"; and {len(said) - 4} more" if len(said) > 4 else "")

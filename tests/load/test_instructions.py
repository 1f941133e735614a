"""No path through the sidecar needs more instructions than instructions.toml says. It is changed
by `tests/load/instructions --write`, in the commit that is the reason."""

import pathlib
import tempfile
import unittest

import counts
import harness
import tools


class OfTheSidecar(unittest.TestCase):
    """About two minutes, when the static release program is built."""

    def test_no_path_needs_more_than_is_written_down(self):
        built, kept = counts.read()
        if different := counts.other(built):
            self.skipTest(f"instructions.toml is of another build ({different}); where this is the build that "
                          "counts now, write it again with tests/load/instructions --write")
        try:
            tools.tool("valgrind")
        except tools.Missing as error:
            self.skipTest(str(error))
        counts.build()
        bench = harness.Bench([], say=print)
        self.addCleanup(bench.close)
        counted = counts.count(bench, counts.PATHS)
        print(", ".join(f"{name} {now / kept.get(name, now) - 1:+.1%}" for name, now in counted.items()))
        risen = counts.risen(kept, counted)
        self.assertEqual(risen, [], "make it less, or write it down with tests/load/instructions --write, in the "
                                    "commit that is the reason")


class OfTheFile(unittest.TestCase):
    """What is compared."""

    def test_it_is_read_as_it_was_written(self):
        counted = {name: 1000 + number for number, name in enumerate(counts.PATHS)}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "instructions.toml"
            counts.write(counted, path)
            built, kept = counts.read(path)
        self.assertEqual(kept, counted)
        self.assertIsNone(counts.other(built))
        self.assertIn("rustc 1.0.0, here ", counts.other({**built, "rustc": "1.0.0"}))

    def test_what_rose(self):
        kept = {"http_in": 100_000, "tcp_in": 20_000}
        self.assertEqual(counts.risen(kept, {"http_in": 105_000, "tcp_in": 10_000}), [])
        self.assertEqual(counts.risen(kept, {"http_in": 105_001}),
                         ["http_in: 105,001 instructions, and 100,000 are written down"])
        # What is not written down is not let pass.
        self.assertEqual(len(counts.risen(kept, {"new": 1})), 1)

    def test_each_path_is_written_down(self):
        self.assertEqual(set(counts.read()[1]), set(counts.PATHS))

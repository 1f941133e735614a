"""The parts of tests/load/compare."""

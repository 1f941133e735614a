"""Runs the scenarios one after the other, and says at the end what came of each."""

import argparse
import json
import pathlib
import sys
import time
import traceback
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lib"), str(HERE.parent / "ca"), str(HERE)]

import scenarios  # noqa: E402
from field import Field  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(prog="tests/endure/run")
    parser.add_argument("-o", dest="form", choices=["table", "json"], default="table")
    parser.add_argument("--list", action="store_true", help="the scenarios, and what each is")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenarios if name not in scenarios.ALL]
    if unknown:
        sys.exit(f"tests/endure/run: no scenario {', '.join(unknown)}; there are {', '.join(scenarios.ALL)}")
    return arguments


def one(name, say):
    """Runs one; its row of the table."""
    scenario = scenarios.ALL[name]
    row = {"scenario": name, "title": scenario.title, "waited": [], "problems": [], "skipped": ""}
    began = time.monotonic()
    try:
        with Field(name, say, row, **scenario.options) as field:
            scenario.run(field)
            field.finish(scenario.nothing_fails)
    except unittest.SkipTest as skip:
        row["skipped"] = str(skip)
    except Exception as error:  # a row says what went wrong, and the others run
        row["problems"].append(f"{type(error).__name__}: {error}")
        say(traceback.format_exc())
    row["seconds"] = round(time.monotonic() - began)
    return row


def number(row, key, form="{:,}"):
    value = row.get("traffic", {}).get(key)
    return "-" if value is None else form.format(value)


def table(rows):
    head = ["scenario", "requests", "failed", "p50 ms", "p99 ms", "streams", "broken", "took s"]
    cells = [head]
    for row in rows:
        traffic = row.get("traffic", {})
        asked = traffic.get("kept", 0) + traffic.get("fresh", 0) + traffic.get("failed", 0)
        cells.append([row["scenario"], f"{asked:,}", number(row, "failed"), number(row, "p50_ms", "{:.1f}"),
                      number(row, "p99_ms", "{:.1f}"), number(row, "open"), number(row, "broken"), str(row["seconds"])])
    wide = [max(len(line[at]) for line in cells) for at in range(len(head))]
    lines = []
    for line, row in zip(cells, [None, *rows]):
        lines.append("  ".join([line[0].ljust(wide[0])] + [cell.rjust(width) for cell, width in zip(line[1:], wide[1:])]))
        if row:
            lines += [f"    {said}" for said in row["waited"]]
            lines += [f"    PROBLEM: {said}" for said in row["problems"]]
            lines += [f"    skipped: {row['skipped']}"] if row["skipped"] else []
    return "\n".join(lines)


def main():
    arguments = parse()
    if arguments.list:
        for name, scenario in scenarios.ALL.items():
            print(f"{name:<22} {scenario.title}")
        return 0
    to = sys.stderr if arguments.form == "json" else sys.stdout

    def say(text):
        print(text, file=to, flush=True)

    chosen = arguments.scenarios or list(scenarios.ALL)
    rows = []
    for at, name in enumerate(chosen, 1):
        say(f"[{at}/{len(chosen)}] {name}: {scenarios.ALL[name].title}")
        rows.append(one(name, say))
        for problem in rows[-1]["problems"]:
            say(f"    PROBLEM: {problem}")
    if arguments.form == "json":
        print(json.dumps({"scenarios": rows}, indent=2))
    else:
        say("\n" + table(rows) + "\n")
    failed = sum(bool(row["problems"]) for row in rows)
    skipped = sum(bool(row["skipped"]) for row in rows)
    say(f"{len(rows) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The table, JSON and the plot."""

import math
import statistics
from xml.sax.saxutils import escape

from rows import HIGHER

LABEL, CELL, GOAL = 26, 16, 6
COLOURS = {"ours": "#0b7285", "envoy": "#c2255c", "haproxy": "#e8590c"}


def summary(samples, key):
    """Median, range and counts of a figure; None where there is none. samples: [(figures, disturbance)]."""
    having = [(figures[key], disturbed) for figures, disturbed in samples if figures and key in figures]
    if not having:
        return None
    clean = sorted(value for value, disturbed in having if disturbed <= 1)
    used = clean or sorted(value for value, _ in having)
    return {"median": statistics.median(used), "min": used[0], "max": used[-1], "samples": len(used),
            "left_out": len(having) - len(used), "disturbed": not clean, "values": used}


def results(rows, samples, peers):
    """One entry for each figure."""
    entries = []
    for row in rows:
        for figure in row.figures:
            of = {peer: summary(samples.get((row.name, peer), []), figure.key) for peer in peers}
            of = {peer: one for peer, one in of.items() if one}
            if of:
                entries.append({"row": row.name, "title": row.title, "figure": figure.key, "name": figure.title,
                                "better": figure.better, "goal": figure.goal, "of": of})
    return entries


def short(value, digits=3):
    """As many digits as count."""
    size, unit = abs(value), ""
    if size >= 9_995:
        value, size, unit, digits = value / 1000, size / 1000, "k", digits - 1 if size >= 99_950 else digits
    if size >= 99.95 or (size >= 9.95 and digits < 3):
        return f"{value:.0f}{unit}"
    if size >= 9.95 or unit:
        return f"{value:.1f}{unit}"
    if digits < 2:
        return f"{value:.1f}"
    text = f"{value:.2f}" if size >= 0.0995 or size == 0 else f"{value:.3f}"
    return text if size >= 0.0995 or size == 0 else text.replace("0.", ".", 1)


def cell(one):
    """The median, and the range with fewer digits, in less than a cell."""
    if one is None:
        return "–"
    text = short(one["median"]) + ("!" if one["disturbed"] else "")
    if one["samples"] == 1:
        return text
    for digits in (2, 1):
        whole = f"{text} {short(one['min'], digits)}…{short(one['max'], digits)}"
        if len(whole) < CELL:
            break
    return whole


def table(entries, peers):
    """Within 80 columns for three peers."""
    lines = ["".join([" " * LABEL, *(f"{peer:>{CELL}}" for peer in peers), f"{'goal':>{GOAL}}"])]
    row = None
    for entry in entries:
        if entry["row"] != row:
            row = entry["row"]
            lines.append(f"{row}: {entry['title']}")
        goal = entry["goal"]
        sign = "≥" if entry["better"] == HIGHER else "≤"
        cells = [f"{cell(entry['of'].get(peer)):>{CELL}}" for peer in peers]
        lines.append("".join([f"  {entry['name']:<{LABEL - 2}}", *cells, f"{sign + short(goal, 2) if goal else '':>{GOAL}}"]))
    if any(one["disturbed"] for entry in entries for one in entry["of"].values()):
        lines.append("!: other work disturbed every sample")
    return "\n".join(lines)


def plot(entries, peers, title):
    """Each sample as a dot, by how much better it is than the best of the others."""
    shown = [entry for entry in entries if sum(peer != "ours" for peer in entry["of"]) and "ours" in entry["of"]]
    left, width, step, top = 330, 560, 22, 66
    height = top + step * len(shown) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" '
           'font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    at = 10
    for peer in peers:
        out.append(f'<circle cx="{at + 5}" cy="36" r="4" fill="{COLOURS.get(peer, "#555")}"/>'
                   f'<text x="{at + 14}" y="40">{escape(peer)}</text>')
        at += 90
    low, high = -3.0, 3.0

    def x(ratio):
        place = max(low, min(high, math.log2(ratio)))
        return left + (place - low) / (high - low) * width

    for power in range(int(low), int(high) + 1):
        out.append(f'<line x1="{x(2 ** power):.1f}" y1="{top - 10}" x2="{x(2 ** power):.1f}" y2="{height - 22}" '
                   f'stroke="{"#333" if power == 0 else "#ddd"}"/>'
                   f'<text x="{x(2 ** power):.1f}" y="{height - 8}" text-anchor="middle">'
                   f'{2 ** power if power >= 0 else f"1/{2 ** -power}"}×</text>')
    out.append(f'<text x="{x(1):.1f}" y="{top - 14}" text-anchor="middle">as good as the best of the others; '
               'right is better</text>')
    for number, entry in enumerate(shown):
        y = top + step * number + 6
        out.append(f'<text x="10" y="{y + 4}">{escape(entry["row"])}: {escape(entry["name"])}</text>')
        others = [one["median"] for peer, one in entry["of"].items() if peer != "ours"]
        best = max(others) if entry["better"] == HIGHER else min(others)
        for peer in peers:
            for value in entry["of"].get(peer, {"values": []})["values"]:
                if value <= 0 or best <= 0:
                    continue
                ratio = value / best if entry["better"] == HIGHER else best / value
                out.append(f'<circle cx="{x(ratio):.1f}" cy="{y}" r="4" fill="{COLOURS.get(peer, "#555")}" '
                           'fill-opacity="0.6"/>')
    out.append("</svg>\n")
    return "\n".join(out)

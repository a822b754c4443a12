"""Draws what the benchmark measured as an SVG: each figure beside its limit, and how the commands grow."""

from __future__ import annotations

import html
import math

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #222 }
  .title { font-weight: 600; font-size: 15px } .soft { fill: #666; font-size: 12px }
  .paper { fill: #fff } .bar { fill: #4a7ab5 } .over { fill: #c05621 } .limit { stroke: #222; stroke-width: 2 }
  .axis { stroke: #bbb } .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .soft { fill: #999 } .paper { fill: #16181c } .limit { stroke: #eee } .axis { stroke: #555 }
  }
"""
COLOURS = ("#4a7ab5", "#c05621", "#4d8b57", "#8a63b0", "#b08a2e")
WIDTH, BAR_H, LEFT, SCALE_W = 860, 22, 330, 360


def drawn(rows, growth):
    """The whole picture. `rows` are the table's, `growth` the lines by artifacts and by pairs."""
    limited = [row for row in rows if row["limit"]]
    parts, y = bars(limited, 40)
    for axis, x in (("artifacts", 20), ("pairs", 440)):
        parts += chart(axis, [row for row in growth if row["axis"] == axis], x, y + 40)
    height = y + 330
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="relay\'s figures beside their limits">'
    return "\n".join([head, f"<style>{STYLE}</style>", f'<rect class="paper" width="{WIDTH}" height="{height}"/>', *parts, "</svg>", ""])


def bars(rows, y):
    """One bar a figure, as a share of its limit: the black line."""
    parts = [text(20, 26, "Each figure as a share of its limit", "title")]
    for row in rows:
        share = row["value"] / row["limit"]
        width = max(0, min(share, 1.6)) / 1.6 * SCALE_W
        at = LEFT + SCALE_W / 1.6
        parts += [
            text(LEFT - 10, y + 15, row["what"], anchor="end"),
            f'<rect class="{"bar" if row["met"] else "over"}" x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{BAR_H - 8}"/>',
            f'<line class="limit" x1="{at}" x2="{at}" y1="{y}" y2="{y + BAR_H - 2}"/>',
            text(LEFT + SCALE_W + 12, y + 15, f"{row['value']:g} of {row['limit']:g} {row['unit']}".rstrip(), "soft"),
        ]
        y += BAR_H
    return parts, y


def chart(axis, rows, x, y):
    """Lines of one growth: the count to the right, on a scale of powers, multiples of bare upwards, from nothing."""
    wide, high = 300, 190
    top = max(value for row in rows for value in row["by_count"].values()) * 1.1
    counts = list(rows[0]["by_count"])
    spot = {count: x + 40 + (math.log(count) - math.log(counts[0])) / (math.log(counts[-1]) - math.log(counts[0])) * wide for count in counts}
    level = {step: y + 30 + high - step / top * high for step in range(0, int(top) + 1)}
    parts = [text(x, y + 10, f"Multiples of a bare interpreter, by {axis}", "title")]
    parts += [f'<line class="axis" x1="{x + 40}" x2="{x + 40 + wide}" y1="{at:.1f}" y2="{at:.1f}"/>' + text(x + 32, at + 4, step, "soft", "end") for step, at in level.items()]
    parts += [text(at, y + 50 + high, f"{count:,}", "soft", "middle") for count, at in spot.items()]
    for number, (row, colour) in enumerate(zip(rows, COLOURS)):
        points = " ".join(f"{spot[count]:.1f},{y + 30 + high - value / top * high:.1f}" for count, value in row["by_count"].items())
        parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        parts.append(f'<rect x="{x + 40 + number * 72}" y="{y + 62 + high}" width="10" height="10" fill="{colour}"/>' + text(x + 54 + number * 72, y + 72 + high, row["what"], "soft"))
    return parts


def text(x, y, words, kind="", anchor=""):
    """A line of text."""
    more = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(str(words))}</text>'

"""Charts as plain SVG, readable on light and on dark: bars of medians with their spread, and lines."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench.figures import OURS, Course, Table

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 170, 150, 30, 44
LINES_HEIGHT = 260
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.faint { fill: #57606a; font-size: 12px }
.ours { fill: #1a7f37 } .peer { fill: #8c959f } .spread { stroke: #24292f; stroke-width: 1.5 }
.axis { stroke: #8c959f; stroke-width: 1 }
.line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9198a1 } .ours { fill: #3fb950 } .peer { fill: #656c76 }
  .spread { stroke: #e6edf3 } .axis { stroke: #656c76 }
}
</style>"""
COLOURS = ("#1f77b4", "#d6712c", "#2ca02c", "#b65fcf", "#c9a227", "#17a2b8")


def bars(table: Table) -> str:
    """Return a chart of *table*: a bar to the median, a whisker from the least to the most."""
    most = max((max(runs) for runs in table.runs.values() if runs), default=1) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    return _svg(f"{table.title} ({table.unit})", TOP + ROW * len(table.runs) + 8, _bars(table, scale))


def _bars(table: Table, scale: float) -> Iterator[str]:
    for row, (who, runs) in enumerate(table.runs.items()):
        y, length = TOP + ROW * row, table.median(who) * scale
        middle, kind = y + ROW / 2 - 3, "ours" if who.startswith(OURS) else "peer"
        least, most = (LEFT + edge(runs) * scale for edge in (min, max))
        yield f'<text x="{LEFT - 10}" y="{middle + 5:.0f}" text-anchor="end">{escape(who)}</text>'
        yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{ROW - 8}" rx="2"/>'
        ends = "".join(f"M{end:.1f} {middle - 4:.1f}v8" for end in (least, most))
        yield f'<path class="spread" d="M{least:.1f} {middle:.1f}H{most:.1f}{ends}"/>'
        label = number(table.median(who))
        if table.base and who != table.base:
            label += f"  ({number(table.ratio(who, table.base))} x ours)"
        yield f'<text x="{max(most, LEFT + length) + 8:.1f}" y="{middle + 5:.0f}">{label}</text>'


def lines(course: Course) -> str:
    """Return a chart of *course*: its lines from zero up."""
    xs, ys = ([point[axis] for points in course.lines.values() for point in points] for axis in (0, 1))
    across, up = (WIDTH - LEFT - RIGHT) / (max(xs, default=1) or 1), LINES_HEIGHT / (max(ys, default=1) or 1)
    height = TOP + LINES_HEIGHT + 40
    return _svg(f"{course.title} ({course.unit})", height, _lines(course.lines, across, up, course.along))


def _lines(drawn: Mapping[str, Sequence[tuple[float, float]]], across: float, up: float, along: str) -> Iterator[str]:
    floor, right = TOP + LINES_HEIGHT, WIDTH - RIGHT
    yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{right}" fill="none"/>'
    yield f'<text class="faint" x="{LEFT - 8}" y="{TOP + 5}" text-anchor="end">{number(LINES_HEIGHT / up)}</text>'
    yield f'<text class="faint" x="{LEFT - 8}" y="{floor}" text-anchor="end">0</text>'
    last = number((right - LEFT) / across)
    yield f'<text class="faint" x="{right}" y="{floor + 18}" text-anchor="end">{last} {escape(along)}</text>'
    taken: list[float] = []
    ends = sorted(drawn.items(), key=lambda item: -item[1][-1][1])
    for (name, points), colour in zip(ends, COLOURS, strict=False):
        path = " ".join(f"{LEFT + x * across:.1f},{floor - y * up:.1f}" for x, y in points)
        yield f'<polyline class="line" stroke="{colour}" points="{path}"/>'
        y = max([floor - points[-1][1] * up + 4, *(other + 16 for other in taken)])
        taken.append(y)
        label = f"{escape(name)} {number(points[-1][1])}"
        yield f'<text x="{right + 8}" y="{y:.1f}"><tspan fill="{colour}">■</tspan> {label}</text>'


def _svg(title: str, height: int, body: Iterator[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(title)}</title>\n{STYLE}'
    written = f'<text class="title" x="12" y="24">{escape(title)}</text>'
    return "\n".join([head, written, *body, "</svg>", ""])


def number(value: float) -> str:
    """Return *value* with as many digits as anyone reads."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3}f}"

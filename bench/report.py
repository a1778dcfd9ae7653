"""The report: goals with what was measured beside them, tables, and charts."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.chart import bars, lines, number
from bench.figures import Goal, Section, Table
from bench.versions import versions

BEGIN, END = "<!-- what follows is written by `make bench` -->", "<!-- until here -->"


def text_of(section: Section) -> str:
    """Return what *section* found, for a terminal."""
    written = [f"\n{section.title}"]
    for table in section.tables:
        written.append(f"  {table.title} ({table.unit})")
        for who, runs in table.runs.items():
            spread = f"{number(table.median(who)):>9}  ({number(min(runs))} to {number(max(runs))})"
            written.append(f"    {who:<28} {spread:<34} {_ratio(table, who)}")
    written += [f"  {'met   ' if goal.met else 'MISSED'}  {goal.name}: {_measured(goal)}" for goal in section.goals]
    return "\n".join(written + [f"  {note}" for note in section.notes])


def write_report(sections: Sequence[Section], to: Path, *, quick: bool, lacking: frozenset[str]) -> Path:
    """Write ``performance.md``, and its charts beside it, into *to*; keep what people wrote there."""
    charts = to / "performance"
    charts.mkdir(parents=True, exist_ok=True)
    for old in charts.glob("*.svg"):
        old.unlink()
    body = "\n".join(_report(sections, charts, quick=quick, lacking=lacking))
    file = to / "performance.md"
    before, _, rest = (file.read_text() if file.exists() else "# Performance\n\n").partition(BEGIN)
    after = rest.partition(END)[2]
    file.write_text(f"{before.rstrip()}\n\n{BEGIN}\n\n{body}\n{END}\n{after}")
    return file


def _report(sections: Sequence[Section], charts: Path, *, quick: bool, lacking: frozenset[str]) -> Iterator[str]:
    size = "quick run" if quick else "full run"
    without = f" Not on it, and so left out: {', '.join(sorted(lacking))}." if lacking else ""
    yield (
        f"The last {size} was on {datetime.now(UTC):%Y-%m-%d}, on {os.cpu_count()} cores of {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}.{without}\n"
    )
    yield "| | goal | wanted | measured | |\n| --- | --- | --- | --- | --- |"
    for section in sections:
        for goal in section.goals:
            wanted, measured = _amount(goal.wanted, goal), _amount(goal.measured, goal)
            yield f"| {section.title} | {goal.name} | {goal.at} {wanted} | {measured} | {_word(goal)} |"
    for section in sections:
        yield f"\n## {section.title}\n\n{section.how}\n"
        for table in section.tables:
            yield from _table(table)
            if table.drawn:
                yield _picture(table.title, bars(table), charts / f"{section.name}-{_slug(table.title)}.svg")
        for course in section.courses:
            yield _picture(course.title, lines(course), charts / f"{section.name}-{_slug(course.title)}.svg")
        yield from (f"{note}\n" for note in section.notes)
    yield f"\n## Versions\n\n{versions()}\n"


def _table(table: Table) -> Iterator[str]:
    yield f"| {table.title}, {table.unit} | median | min | max | to ours |\n| --- | --- | --- | --- | --- |"
    for who, runs in table.runs.items():
        figures = " | ".join(number(each) for each in (table.median(who), min(runs), max(runs)))
        yield f"| {who.replace('|', chr(92) + '|')} | {figures} | {_ratio(table, who)} |"
    yield ""


def _picture(title: str, drawn: str, file: Path) -> str:
    file.write_text(drawn)
    return f"![{title}]({file.parent.name}/{file.name})\n"


def _ratio(table: Table, who: str) -> str:
    return f"{table.ratio(who, table.base):.2f} x" if table.base else ""


def _measured(goal: Goal) -> str:
    return f"{_amount(goal.measured, goal)}, wanted {goal.at} {_amount(goal.wanted, goal)}"


def _amount(value: float, goal: Goal) -> str:
    return f"{value:.2f} {goal.unit}" if goal.unit == "x" else f"{number(value)} {goal.unit}"


def _word(goal: Goal) -> str:
    return "met" if goal.met else "**missed**"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]

"""What a bench finds: runs of each contender, goals with what was measured beside them, charts."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

OURS = "ours"


@dataclass(frozen=True)
class Table:
    """One thing measured, of everyone, in rounds that alternate between them."""

    title: str
    unit: str
    runs: Mapping[str, Sequence[float]]
    drawn: bool = True
    """Whether it has a chart."""

    def median(self, who: str) -> float:
        """Return the median of somebody's runs."""
        return statistics.median(self.runs[who])

    def ratio(self, who: str, to: str) -> float:
        """Return the median of the ratios within each round: what drifts from round to round cancels out."""
        pairs = zip(self.runs[who], self.runs[to], strict=False)
        return statistics.median(one / other if other else float("inf") for one, other in pairs)

    @property
    def base(self) -> str | None:
        """Whose figure everyone's ratio is to: ours, where we are in it."""
        return OURS if OURS in self.runs else None

    def best_peer(self, *, highest: bool) -> str:
        """Return the contender, but ours, with the best median."""
        peers = [who for who in self.runs if who != OURS]
        return (max if highest else min)(peers, key=self.median)


@dataclass(frozen=True)
class Course:
    """How figures went along: for each line its points."""

    title: str
    along: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Goal:
    """One goal of the project, with what was measured beside it."""

    name: str
    at: Literal["at most", "at least"]
    wanted: float
    measured: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the goal is met, as measured and not as rounded."""
        return self.measured <= self.wanted if self.at == "at most" else self.measured >= self.wanted


@dataclass
class Section:
    """What one bench found."""

    name: str
    title: str
    how: str
    tables: list[Table] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, unit: str, runs: Mapping[str, Sequence[float]]) -> Table:
        """Note what was measured, and return it as a table."""
        self.tables.append(Table(title, unit, runs))
        return self.tables[-1]


def turn(who: Sequence[str], number: int) -> list[str]:
    """Return the order of a round: everyone is first once."""
    start = number % len(who)
    return [*who[start:], *who[:start]]

"""What the figures of a row say: who stands where, which budgets are kept. Pure.

What lives here: from samples to a `Verdict`. What must not: text, pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .model import METRICS, Budget, Role, Row
from .results import RowResult
from .statistics import Spread, beyond_noise, column, ratios_by_round, summarize

_LATENCIES = ("p50_ms", "p99_ms")


@dataclass(frozen=True, slots=True)
class Standing:
    """One side of a row."""

    name: str
    role: Role
    figure: Spread | None
    others: dict[str, float]
    ratio: float | None
    """Ours ÷ this one: under 1 we need less."""
    ratios: tuple[float, float] | None
    """The least and the largest of the rounds."""
    compared: Literal["less", "more", "same"]
    problem: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One budget, and what came of it."""

    budget: Budget
    limit: float | None
    kept: bool | None
    """None: nothing to compare with was measured."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row, judged."""

    row: Row
    standings: tuple[Standing, ...]
    budgets: tuple[Kept, ...]

    @property
    def ours(self) -> Standing:
        """Our side."""
        return next(standing for standing in self.standings if standing.name == self.row.ours.name)

    @property
    def best_peer(self) -> Standing | None:
        """The peer with the least, ourselves in other forms and floors left out."""
        peers = [s for s in self.standings if s.role == "peer" and s.figure and "multiloop" not in s.name]
        return min(peers, key=lambda s: s.figure.value if s.figure else 0.0, default=None)

    @property
    def is_missed(self) -> bool:
        """Whether a budget was not kept."""
        return any(kept.kept is False for kept in self.budgets)

    @property
    def behind(self) -> list[Standing]:
        """The peers that need less than we do in every round."""
        return [s for s in self.standings if s.role == "peer" and "multiloop" not in s.name and s.compared == "more"]


def judge(row: Row, result: RowResult) -> Verdict:
    """Judge a row by what was measured; sides that failed or are not there stand with their problem."""
    ours = result.sides.get(row.ours.name)
    our_rounds = ours.rounds if ours else []
    standings = []
    for side in row.sides:
        found = result.sides.get(side.name)
        if found is None:
            continue
        samples = found.samples()
        figure = summarize(samples, row.metric, row.take) if column(samples, row.metric) else None
        ratios = [] if side is row.ours else ratios_by_round(our_rounds, found.rounds, row.metric, row.take)
        ratio = None
        if figure and ratios and ours:
            ratio = summarize(ours.samples(), row.metric, row.take).value / figure.value
        standings.append(
            Standing(
                side.name,
                side.role,
                figure,
                {name: _other(samples, name, row) for name in METRICS if name != row.metric and column(samples, name)},
                ratio,
                (min(ratios), max(ratios)) if ratios else None,
                beyond_noise(ratios),
                found.failed or found.missing,
            )
        )
    figures = {s.name: s.figure.value for s in standings if s.figure}
    return Verdict(row, tuple(standings), tuple(_kept(budget, figures, row.ours.name) for budget in row.budgets))


def _other(samples: list[dict[str, float]], metric: str, row: Row) -> float:
    # A latency's least is luck: the median of the windows. Rates: the most that was seen.
    take = "median" if metric in _LATENCIES or row.take == "median" else "least"
    return summarize(samples, metric, take).value  # type: ignore[arg-type]


def _kept(budget: Budget, figures: dict[str, float], ours: str) -> Kept:
    limit = budget.limit(figures)
    if limit is None or ours not in figures:
        return Kept(budget, limit, None)
    # Two figures that would be printed alike are alike.
    return Kept(budget, limit, float(f"{figures[ours]:.3g}") <= float(f"{limit:.3g}"))

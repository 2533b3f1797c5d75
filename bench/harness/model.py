"""What a row of the report is: sides that do the same work, one metric that is compared, and what we promised about it.

What lives here: frozen types and the verdict on a budget. Pure: no process, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .bench import Bench

Sample = dict[str, float]
"""What one window gave: metric → figure."""

Role = Literal["ours", "peer", "floor"]

METRICS = {
    "cpu_us": "CPU, µs",
    "wall_us": "time, µs",
    "wall_ms": "time, ms",
    "cpu_ms": "CPU, ms",
    "rate": "per second",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "kb": "KB each",
    "rest_mb": "at rest, MB",
    "full_mb": "with them, MB",
    "skew": "busiest ÷ mean",
}
"""Every metric and its heading in a table."""

MORE_IS_BETTER = frozenset({"rate"})


@dataclass(frozen=True, slots=True)
class Side:
    """One of those who do the work of a row."""

    name: str
    measure: Callable[[Bench], list[Sample]]
    """One round: start it, warm it up, measure some windows, stop it."""
    role: Role = "peer"
    needs: tuple[str, ...] = ()
    """Environments and commands: "ours", "peers", "node", "bun", "ours314", "postgres", "wrk", "ab"."""
    quick: bool = True
    """Whether the quick run has it, too."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `times` the best of the sides `of`; with `at_most`, that is enough, too."""

    of: tuple[str, ...] = ()
    times: float = 0.0
    at_most: float | None = None

    def limit(self, figures: Mapping[str, float]) -> float | None:
        """Return the largest figure that keeps it, or None when no side that it speaks of was measured."""
        best = [figures[name] for name in self.of if name in figures]
        limits = [self.times * min(best)] if best else []
        if self.at_most is not None:
            limits.append(self.at_most)
        return max(limits) if limits else None

    def words(self, unit: str) -> str:
        """The budget as a reader is told it."""
        said = []
        if self.of:
            best = self.of[0] if len(self.of) == 1 else "the best of " + ", ".join(self.of)
            said.append(f"{self.times:g} × {best}")
        if self.at_most is not None:
            said.append(f"{self.at_most:g} {unit}")
        return "≤ " + " or ".join(said)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work."""

    key: str
    group: str
    title: str
    sides: tuple[Side, ...]
    metric: str = "cpu_us"
    unit: str = "µs"
    per: str = "request"
    take: Literal["least", "median"] = "least"
    """Which of a side's samples stands for it: the least is what noise inflates least; medians where it is bimodal."""
    budgets: tuple[Budget, ...] = ()
    quick: bool = False
    quick_rounds: int = 2
    """Rounds in the quick run: one, where a round takes long."""
    what: str = ""
    """What is done, in a sentence, for the report."""

    @property
    def ours(self) -> Side:
        """The side that is us: the first one of that role."""
        return next(side for side in self.sides if side.role == "ours")

"""Many schedules, and the shortest one that still fails.

What lives here: `search` and `shrink`. What must not: one schedule (`_run`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ._run import Outcome, run
from ._schedule import Scenario, Step


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that fails, and the fewest faults with which it still does."""

    seed: int
    error: str
    steps: tuple[Step, ...]
    outcome: Outcome

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.error}", *(f"  {step}" for step in self.steps)]
        return "\n".join(lines)


def search(
    count: int,
    *,
    first: int = 0,
    scenario: Scenario | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Finding | Outcome]:
    """Run so many seeds; yields the outcome of each that is well, and a Finding, shrunk, for each that is not."""
    for seed in range(first, first + count):
        outcome = run(seed, scenario)
        yield outcome if outcome.ok else shrink(outcome, scenario)
        if progress is not None:
            progress(seed)


def shrink(outcome: Outcome, scenario: Scenario | None = None) -> Finding:
    """Leave out faults as long as it still fails; what is left is what it takes."""
    steps: Sequence[Step] = outcome.steps
    shortest = outcome
    size = max(1, len(steps) // 2)
    while steps:
        for begin in range(0, len(steps), size):
            fewer = [*steps[:begin], *steps[begin + size :]]
            found = run(outcome.seed, scenario, fewer)
            if not found.ok:
                steps, shortest = fewer, found
                break
        else:
            if size == 1:
                break
            size //= 2
    return Finding(outcome.seed, shortest.error, shortest.steps, shortest)

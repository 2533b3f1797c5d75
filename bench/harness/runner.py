"""The run: rows one after the other, the sides of a row in turn, A B A B, for some rounds.

What lives here: who is measured when, and what happens when a side fails. What must not: how (a side's own `measure`).

A side that fails or is not to be had does not stop the run: it stands in the report with the reason. If it is ours, the
run ends with an error.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .bench import Bench
from .environments import prepare, versions
from .machine import commit, describe, load_average
from .model import Row, Side
from .processes import Failed, Missing, run
from .results import Results, RowResult, SideResult
from .statistics import summarize

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    rows: tuple[Row, ...]
    quick: bool
    rounds: int | None = None
    only_sides: tuple[str, ...] = ()

    def sides(self, row: Row) -> list[Side]:
        """The sides of a row in this run."""
        if self.only_sides:
            return [side for side in row.sides if side.name in self.only_sides]
        return [side for side in row.sides if side.quick or not self.quick]

    def rounds_of(self, row: Row) -> int:
        """How often each side of it has its turn."""
        if self.rounds is not None:
            return self.rounds
        return row.quick_rounds if self.quick else ROUNDS

    def needs(self) -> set[str]:
        """What must be there."""
        return {need for row in self.rows for side in self.sides(row) for need in side.needs}


def measure(
    plan: Plan, bench: Bench, results: Results, say: Callable[[str], None], written: Callable[[], None]
) -> list[str]:
    """Measure every row of the plan into `results`; `written` is called after each. Returns what of ours failed."""
    missing = prepare(plan.needs(), say)
    for need, reason in missing.items():
        say(f"without {need}: {reason}")
    results.machine = describe()
    results.versions = _versions(bench)
    form = (
        run([bench.tools.ours / "multiloop", "--version"]).strip() if (bench.tools.ours / "multiloop").exists() else ""
    )
    failures = []
    for number, row in enumerate(plan.rows, 1):
        say(f"[{number}/{len(plan.rows)}] {row.title}")
        began_s = time.monotonic()
        result = measure_row(row, plan, bench, missing, say)
        result.form = form
        results.rows[row.key] = result
        written()
        ours = result.sides.get(row.ours.name)
        if ours is not None and not ours.rounds:
            failures.append(f"{row.key}: {ours.failed or ours.missing}")
        say(f"    {time.monotonic() - began_s:.0f} s")
    return failures


def measure_row(row: Row, plan: Plan, bench: Bench, missing: dict[str, str], say: Callable[[str], None]) -> RowResult:
    """Measure one row."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    sides = plan.sides(row)
    result = RowResult(now, commit(), "", round(load_average(), 2), {side.name: SideResult() for side in sides})
    for side in sides:
        result.sides[side.name].missing = "; ".join(missing[need] for need in side.needs if need in missing)
    for _ in range(plan.rounds_of(row)):
        for side in sides:
            found = result.sides[side.name]
            if not found.missing and not found.failed:
                _turn(row, side, found, bench, say)
    return result


def _turn(row: Row, side: Side, found: SideResult, bench: Bench, say: Callable[[str], None]) -> None:
    try:
        samples = side.measure(bench)
    except Missing as error:
        found.missing = str(error)
        say(f"    {side.name:<32} {error}")
    except (Failed, OSError, ValueError, ArithmeticError) as error:
        found.failed = f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
        say(f"    {side.name:<32} FAILED: {found.failed}")
    else:
        found.rounds.append(samples)
        figure = summarize(samples, row.metric, row.take)
        say(f"    {side.name:<32} {figure.value:10.4g} {row.unit}   ({figure.low:.4g} to {figure.high:.4g})")


def _versions(bench: Bench) -> dict[str, str]:
    found = {name: version for group in versions().values() for name, version in group.items()}
    for command in versions()["commands"]:  # these say packages, not versions
        found.pop(command, None)
    python = bench.tools.ours314 / "python"
    if python.exists():
        found["python 3.14"] = run([python, "-c", "import platform; print(platform.python_version())"]).strip()
    return found


def choose(rows: Sequence[Row], *, quick: bool, wanted: Sequence[str]) -> tuple[Row, ...]:
    """The rows of a run. Raises ValueError for a key that is none."""
    unknown = set(wanted) - {row.key for row in rows}
    if unknown:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; python -m bench list names them")
    if wanted:
        return tuple(row for row in rows if row.key in wanted)
    return tuple(row for row in rows if row.quick or not quick)

"""The baseline: what each scenario cost when somebody last looked, and what has grown since. Pure but for two files.

What lives here: reading and writing the file, comparing. What must not: counting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ALLOWED_GROWTH = 0.05  # the compiler's and the allocator's whims are below 1 %
_WORTH_KEEPING = 0.02

Environment = dict[str, str]
Counts = dict[str, float]
"""Scenario → instructions for doing it once."""


class Refused(Exception):
    """There is nothing to compare with: the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison says."""

    grown: bool
    lines: tuple[str, ...]


def key_of(environment: Environment) -> str:
    """What a baseline is filed under."""
    return f"{environment['python']}, {environment['form']}"


def read(path: Path, environment: Environment) -> Counts:
    """The counts of this environment. Raises Refused when the file has none, or they were counted in another one."""
    filed = json.loads(path.read_text()) if path.exists() else {}
    entry = filed.get(key_of(environment))
    if entry is None:
        known = "; ".join(sorted(filed)) or "nothing"
        raise Refused(f"{path.name} knows {known}, and this is {key_of(environment)} (make bench-check-update adds it)")
    differs = [
        f"{name} is {environment.get(name)}, the baseline's {was}"
        for name, was in entry["environment"].items()
        if environment.get(name) != was
    ]
    if differs:
        raise Refused(f"{'; '.join(differs)} (make bench-check-update counts anew)")
    counts: Counts = entry["instructions"]
    return counts


def write(path: Path, environment: Environment, counted: Counts) -> None:
    """File the counts of this environment; those of others stay."""
    filed = json.loads(path.read_text()) if path.exists() else {}
    filed[key_of(environment)] = {"environment": environment, "instructions": counted}
    path.write_text(json.dumps(filed, indent=2, sort_keys=True) + "\n")


def compare(before: Mapping[str, float], after: Mapping[str, float], *, partly: bool = False) -> Outcome:
    """Say for each scenario whether it grew by more than is allowed. A scenario without a baseline fails, too.

    With `partly` not all were counted: those that are missing are not spoken of.
    """
    bad, good = [], []
    for name, now in after.items():
        was = before.get(name)
        if was is None:
            bad.append(f"{name} has no baseline: make bench-check-update, and commit bench/check/baseline.json")
            continue
        change = now / was - 1
        said = f"{name}: {_count(was)} before, {_count(now)} now ({change:+.1%})"
        if change > ALLOWED_GROWTH:
            bad.append(f"GREW {said}, at most {ALLOWED_GROWTH:+.0%} is allowed")
        elif change < -_WORTH_KEEPING:
            good.append(f"{said}: make bench-check-update keeps the gain")
        else:
            good.append(said)
    if not partly:
        bad += [f"{name} is gone: make bench-check-update" for name in before if name not in after]
    verdict = "nothing has grown" if not bad else f"{len(bad)} to look at, in instructions for one operation"
    return Outcome(bool(bad), (*good, *bad, verdict))


def _count(instructions: float) -> str:
    return f"{instructions:,.0f}".replace(",", " ")

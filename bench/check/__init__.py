"""Staying fast: instructions of fixed scenarios, counted by callgrind, against a committed baseline.

What lives here: the scenarios (`scenarios`, run in an environment of their own), counting (`counting`), comparing
(`baseline`, pure) and the command. What must not: timing anything; counts are the same on a busy machine and on a quiet
one, two runs differ by nothing.

Counts depend on the Python, the compiler and three libraries: those are written down with the baseline, and another
environment is refused with a word instead of compared.
"""

from __future__ import annotations

from collections.abc import Sequence


def compare_command(*, update: bool, only: Sequence[str]) -> int:
    """Count and compare, or write the baseline anew. 0: nothing has grown; 1: something has; 3: not comparable here."""
    from ..harness.machine import ROOT
    from .baseline import Refused, compare, read, write
    from .counting import BASELINE, COUNTS, count

    environment, counted = count(only)
    if update:
        if only:
            raise ValueError("a baseline is written whole: leave out --only")
        write(BASELINE, environment, counted)
        print(f"bench-check: wrote {len(counted)} scenarios for {environment['python']} into {BASELINE.name}")
        return 0
    try:
        baseline = read(BASELINE, environment)
    except Refused as refused:
        print(f"bench-check: not compared: {refused}")
        return 3
    outcome = compare(baseline, counted, partly=bool(only))
    for line in outcome.lines:
        print(f"bench-check: {line}")
    if outcome.grown:
        print(
            f"bench-check: callgrind_annotate {COUNTS.relative_to(ROOT)}/counts.N (its Trigger line names the scenario)"
        )
    return 1 if outcome.grown else 0

"""The fault matrix: rows with a promise and a target, run one after the other, and the table that comes of it.

What lives here: `row` (registers one), `Context` (what a row gets), `run` and `table`. What must not: the rows
(`rows_*.py`).

A row does its fault to a real `multiloop serve`, with real clients, and returns a `Result`. Times are judged beside a
yardstick taken in the same minute (`slowdown`): 1.0 where a core is to spare, so that then the targets hold as they are.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .server import Server, serving


@dataclass(frozen=True, slots=True)
class Result:
    """What a row measured, and whether the promise was kept."""

    ok: bool
    figure: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the matrix."""

    number: str
    fault: str
    promise: str
    target: str
    function: Callable[[Context], Result]


@dataclass(slots=True)
class Context:
    """What a row works with: a folder of its own, how large the run is, servers that are gone afterwards."""

    folder: Path
    is_full: bool
    seed: int = 1
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def times(self, quick: int, full: int) -> int:
        """How often to do the fault."""
        return full if self.is_full else quick

    def serve(self, *arguments: str, **options: object) -> Server:
        """Start a server; it ends with the row."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return self._stack.enter_context(serving(folder, *arguments, **options))  # type: ignore[arg-type]


LONGER = ", longer by as much as the machine is slower now"  # of targets that are times

ROWS: dict[str, Row] = {}


def row(number: str, fault: str, promise: str, target: str) -> Callable[[Callable[[Context], Result]], None]:
    """Register a row."""

    def register(function: Callable[[Context], Result]) -> None:
        assert number not in ROWS, number
        ROWS[number] = Row(number, fault, promise, target, function)

    return register


def run_row(one: Row, *, is_full: bool, seed: int = 1) -> Result:
    """Run one row; what it raises is a failure with its reason."""
    folder = Path(tempfile.mkdtemp(prefix=f"multiloop-fault-{one.number}-"))
    context = Context(folder, is_full, seed)
    try:
        with context._stack:
            return one.function(context)
    except Exception as error:
        traceback.print_exc()
        return Result(False, f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def slowdown() -> float:
    """How much longer a tenth of a second of work takes here and now: 1.0 on a machine with a core to spare."""
    worst = 1.0
    for _ in range(2):
        began, until = time.monotonic(), time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        worst = max(worst, (time.monotonic() - began) / 0.1)
    return worst


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed: of a hundred, the 99th is not the worst."""
    found = sorted(values)
    return found[max(0, math.ceil(share * len(found)) - 1)] if found else 0.0


def table(results: dict[str, list[Result]]) -> str:
    """The table for people, in Markdown."""
    lines = ["| # | fault | promise | target | measured | |", "|---|---|---|---|---|---|"]
    for number, several in results.items():
        one = ROWS[number]
        good = sum(result.ok for result in several)
        shown = several[-1].figure if good == len(several) else next(r.figure for r in several if not r.ok)
        times = f"{good} of {len(several)} runs" if len(several) > 1 else ""
        verdict = "kept" if good == len(several) else "**broken**"
        lines.append(
            f"| {number} | {one.fault} | {one.promise} | {one.target} | {shown}{'; ' + times if times else ''} | {verdict} |"
        )
    return "\n".join(lines)


def cpu_seconds(pid: int) -> float:
    """Processor time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

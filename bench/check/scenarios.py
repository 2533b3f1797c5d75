"""The fixed scenarios whose instructions are counted: `python -m bench.check.scenarios MARKS [NAME …]` under callgrind.

What lives here: running them, one after the other in one process, each warmed up first. What they do is in
`http_scenarios` and `inner_scenarios`. What must not: counting, comparing.

Nothing here may depend on time or on other threads: no sweep runs, no socket is waited for, the collector is off while
instructions are counted.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

Work = Callable[[int], Awaitable[None]]
"""Does a scenario so many times."""

Scenario = Callable[[ExitStack], Awaitable[Work]]
"""Prepares one; what it opens is closed with the stack."""


async def reference(closing: ExitStack) -> Work:
    """A loop of plain Python: what the interpreter itself costs, to tell its changes from ours."""

    async def work(count: int) -> None:
        total = 0
        seen: dict[int, int] = {}
        for number in range(count * 100):
            key = number & 63
            seen[key] = seen.get(key, 0) + 1
            total += len(str(number))

    return work


def scenarios() -> dict[str, tuple[Scenario, int]]:
    """Name → how it is prepared, and how often it is done."""
    from . import http_scenarios, inner_scenarios

    return {"reference": (reference, 40), **http_scenarios.ALL, **inner_scenarios.ALL}


async def main(marks: ctypes.CDLL, wanted: list[str]) -> None:
    """Run the scenarios; callgrind writes what it counted of each. Prints how often each was done."""
    if not marks.counting():
        print("not under valgrind: nothing is counted", file=sys.stderr)
    unknown = set(wanted) - set(scenarios())
    if unknown:
        sys.exit(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(scenarios())}")
    for name, (prepare, count) in scenarios().items():
        if wanted and name not in wanted:
            continue
        with ExitStack() as closing:
            work = await prepare(closing)
            await work(max(20, count // 4))
            gc.collect()
            gc.disable()
            marks.begin()
            await work(count)
            marks.end(name.encode())
            gc.enable()
        print(name, count, flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(ctypes.CDLL(sys.argv[1]), sys.argv[2:]))

"""Keep a program's main thread on one core, and everything else of it on another: `python pin.py PID`

BENCH_CORES names the two. Left alone, two threads that wake each other share a core in some windows and not in others.
"""

from __future__ import annotations

import contextlib
import os
import sys


def below(pid: int) -> list[int]:
    """The processes under this one, not itself."""
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            for child in map(int, file.read().split()):
                if child != os.getpid():
                    found += [child, *below(child)]
    return found


def pin(pid: int) -> None:
    first, second = (int(core) for core in os.environ["BENCH_CORES"].split(","))
    for member in (pid, *below(pid)):
        for thread in os.listdir(f"/proc/{member}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), {first if int(thread) == pid else second})


if __name__ == "__main__":
    pin(int(sys.argv[1]))

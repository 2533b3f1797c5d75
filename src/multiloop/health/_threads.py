"""What the kernel knows of this process's threads: who computes, and who waits for a core.

What lives here: `clocks` and `cpu_times` (to find who holds the interpreter's lock while the loop waits for it) and
`RunQueue` (a machine that is too busy makes every loop late, and no line of code is to blame). What must not: stacks
(`_stack`), judging (`_episode`).

The clock of a thread is named by its number in the kernel, as glibc does it; a thread that has ended is an OSError then,
where `time.pthread_getcpuclockid` would read freed memory. Linux only: elsewhere nothing is known.
"""

from __future__ import annotations

import os
import sys
import threading
import time

_KNOWN = sys.platform == "linux"
_PER_THREAD_SCHED_CLOCK = 6  # the low bits of such a clock's number (CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED)


def clocks() -> dict[int, int]:
    """Return the number of each Python thread's clock of processor time, by its identifier."""
    if not _KNOWN:
        return {}
    return {
        thread.ident: (~thread.native_id << 3) | _PER_THREAD_SCHED_CLOCK
        for thread in threading.enumerate()
        if thread.native_id is not None and thread.ident is not None
    }


def read_clocks(numbers: dict[int, int]) -> dict[int, float]:
    """Return the seconds that these clocks say, by thread. Those of threads that have ended are missing."""
    found: dict[int, float] = {}
    for thread, number in numbers.items():
        try:
            found[thread] = time.clock_gettime(number)
        except OSError:  # it has ended meanwhile
            pass
    return found


def cpu_times() -> dict[int, float]:
    """Return the seconds of processor time that each Python thread has used, by its identifier."""
    return read_clocks(clocks())


class RunQueue:
    """How long the thread that makes this has been ready to run and had no core. About a microsecond to ask."""

    def __init__(self) -> None:
        try:
            self._fd = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        except OSError:  # no Linux, or a kernel that does not count it
            self._fd = -1

    def waited_s(self) -> float:
        """Return the seconds since the thread began; 0 where that is not known."""
        if self._fd < 0:
            return 0.0
        try:
            return int(os.pread(self._fd, 64, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Let go of the descriptor; nothing is known from here on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

"""How much of a processor's time a worker has used: `worker.cpu_usage()`.

What lives here: reading it from /proc. What must not: which process or thread a worker is.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class CpuUsage(NamedTuple):
    """Seconds of a processor's time: in the worker's own code, and in the kernel for it."""

    user: float
    system: float


def cpu_usage_of(pid: int, thread: int | None) -> CpuUsage:
    """Return what a process has used, or one thread of it. Raises OSError when it has ended, or there is no /proc."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    with open(path, encoding="latin-1") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return CpuUsage(int(fields[11]) / ticks, int(fields[12]) / ticks)

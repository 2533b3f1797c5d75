"""What a process costs, asked of the kernel: also of one that is stopped or blocked.

What lives here: `usage`. What must not: whose process it is.
"""

from __future__ import annotations

import os
import resource
import time

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = resource.getpagesize()


def usage(pid: int) -> tuple[float, int] | None:
    """Return (seconds of processor time, resident bytes) of a process; None when it is gone, or this is not Linux."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S, int(fields[21]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def own_usage() -> tuple[float, int]:
    """Return the same of this process, everywhere."""
    found = usage(os.getpid())
    if found is not None:
        return time.process_time(), found[1]
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

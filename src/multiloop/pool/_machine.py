"""What this machine lets us use, and what this process was told about its neighbours.

What lives here: `usable_cores` and the defaults that a server sets for all pools of its process. What must not: pools.
"""

from __future__ import annotations

import os


class _Defaults:
    nice: int | None = None
    neighbours: int = 1


defaults = _Defaults()


def inside_server(processes: int, nice: int = 10) -> None:
    """Tell the pools of this process that it is one of `processes` servers on this machine.

    Called once by the cluster's worker: the default pool then takes its share of the cores, and pools without a `nice`
    of their own give way to the loop (10).
    """
    defaults.neighbours = max(1, processes)
    defaults.nice = nice


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, cut by the CPU quota of its control group."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, int(quota + 0.5))) if quota else max(1, count)


def share_of_cores() -> int:
    """Return how many workers the default pool has: this process's part of the cores."""
    return max(1, usable_cores() // defaults.neighbours)


def _quota() -> float:
    """Return the CPUs that the control group allows, 0.0 when it does not say."""
    for path in ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
        try:
            with open(path) as file:
                words = file.read().split()
            if path.endswith("cpu.max"):
                return 0.0 if words[0] == "max" else int(words[0]) / int(words[1])
            with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
                return max(0.0, int(words[0]) / int(file.read()))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return 0.0

"""How many descriptors this process may have, and what that leaves room for.

What lives here: the limit itself, and the primary's share for duplicates. What must not: a worker's (`_vitals`).
"""

from __future__ import annotations

import os
import resource

from .. import _limits as limits


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors to the hard one, for this process and its workers (as Go does)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, limits.MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass


def max_duplicates(workers: int, apps: int) -> int:
    """Return how many duplicates, of each application, the limit of descriptors leaves room for, besides two generations
    of workers."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        used = 32
    room = limit - used - limits.DESCRIPTORS_PER_WORKER * (2 * workers + 1) - 16
    return max(8, min(limits.MAX_DUPLICATES, room // apps))

"""Who gets what, and when workers come and go. Pure: numbers in, decisions out.

What lives here: the rules of sending ahead, growing, robbing, recycling, retrying and giving up, each a small function.
What must not: clocks, sockets, tasks themselves.

* A worker is never without work while there is some: it has one task running and one ahead (`DEPTH`), and as many tiny
  ones as make a millisecond, so that a tiny task costs a fraction of a write and a read.
* Idle workers are served first, the one that was busy last before the others: it may still be awake.
* A task is sent to a worker that is ready, never to one that is still starting.
* What was sent ahead is taken back when its worker is busy for long and another one is idle.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from random import random

from .. import _limits as limits

DEPTH = limits.POOL_DEPTH
MOST = limits.POOL_MOST_AHEAD
ENOUGH = MOST // 2  # with more than this ahead a worker gets no more yet: fewer, larger batches
AHEAD_NS = limits.POOL_AHEAD_S * 1e9
ROB_AFTER_S = limits.POOL_ROB_AFTER_S
UNKNOWN_NS = 10_000_000.0  # what a function is taken to need until it has run once: nothing tiny

_CRASHES = frozenset(
    -number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
)


def share(queued: int, workers: int) -> int:
    """Return how many tasks one of `workers` takes at most, so that all of them get some."""
    return min(MOST, -(-queued // workers)) if workers > 1 else MOST


def budget_ns(ahead: int, estimate_ns: float) -> float:
    """Return how much more work may be sent to a worker that has so many tasks ahead, of about this length."""
    return AHEAD_NS - ahead * estimate_ns


def wanted(workers: int, starting: int, idle: int, waiting: int, limit: int) -> int:
    """Return how many workers to start: one for each waiting task that no idle or starting one will take."""
    return max(0, min(limit - workers, waiting - starting - idle))


def recycle_reason(
    completed: int,
    age_s: float,
    rss_bytes: int,
    *,
    tasks: int | None,
    age: float | None,
    rss: int | None,
    jitter: float,
) -> str:
    """Return why a worker is to be replaced, "" when it is not. `jitter` (0 to 1) spreads ages of the same start."""
    if tasks is not None and completed >= tasks:
        return f"it has run {completed} tasks"
    if age is not None and age_s >= age * (1 + limits.POOL_AGE_JITTER * jitter):
        return f"it is {age_s:.0f} s old"
    if rss is not None and rss_bytes > rss:
        return f"it holds {rss_bytes / 2**20:.0f} MiB"
    return ""


@dataclass(slots=True)
class BootRecord:
    """How starting workers has gone since the last one became ready."""

    failures: int = 0
    deaths: int = 0

    def ready(self) -> None:
        """One became ready."""
        self.failures = self.deaths = 0

    def died(self, exit_code: int | None) -> bool:
        """One died before it was ready; returns whether to give up.

        Workers that end themselves or crash will do so again; those that were killed may just have been unlucky.
        """
        if exit_code is None or exit_code >= 0 or exit_code in _CRASHES:
            self.failures += 1
        else:
            self.deaths += 1
        return self.failures >= limits.POOL_BOOT_FAILURES or self.deaths >= limits.POOL_BOOT_KILLS

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start."""
        tries = self.failures + max(0, self.deaths - 3)
        if not tries:
            return 0.0
        longest: float = min(limits.POOL_BOOT_DELAY_MAX_S, limits.POOL_BOOT_DELAY_S * 2 ** (tries - 1))
        return longest * (0.8 + 0.4 * random())

"""The idle notifier of a socket: says that nothing moved for a while, and does nothing about it.

What lives here: `IdleTimer`. It is no handle of its own: an unref'd socket must not be held by its timer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from ..errors import UsageError

_LONGEST_S = (2**31 - 1) / 1000


def checked_timeout(seconds: float) -> float:
    """Return a timeout that timers can keep. Raises UsageError for a negative, infinite or too long one."""
    if not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST_S:
        raise UsageError(f"set_timeout({seconds!r}): 0 (off) to {_LONGEST_S:.0f} seconds")
    return float(seconds)


class IdleTimer:
    """Calls `notify` when `touch()` was not called for `timeout_s`. A notice is given once for each idle time."""

    __slots__ = ("_last", "_loop", "_notify", "_scheduled", "timeout_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, notify: Callable[[], None]) -> None:
        self._loop = loop
        self._notify = notify
        self.timeout_s = timeout_s
        self._last = loop.time()
        self._scheduled: asyncio.TimerHandle | None = loop.call_later(timeout_s, self._look)

    def touch(self) -> None:
        """Something moved. Costs a look at the clock; the timer itself is moved only when it fires."""
        self._last = self._loop.time()
        if self._scheduled is None:
            self._scheduled = self._loop.call_later(self.timeout_s, self._look)

    def _look(self) -> None:
        self._scheduled = None
        left_s = self._last + self.timeout_s - self._loop.time()
        if left_s > 0:
            # uvloop's timers can fire a millisecond early: never look again at once.
            self._scheduled = self._loop.call_later(max(left_s, 0.001), self._look)
        else:
            self._notify()

    def stop(self) -> None:
        """Never notify again."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

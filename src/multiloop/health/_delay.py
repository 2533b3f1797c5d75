"""How late the loop is: a timer that measures its own lateness.

What lives here: `LoopDelay`. What must not: blaming anybody (`_watchdog`).
"""

from __future__ import annotations

import asyncio

from ..errors import UsageError
from ..loop import Handle, Hub
from ..stats import Durations
from ._histogram import Histogram


class LoopDelay(Handle):
    """The lateness of a timer that is due every `resolution` seconds, since the start or `reset()`.

    `count`, `min`, `max`, `mean`, `stddev`, `percentile(p)`, `p50`, `p99`: seconds; quantiles within 4 %. About 1 ms is
    the timer's own granularity. Stop it when you have seen enough: it wakes the loop. Does not keep the program going.
    """

    def __init__(self, of: Hub, resolution_s: float) -> None:
        super().__init__()
        if not 0.001 <= resolution_s <= 60:
            raise UsageError(f"loop_delay(resolution={resolution_s}): seconds between 0.001 and 60")
        self.resolution = resolution_s
        self._histogram = Histogram()
        self._timer: asyncio.TimerHandle | None = None
        self.unref()
        self._opened(of)
        self._arm()

    def _arm(self) -> None:
        loop = self._hub.loop
        self._due = loop.time() + self.resolution
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._histogram.record(self._hub.loop.time() - self._due)
        self._arm()

    @property
    def count(self) -> int:
        """How many times it was measured."""
        return self._histogram.count

    @property
    def min(self) -> float:
        """The smallest delay."""
        return self._histogram.min

    @property
    def max(self) -> float:
        """The largest delay."""
        return self._histogram.max

    @property
    def mean(self) -> float:
        """The mean delay."""
        return self._histogram.mean

    @property
    def stddev(self) -> float:
        """The standard deviation."""
        return self._histogram.stddev

    @property
    def p50(self) -> float:
        """The median."""
        return self._histogram.percentile(50)

    @property
    def p99(self) -> float:
        """What 99 of 100 do not exceed."""
        return self._histogram.percentile(99)

    def percentile(self, percent: float) -> float:
        """Return what this share (0 < percent <= 100) does not exceed. Raises ValueError outside."""
        return self._histogram.percentile(percent)

    def snapshot(self) -> Durations:
        """Return everything as it is now, frozen."""
        return self._histogram.snapshot()

    def reset(self) -> None:
        """Forget what was measured."""
        self._histogram.reset()

    def stop(self) -> None:
        """Measure no more; what was measured stays. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended()

    def _shutdown(self) -> None:
        self.stop()

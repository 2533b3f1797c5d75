"""What a pool counts: outcomes, and how long tasks waited and ran.

What lives here: `Meter` and `Series`. What must not: workers' own state (`_engine_local.statistics`), histograms as such
(`health._histogram`).

A duration costs one `append`; binning happens in bulk, when some thousand have come or somebody looks.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic

from ..health._histogram import Histogram
from ..stats import Durations

_FOLD_AT = 4096


class Series:
    """Durations in nanoseconds. `fresh` is appended to by one thread; everything else is done under a lock."""

    __slots__ = ("_histogram", "_lock", "fresh")

    def __init__(self) -> None:
        self.fresh: list[int] = []
        self._histogram = Histogram()
        self._lock = Lock()

    @property
    def is_due(self) -> bool:
        """Whether enough has come to be binned."""
        return len(self.fresh) >= _FOLD_AT

    def fold(self) -> None:
        """Bin what has come."""
        with self._lock:
            taken = self.fresh[:]
            del self.fresh[: len(taken)]  # what was appended meanwhile stays
            self._histogram.record_all(taken)

    @property
    def total_s(self) -> float:
        """The sum of all."""
        self.fold()
        with self._lock:
            return self._histogram.mean * self._histogram.count

    def snapshot(self) -> Durations:
        """Return what is known of all."""
        self.fold()
        with self._lock:
            return self._histogram.snapshot()


class Meter:
    """The counters of one pool; they outlive its engines."""

    def __init__(self) -> None:
        self.made = monotonic()
        self.waits = Series()
        self.runs = Series()
        self.failed = 0
        self.cancelled = 0
        self.timed_out = 0
        self.stopped = 0
        self.retried = 0
        self.died = 0
        self.recycled = 0

    def fold(self) -> None:
        """Bin durations when there are many."""
        if self.runs.is_due:
            self.runs.fold()
            self.waits.fold()

"""What a pool counts: outcomes, and how long tasks waited and ran.

What lives here: `Meter` and `Histogram`. What must not: workers' own state (`_engine_local.statistics`).

A duration costs one `append`; binning happens in bulk, when some thousand have come or somebody looks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from functools import partial
from threading import Lock
from time import monotonic

from .. import _buckets
from ..stats import Durations

_FOLD_AT = 4096
_STEP = 1.1  # each bin is 10 % wider than the one before: from 1 µs, 220 of them reach 1 000 s
_BOUNDS_NS = [1000.0 * _STEP**power for power in range(220)]
_find = partial(bisect_right, _BOUNDS_NS)


class Histogram:
    """Durations in nanoseconds. `fresh` is appended to by one thread; everything else is done under a lock."""

    __slots__ = ("_bins", "_count", "_lock", "_max", "_min", "_total", "fresh")

    def __init__(self) -> None:
        self.fresh: list[int] = []
        self._bins: Counter[int] = Counter()
        self._count = 0
        self._total = 0
        self._min = 0
        self._max = 0
        self._lock = Lock()

    @property
    def is_due(self) -> bool:
        """Whether enough has come to be binned."""
        return len(self.fresh) >= _FOLD_AT

    def fold(self) -> None:
        """Bin what has come."""
        with self._lock:
            count = len(self.fresh)
            taken = self.fresh[:count]
            del self.fresh[:count]  # what was appended meanwhile stays
            if not taken:
                return
            self._min = min(taken) if not self._count else min(self._min, *taken)
            self._max = max(self._max, *taken, 0)
            self._count += count
            self._total += sum(taken)
            self._bins.update(map(_find, taken))

    @property
    def total_s(self) -> float:
        """The sum of all."""
        self.fold()
        return self._total / 1e9

    @property
    def count(self) -> int:
        """How many there are."""
        self.fold()
        return self._count

    def snapshot(self) -> Durations:
        """Return what is known of all."""
        self.fold()
        with self._lock:
            if not self._count:
                return Durations()
            p50, p90, p99, p999 = (self._quantile(share) for share in (0.5, 0.9, 0.99, 0.999))
            return Durations(
                count=self._count,
                min=self._min / 1e9,
                max=self._max / 1e9,
                mean=self._total / self._count / 1e9,
                p50=p50,
                p90=p90,
                p99=p99,
                p999=p999,
                total=self._total / 1e9,
                buckets=self._shared_buckets(),
            )

    def _shared_buckets(self) -> tuple[int, ...]:
        counts = [0] * _buckets.COUNT
        for bin_number, count in self._bins.items():
            upper_ns = _BOUNDS_NS[min(bin_number, len(_BOUNDS_NS) - 1)]
            counts[_buckets.index_of(upper_ns / _STEP**0.5 / 1e9)] += count
        return tuple(counts)

    def _quantile(self, share: float) -> float:
        below = share * self._count
        seen = 0
        for bin_number in sorted(self._bins):
            seen += self._bins[bin_number]
            if seen >= below:
                upper = _BOUNDS_NS[min(bin_number, len(_BOUNDS_NS) - 1)]
                return float(min(max(upper, self._min), self._max)) / 1e9
        return self._max / 1e9


class Meter:
    """The counters of one pool; they outlive its engines."""

    def __init__(self) -> None:
        self.made = monotonic()
        self.waits = Histogram()
        self.runs = Histogram()
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

"""A histogram of durations in a few kilobytes: exact count, extremes and mean; quantiles within 4 %.

What lives here: `Histogram`. What must not: clocks.

Buckets are logarithmic: each power of two of microseconds is cut into 16 parts, as in HdrHistogram.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import partial
from operator import mul

from .. import _buckets
from ..stats import Durations

_PARTS_BITS = 4
_PARTS = 1 << _PARTS_BITS
_BUCKETS = 44 * _PARTS  # up to half a year


class Histogram:
    """Durations in seconds."""

    __slots__ = ("_buckets", "_square_sum", "_sum", "count", "max", "min")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._buckets = [0] * _BUCKETS
        self._sum = self._square_sum = 0.0
        self.count = 0
        self.min = self.max = 0.0

    def record(self, seconds: float) -> None:
        """Add one; negative ones count as 0."""
        if seconds < 0.0:
            seconds = 0.0
        if seconds > self.max:
            self.max = seconds
        if seconds < self.min or not self.count:
            self.min = seconds
        self.count += 1
        self._sum += seconds
        self._square_sum += seconds * seconds
        self._buckets[_bucket(int(seconds * 1e6))] += 1

    def record_all(self, nanoseconds: Sequence[int]) -> None:
        """Add many at once, in nanoseconds: a tenth of what adding them one by one costs."""
        if not nanoseconds:
            return
        if min(nanoseconds) < 0:
            nanoseconds = [max(0, each) for each in nanoseconds]
        lowest, highest = min(nanoseconds) / 1e9, max(nanoseconds) / 1e9
        self.min = min(self.min, lowest) if self.count else lowest
        self.max = max(self.max, highest)
        self.count += len(nanoseconds)
        self._sum += sum(nanoseconds) / 1e9
        self._square_sum += sum(map(mul, nanoseconds, nanoseconds)) / 1e18
        for index, count in Counter(map(_find, nanoseconds)).items():
            self._buckets[index] += count

    @property
    def mean(self) -> float:
        return self._sum / self.count if self.count else 0.0

    @property
    def stddev(self) -> float:
        if not self.count:
            return 0.0
        return math.sqrt(max(0.0, self._square_sum / self.count - self.mean**2))

    def percentile(self, percent: float) -> float:
        """Return the duration that this share of all (0 < percent <= 100) does not exceed; 0 when there are none."""
        if not 0 < percent <= 100:
            raise ValueError(f"percentile({percent}): above 0 and at most 100")
        wanted = max(1, math.ceil(self.count * percent / 100))
        if wanted >= self.count:
            return self.max
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if seen >= wanted:
                return min(max(_middle(index), self.min), self.max)
        return 0.0

    def snapshot(self) -> Durations:
        """Return what it says now."""
        if not self.count:
            return Durations()
        return Durations(
            count=self.count,
            min=self.min,
            max=self.max,
            mean=self.mean,
            p50=self.percentile(50),
            p90=self.percentile(90),
            p99=self.percentile(99),
            p999=self.percentile(99.9),
            total=self._sum,
            buckets=self._shared_buckets(),
        )

    def _shared_buckets(self) -> tuple[int, ...]:
        counts = [0] * _buckets.COUNT
        for index, count in enumerate(self._buckets):
            if count:
                counts[_buckets.index_of(_middle(index))] += count
        return tuple(counts)


def _bucket(microseconds: int) -> int:
    power = microseconds.bit_length() - _PARTS_BITS - 1
    if power <= 0:
        return microseconds
    return min((power << _PARTS_BITS) + (microseconds >> power), _BUCKETS - 1)


def _lowest(index: int) -> int:
    """The fewest microseconds that belong to a bucket."""
    power = max(0, (index >> _PARTS_BITS) - 1)
    return (index - (power << _PARTS_BITS)) << power


def _middle(index: int) -> float:
    power = max(0, (index >> _PARTS_BITS) - 1)
    return (_lowest(index) + ((1 << power) - 1) / 2) / 1e6


# The bucket of a number of nanoseconds, by the lowest of each bucket but the first.
_find = partial(bisect_right, [1000 * _lowest(index) for index in range(1, _BUCKETS)])

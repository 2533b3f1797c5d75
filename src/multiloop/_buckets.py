"""Durations in buckets that everybody shares: requests, loop delays, tasks; counted in one process, added up in another.

What lives here: the bounds, and what can be said of counts in them. What must not: clocks, who counts.

Twenty buckets for each power of ten (the R20 series of preferred numbers), so a quantile is right within some 6 %. A
bucket counts what is at most its bound; the last one, without a bound, the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

_STEPS = (1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8, 3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0)
BOUNDS_S = (*(float(f"{step}e{power}") for power in range(-5, 2) for step in _STEPS), 100.0)
COUNT = len(BOUNDS_S) + 1
EMPTY = (0,) * COUNT

index_of = partial(bisect_left, BOUNDS_S)
"""`index_of(seconds)`: the bucket of a duration."""

# What /metrics shows of them: 1, 2.5 and 5 of each power of ten; a scraper stores every bucket of every worker.
EXPOSED_S = tuple(b for b in BOUNDS_S if 0.0001 <= b <= 10 and f"{b:.2e}"[:4] in ("1.00", "2.50", "5.00"))
_EXPOSED_AT = tuple(BOUNDS_S.index(bound) for bound in EXPOSED_S)


def add(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return the counts of both; an empty sequence stands for none."""
    if not one or not other:
        return tuple(one or other)
    return tuple(map(int.__add__, one, other))


def since(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    """Return what was counted after `before`; all of it when the counter began anew."""
    if not before:
        return tuple(now)
    left = tuple(map(int.__sub__, now, before))
    return tuple(now) if left and min(left) < 0 else left


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration that this share of all does not exceed, interpolated within its bucket; None without any."""
    total = sum(counts)
    if not total:
        return None
    below = 0
    wanted = share * total
    for index, count in enumerate(counts):
        if count and below + count >= wanted:
            if index >= len(BOUNDS_S):
                return BOUNDS_S[-1]
            lowest = BOUNDS_S[index - 1] if index else 0.0
            return lowest + (BOUNDS_S[index] - lowest) * (wanted - below) / count
        below += count
    return BOUNDS_S[-1]


def exposed(counts: Sequence[int]) -> list[tuple[str, int]]:
    """Return what OpenMetrics wants: (bound as text, how many are at most that), the last one being +Inf."""
    sums = tuple(accumulate(counts)) if counts else EMPTY
    found = [(repr(bound), sums[at]) for bound, at in zip(EXPOSED_S, _EXPOSED_AT, strict=True)]
    return [*found, ("+Inf", sums[-1])]

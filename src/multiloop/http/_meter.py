"""Counts replies by status class and duration, in memory that another process may read at any moment.

What lives here: `meter_into` (in a worker) and `read_meter` (in the primary): the two ends of the layout. What must not:
whose memory it is (`cluster._page`).

Each reply is one number more in one bucket, and its duration more in one sum. So what is counted is right at once, also
for a worker that is blocked or was killed; nothing is sent. It costs nothing unless somebody measures.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from .. import _buckets as buckets

if TYPE_CHECKING:
    from ._exchange import Exchange

CLASSES = 6  # by the first digit of the status; 0 is never used
_COUNTS = CLASSES * buckets.COUNT
_LAYOUT = struct.Struct(f"={_COUNTS}Q{CLASSES}d")
SIZE_BYTES = _LAYOUT.size


class Replies(NamedTuple):
    """What was counted: for each status class (its first digit) the buckets, and the seconds in all."""

    buckets: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]


def meter_into(memory: memoryview) -> Callable[[Exchange], None]:
    """Return what counts an exchange whose reply has ended (`HttpService.measure` takes it)."""
    counts = memory[: _COUNTS * 8].cast("Q")
    sums = memory[_COUNTS * 8 : SIZE_BYTES].cast("d")
    starts = [digit * buckets.COUNT for digit in range(CLASSES)]
    index_of, clock, most = buckets.index_of, perf_counter, CLASSES - 1

    def meter(exchange: Exchange) -> None:
        seconds = clock() - exchange.started_at_s
        digit = exchange.status // 100
        if digit > most:
            digit = most
        counts[starts[digit] + index_of(seconds)] += 1
        sums[digit] += seconds

    return meter


def read_meter(memory: bytes | memoryview, offset: int = 0) -> Replies:
    """Return what was counted so far."""
    found = _LAYOUT.unpack_from(memory, offset)
    size = buckets.COUNT
    return Replies(tuple(found[i : i + size] for i in range(0, _COUNTS, size)), found[_COUNTS:])

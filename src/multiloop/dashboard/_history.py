"""The last minutes of the cluster's totals, one point a second, for the charts. Pure.

What lives here: `History`. What must not: what the numbers mean to people.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from .._limits import HISTORY_S, SAMPLE_INTERVAL_S

SERIES = (
    "rate",
    "errors",
    "p50",
    "p99",
    "connections",
    "active",
    "delay",
    "utilization",
    "cpu",
    "rss",
    "queued",
    "running",
)
_POINTS = round(HISTORY_S / SAMPLE_INTERVAL_S)


class History:
    """A ring of points; a value that is not known is NaN inside and None outside."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_POINTS)
        self._series = {name: deque[float](maxlen=_POINTS) for name in SERIES}

    def add(self, time_s: float, values: Mapping[str, float | None]) -> None:
        """Take the point of this moment; the oldest goes when it is full."""
        self._times.append(time_s)
        for name, series in self._series.items():
            value = values.get(name)
            series.append(math.nan if value is None else value)

    def as_plain(self) -> dict[str, list[float | None]]:
        """Return the columns: "t" (seconds since the epoch), then each series."""
        columns: dict[str, list[float | None]] = {"t": [round(time_s, 1) for time_s in self._times]}
        for name, series in self._series.items():
            columns[name] = [_short(value) for value in series]
        return columns


def _short(value: float) -> float | None:
    """Four significant digits: charts show no more, and the page loads sooner."""
    return None if value != value else float(f"{value:.4g}")

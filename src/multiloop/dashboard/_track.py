"""One worker over its last seconds: rates, quantiles and shares out of counters that only grow. Pure.

What lives here: `Track`, `Reading`. What must not: the cluster's totals (`_model`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .. import _buckets as buckets
from .._limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_MISSED_S
from ..stats import WorkerStatistics

_RATE_S = 3.0  # over which rates and shares are taken: short enough to feel live
_QUANTILE_S = 10.0  # over which quantiles are: a p99 of fewer replies would jump about


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker does now; None: not known (nobody measures, or nothing happened)."""

    rate: float | None  # replies a second
    error_rate: float | None  # of them 5xx
    p50: float | None  # seconds
    p99: float | None
    delay: float | None  # how late the loop is: the p99 of its beats, or how long it has been silent
    utilization: float | None  # of the loop, 0 to 1
    cpu: float | None  # cores
    dealt_rate: float  # connections dealt a second


@dataclass(slots=True)
class _Point:
    at: float
    replies: tuple[int, ...]  # of all classes
    errors: int
    dealt: int
    cpu: float
    beats: tuple[int, ...]
    active: float | None
    reported_at: float


class Track:
    """The last seconds of one worker. Add a snapshot once a second."""

    def __init__(self) -> None:
        self._points: deque[_Point] = deque()
        self._last_delay: float | None = None

    @property
    def replies(self) -> tuple[int, ...]:
        """Every reply so far, in the shared buckets."""
        return self._points[-1].replies if self._points else ()

    @property
    def errors(self) -> int:
        """How many of them were 5xx."""
        return self._points[-1].errors if self._points else 0

    def add(self, at: float, worker: WorkerStatistics) -> None:
        """Take a snapshot."""
        replies: tuple[int, ...] = ()
        for row in worker.replies:
            if any(row) or not replies:
                replies = buckets.add(replies, row)
        report = worker.report
        self._points.append(
            _Point(
                at=at,
                replies=replies,
                errors=sum(worker.replies[5]) if worker.replies else 0,
                dealt=worker.dealt_total,
                cpu=worker.cpu,
                beats=report.health.loop_delay.buckets if report is not None else (),
                active=report.active if report is not None else None,
                reported_at=report.sent_at if report is not None else 0.0,
            )
        )
        while len(self._points) > 2 and self._points[1].at <= at - _QUANTILE_S:
            self._points.popleft()

    def read(self, worker: WorkerStatistics) -> Reading:
        """Say what the worker does now; `worker` is the snapshot that was added last."""
        now = self._points[-1]
        near = self._since(_RATE_S)
        span_s = now.at - near.at
        replies = buckets.since(now.replies, self._points[0].replies) if now.replies else ()
        first = len(self._points) == 1

        def rate(new: float, old: float) -> float:
            return max(0.0, new - old) / span_s if span_s > 0 else 0.0

        return Reading(
            rate=rate(sum(now.replies), sum(near.replies)) if now.replies and not first else None,
            error_rate=rate(now.errors, near.errors) if now.replies and not first else None,
            p50=buckets.quantile(replies, 0.5),
            p99=buckets.quantile(replies, 0.99),
            delay=self._delay(worker),
            utilization=self._utilization(worker),
            cpu=rate(now.cpu, near.cpu) if not first else None,
            dealt_rate=rate(now.dealt, near.dealt),
        )

    def _since(self, seconds: float) -> _Point:
        now = self._points[-1].at
        return next(point for point in self._points if point.at >= now - seconds - 0.01)

    def _delay(self, worker: WorkerStatistics) -> float | None:
        if worker.silent > HEARTBEAT_MISSED_S:
            return worker.silent - HEARTBEAT_INTERVAL_S
        beats = self._points[-1].beats
        return buckets.quantile(buckets.since(beats, self._points[0].beats), 0.99) if beats else None

    def _utilization(self, worker: WorkerStatistics) -> float | None:
        if worker.silent > HEARTBEAT_MISSED_S and worker.state in ("ready", "silent"):
            return 1.0  # it reports nothing, because it is blocked
        now = self._points[-1]
        if now.active is None:
            return None
        for before in reversed(self._points):
            if before.active is not None and before.reported_at <= now.reported_at - _RATE_S / 2:
                return min(1.0, max(0.0, now.active - before.active) / (now.reported_at - before.reported_at))
        return None

"""What the dashboard shows: from snapshots and events to plain values. Pure: no socket, no clock, no cluster.

What lives here: `Model`. What must not: how it looks (`assets`, `cli._top`), how it travels (`_server`).

    snapshot each second ─▶ a Track for each worker ─▶ readings ─▶ totals ─▶ History
    events, blocks, ends ─▶ the log of the cluster, Offenders, what became of each place's workers
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .. import _buckets as buckets
from .._limits import HEARTBEAT_MISSED_S, MAX_EVENTS
from ..stats import AppStatistics, BlockedLoop, ClusterStatistics, PoolStatistics, WorkerStatistics
from ._history import History
from ._offenders import Offenders, place_of, sentence
from ._text import shown, shown_lines
from ._track import Reading, Track

_KEPT_ENDS = 20  # of each place's workers: why they were replaced
# The state of several applications is the first of these that one of them is in.
_STATES = ("stopping", "failed", "degraded", "reloading", "booting", "serving")
_BLOCKED_NOW_S = 0.5  # a shorter block is over before anybody has read that it is there
_SAME_BLOCK_S = 10.0  # the same place blocks again within it: counted, not told again


class Model:
    """The state of a dashboard. Feed it; it answers with plain values that JSON can carry."""

    def __init__(self) -> None:
        self.history = History()
        self.offenders = Offenders()
        self._now: ClusterStatistics | None = None
        self._tracks: dict[int, Track] = {}
        self._readings: dict[int, Reading] = {}
        self._window: deque[tuple[float, tuple[int, ...], int]] = deque()  # replies of the whole cluster, 5xx
        self._retired_replies: tuple[int, ...] = ()
        self._retired_errors = 0
        self._cpu: deque[tuple[float, float]] = deque(maxlen=4)  # of the primary
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._next_event = 1
        self._ends: dict[tuple[str, int], deque[dict[str, Any]]] = {}  # by application and place
        self._told: dict[tuple[int, str, int], float] = {}
        self._point: dict[str, float | None] = {}

    # -- feeding -------------------------------------------------------------------------------------------------------
    def sample(self, found: ClusterStatistics) -> None:
        """Take the snapshot of this second."""
        self._now = found
        there = {worker.number for worker in found.workers}
        for kept in (self._tracks, self._readings):
            for number in kept.keys() - there:
                del kept[number]
        replies, errors = self._retired_replies, self._retired_errors
        for worker in found.workers:
            track = self._tracks.setdefault(worker.number, Track())
            track.add(found.at, worker)
            self._readings[worker.number] = track.read(worker)
            replies = buckets.add(replies, track.replies)
            errors += track.errors
        self._window.append((found.at, replies, errors))
        while len(self._window) > 2 and self._window[1][0] <= found.at - 10.0:
            self._window.popleft()
        self._cpu.append((found.at, found.cpu))
        self._point = self._totals(found)
        self.history.add(found.time, self._point)

    def event(self, time_s: float, level: str, text: str, detail: str = "") -> None:
        """Something happened."""
        self._events.append(
            {
                "id": self._next_event,
                "t": round(time_s, 3),
                "level": level,
                "text": shown(text),
                "detail": shown_lines(detail) if detail else "",
            }
        )
        self._next_event += 1

    def blocked(self, time_s: float, number: int, block: BlockedLoop, *, killed: bool = False) -> None:
        """A worker's loop was blocked (and turns again, or was killed)."""
        self.offenders.add(number, block, killed=killed)
        key = (number, block.file, block.line)
        if self._told.get(key, 0.0) < time_s - _SAME_BLOCK_S:
            self._told[key] = time_s
            self.event(time_s, "warning", f"worker {number}: its loop was {sentence(block)}")

    def ended(self, time_s: float, worker: WorkerStatistics, why: str) -> None:
        """A worker is gone; these are its last figures."""
        last = Track()
        last.add(time_s, worker)
        self._retired_replies = buckets.add(self._retired_replies, last.replies)
        self._retired_errors += last.errors
        self._tracks.pop(worker.number, None)  # its reading stays: the last snapshot still shows it
        for key in [key for key in self._told if key[0] == worker.number]:
            del self._told[key]
        if worker.blocked_at is not None and worker.silent > HEARTBEAT_MISSED_S:
            silent = replace(worker.blocked_at, duration=worker.silent)
            self.blocked(time_s, worker.number, silent, killed=True)
        self.event(time_s, "info", f"worker {worker.number} is gone: {why}")
        if worker.slot is not None:
            ends = self._ends.setdefault((worker.app, worker.slot), deque(maxlen=_KEPT_ENDS))
            ends.append({"t": round(time_s, 3), "worker": worker.number, "why": shown(why, 200)})

    # -- answering -----------------------------------------------------------------------------------------------------
    @property
    def newest_event(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._next_event - 1

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the events after one, oldest first."""
        return [event for event in self._events if event["id"] > after]

    def state(self) -> dict[str, Any]:
        """Return the cluster and its workers as of the last snapshot; empty before the first."""
        found = self._now
        if found is None:
            return {}
        return {
            "t": round(found.time, 3),
            "cluster": {
                "state": next((state for state in _STATES if any(app.state == state for app in found.apps)), ""),
                "uptime": round(found.uptime, 1),
                "restarts": sum(app.restarts for app in found.apps),
                "waiting": sum(app.waiting for app in found.apps),
                "wanted": sum(app.wanted for app in found.apps),
                "pid": found.pid,
                "version": found.version,
                "rss": found.rss,
                "cpu": self._primary_cpu(),
            },
            "apps": [_app(app) for app in found.apps],
            "now": {name: _short(value) for name, value in self._point.items()},
            "workers": [self._worker(worker) for worker in found.workers],
            "pools": _pools(found),
        }

    def _worker(self, worker: WorkerStatistics) -> dict[str, Any]:
        reading = self._readings[worker.number]
        pools = worker.report.pools if worker.report is not None else ()
        ends = self._ends.get((worker.app, worker.slot), ()) if worker.slot is not None else ()
        is_blocked = worker.state == "silent" or (worker.blocked_at is not None and worker.silent > _BLOCKED_NOW_S)
        return {
            "app": shown(worker.app),
            "n": worker.number,
            "pid": worker.pid,
            "slot": worker.slot,
            "state": worker.state,
            "gen": worker.generation,
            "age": round(worker.age, 1),
            "rate": _short(reading.rate),
            "dealt": _short(reading.dealt_rate),
            "p50": _short(reading.p50),
            "p99": _short(reading.p99),
            "conns": worker.http.connections if worker.http is not None else worker.dealt,
            "active": worker.http.active_requests if worker.http is not None else 0,
            "ws": worker.http.websockets if worker.http is not None else 0,
            "total": worker.http.requests if worker.http is not None else 0,
            "delay": _short(reading.delay),
            "util": _short(reading.utilization),
            "rss": worker.rss,
            "cpu": _short(reading.cpu),
            "queued": sum(pool.queued for pool in pools),
            "running": sum(pool.running for pool in pools),
            "ends": list(ends),
            "blocked": self._block(worker) if is_blocked else None,
        }

    @staticmethod
    def _block(worker: WorkerStatistics) -> dict[str, Any]:
        where = place_of(worker.blocked_at) if worker.blocked_at is not None else {}
        stack = shown_lines(worker.blocked_at.stack) if worker.blocked_at is not None else ""
        return {"seconds": round(worker.silent, 2), **where, "stack": stack}

    # -- totals --------------------------------------------------------------------------------------------------------
    def _totals(self, found: ClusterStatistics) -> dict[str, float | None]:
        rate, errors = self._rates()
        recent = buckets.since(self._window[-1][1], self._window[0][1]) if self._window[-1][1] else ()
        serving = [worker for worker in found.workers if worker.state in ("ready", "silent")]
        readings = [self._readings[worker.number] for worker in serving]
        pools = [pool for w in found.workers if w.report is not None for pool in w.report.pools]
        cores = [self._readings[worker.number].cpu for worker in found.workers]
        return {
            "rate": rate,
            "errors": errors,
            "p50": buckets.quantile(recent, 0.5),
            "p99": buckets.quantile(recent, 0.99),
            "connections": sum(w.http.connections if w.http is not None else w.dealt for w in found.workers)
            + sum(app.waiting for app in found.apps),
            "active": sum(w.http.active_requests for w in found.workers if w.http is not None),
            "delay": _largest(reading.delay for reading in readings),
            "utilization": _mean(reading.utilization for reading in readings),
            "cpu": sum(filter(None, cores), self._primary_cpu() or 0.0),
            "rss": sum(worker.rss for worker in found.workers) + found.rss,
            "queued": sum(pool.queued for pool in pools),
            "running": sum(pool.running for pool in pools),
        }

    def _rates(self) -> tuple[float | None, float | None]:
        at, replies, errors = self._window[-1]
        before = next(point for point in self._window if point[0] >= at - 2.01)
        if not replies or at <= before[0]:
            return None, None
        span_s = at - before[0]
        return max(0, sum(replies) - sum(before[1])) / span_s, max(0, errors - before[2]) / span_s

    def _primary_cpu(self) -> float | None:
        (began, before), (at, cpu_s) = self._cpu[0], self._cpu[-1]
        return float(f"{(cpu_s - before) / (at - began):.4g}") if at > began else None


def _app(app: AppStatistics) -> dict[str, Any]:
    return {
        "name": shown(app.name),
        "target": shown(app.target),
        "state": app.state,
        "listen": [shown(where) for where in app.listen],
        "policy": app.policy,
        "generation": app.generation,
        "restarts": app.restarts,
        "recycled": sum(app.recycled.values()),
        "failure": shown(app.boot_failure),
        "accepted": app.accepted,
        "again": app.dealt_again,
        "waiting": app.waiting,
        "wanted": app.wanted,
    }


def _pools(found: ClusterStatistics) -> list[dict[str, Any]]:
    """Every pool by its name: those of one name in several workers count together."""
    by_name: dict[str, list[PoolStatistics]] = {}
    for worker in found.workers:
        for pool in worker.report.pools if worker.report is not None else ():
            by_name.setdefault(pool.name, []).append(pool)
    return [_pool(name, by_name[name]) for name in sorted(by_name)]


def _pool(name: str, pools: list[PoolStatistics]) -> dict[str, Any]:
    waits = runs = buckets.EMPTY
    for pool in pools:
        waits, runs = buckets.add(waits, pool.wait.buckets), buckets.add(runs, pool.run.buckets)
    tasks = [shown(worker.task, 80) for pool in pools for worker in pool.workers if worker.task]
    return {
        "name": shown(name, 80),
        "kind": pools[0].kind,
        "inside": len(pools),
        "limit": sum(pool.limit for pool in pools),
        "workers": sum(len(pool.workers) for pool in pools),
        "queued": sum(pool.queued for pool in pools),
        "running": sum(pool.running for pool in pools),
        "done": sum(pool.completed for pool in pools),
        "failed": sum(pool.failed + pool.timed_out for pool in pools),
        "died": sum(pool.died for pool in pools),
        "wait99": _short(buckets.quantile(waits, 0.99)),
        "run50": _short(buckets.quantile(runs, 0.5)),
        "run99": _short(buckets.quantile(runs, 0.99)),
        "tasks": sorted(set(tasks))[:8],
    }


def _largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")

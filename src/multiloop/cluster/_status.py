"""What `multiloop status` and `multiloop top` are told: the snapshot as plain values that JSON can carry, and back.

What lives here: `status`, `raw` and `from_raw`. What must not: how it looks (`cli`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from .. import _buckets as buckets
from ..stats import AppStatistics, ClusterStatistics, Durations, WorkerStatistics


def status(found: ClusterStatistics, **more: Any) -> dict[str, Any]:
    """Return the state of the whole primary for people and scripts; times are seconds, sizes bytes.

    With one application its fields stand at the top; `apps` has them for each.
    """
    apps = [_app(app, found) for app in found.apps]
    head: dict[str, Any] = {
        "pid": found.pid,
        "version": found.version,
        "uptime": round(found.uptime, 3),
        "rss": found.rss,
        "cpu": round(found.cpu, 3),
        **more,
    }
    if len(apps) == 1:
        head |= apps[0]
    else:
        head["workers"] = [worker for app in apps for worker in app["workers"]]
    return {**head, "apps": apps}


def _app(app: AppStatistics, found: ClusterStatistics) -> dict[str, Any]:
    plain = dataclasses.asdict(app)
    for end in plain["ended"]:
        end["ago"] = round(end["ago"], 3)
    plain["workers"] = [_worker(worker) for worker in found.workers if worker.app == app.name]
    return plain


def _worker(worker: WorkerStatistics) -> dict[str, Any]:
    left_out = {"http", "replies", "reply_seconds", "report", "blocked_at"}
    plain = {field.name: getattr(worker, field.name) for field in dataclasses.fields(worker)}
    plain = {name: value for name, value in plain.items() if name not in left_out}
    plain |= {name: round(plain[name], 3) for name in ("age", "silent", "cpu")}
    plain["statistics"] = dataclasses.asdict(worker.http) if worker.http is not None else {}
    plain["blocked_at"] = dataclasses.asdict(worker.blocked_at) if worker.blocked_at is not None else None
    plain["latency"] = _latency(worker)
    report = worker.report
    if report is not None:
        active = report.active + report.idle
        plain["utilization"] = round(report.active / active, 4) if active else 0.0
        plain["blocked"] = {"count": report.health.blocked_count, "seconds": round(report.health.blocked_seconds, 3)}
        plain["loop_delay"] = _durations(report.health.loop_delay)
        plain["pools"] = [
            {
                "name": pool.name,
                "workers": len(pool.workers),
                "queued": pool.queued,
                "running": pool.running,
                "completed": pool.completed,
                "failed": pool.failed,
                "wait": _durations(pool.wait),
                "run": _durations(pool.run),
            }
            for pool in report.pools
        ]
    return plain


def _latency(worker: WorkerStatistics) -> dict[str, Any] | None:
    """Quantiles of the time to answer since the worker started; None while nobody measures."""
    if not worker.replies:
        return None
    counts = buckets.EMPTY
    for row in worker.replies:
        counts = buckets.add(counts, row)
    return {
        "count": sum(counts),
        "p50": buckets.quantile(counts, 0.5),
        "p90": buckets.quantile(counts, 0.9),
        "p99": buckets.quantile(counts, 0.99),
    }


def _durations(found: Durations) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("count", "min", "max", "mean", "p50", "p90", "p99")}


# --- whole snapshots, for programs of ours ------------------------------------------------------------------------
def raw(found: ClusterStatistics) -> dict[str, Any]:
    """Return everything, as `from_raw` takes it; without `asdict`, which copies every number: this is asked often."""
    made: dict[str, Any] = _plain(found)
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return value if not value or isinstance(value[0], int | float | str) else [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_raw(plain: dict[str, Any]) -> ClusterStatistics:
    """Return the snapshot that `raw` was made of; fields that another version added are passed over."""
    made: ClusterStatistics = _make(ClusterStatistics, plain)
    return made


def _make(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _make(next(one for one in typing.get_args(kind) if one is not types.NoneType), value)
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(value) if inner in (int, float, str) else tuple(_make(inner, one) for one in value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: _make(hints[name], one) for name, one in value.items() if name in hints})
    return value


_known: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _known:
        _known[kind] = typing.get_type_hints(kind)
    return _known[kind]

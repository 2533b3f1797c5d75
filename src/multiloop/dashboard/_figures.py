"""Which metrics multiloop itself publishes, and their values, from snapshots. Pure.

What lives here: the table of families, `figures_of_worker`, `figures_of_cluster`. What must not: adding up (`_sums`).

The label `app` is the application's name. `worker` is the worker's place in it (0, 1, …), not its number: a successor
goes on where it stopped, so counters go on as well, and scrapers do not collect the dead.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from .. import _buckets as buckets
from ..stats import ClusterStatistics, Durations, HttpStatistics, PoolStatistics, WorkerReport, WorkerStatistics
from ._sums import Family, Key, Labels

_PREFIX = "multiloop_"
_STATES = ("starting", "standby", "ready", "silent", "draining", "killed")

FAMILIES = {
    f"{_PREFIX}{name}": family
    for name, family in {
        "build": Family("info", "What runs: the version, and Python."),
        "uptime_seconds": Family("gauge", "How long the primary has run.", "seconds"),
        "generation": Family("gauge", "Which code serves: reloads count it up."),
        "workers": Family("gauge", "Workers by state."),
        "workers_wanted": Family("gauge", "How many workers there should be."),
        "worker_restarts": Family("counter", "Workers that died, hung or could not start, and were replaced."),
        "worker_recycles": Family("counter", "Workers that were replaced by a limit, or because it was asked for."),
        "connections_accepted": Family("counter", "Connections that the primary has accepted."),
        "connections_dealt_again": Family("counter", "Connections taken back from a worker and given to another."),
        "connections_waiting": Family("gauge", "Connections that the primary holds because no worker can take them."),
        "primary_cpu_seconds": Family("counter", "Processor time of the primary.", "seconds"),
        "primary_resident_memory_bytes": Family("gauge", "Resident memory of the primary.", "bytes"),
        "worker_up": Family("gauge", "1 while a worker of this place can take connections."),
        "worker_cpu_seconds": Family("counter", "Processor time.", "seconds"),
        "worker_resident_memory_bytes": Family("gauge", "Resident memory.", "bytes"),
        "worker_age_seconds": Family("gauge", "How long the worker has run.", "seconds", "max"),
        "http_requests": Family("counter", "Requests answered, by class of the status."),
        "http_request_duration_seconds": Family("histogram", "From the whole head to the end of the reply.", "seconds"),
        "http_refused": Family("counter", "Requests that never reached the application."),
        "http_connections": Family("gauge", "Open connections."),
        "http_active_requests": Family("gauge", "Requests being answered."),
        "http_websockets": Family("gauge", "Open WebSockets."),
        "loop_delay_seconds": Family("histogram", "How late the event loop turns.", "seconds"),
        "loop_active_seconds": Family("counter", "Time in which the event loop was busy or blocked.", "seconds"),
        "loop_blocked": Family("counter", "How often the event loop was blocked."),
        "loop_blocked_seconds": Family("counter", "Time in which it was blocked.", "seconds"),
        "loop_silent_seconds": Family("gauge", "How long the event loop has not turned.", "seconds", "max"),
        "log_dropped": Family("counter", "Log records lost because their destination took nothing."),
        "pool_tasks": Family("counter", "Tasks that ended, by outcome."),
        "pool_queued": Family("gauge", "Tasks that wait for a pool's worker."),
        "pool_running": Family("gauge", "Tasks that run."),
        "pool_workers": Family("gauge", "A pool's workers."),
        "pool_wait_seconds": Family("histogram", "How long tasks waited.", "seconds"),
        "pool_run_seconds": Family("histogram", "How long tasks ran.", "seconds"),
    }.items()
}


def figures_of_cluster(found: ClusterStatistics) -> dict[Key, float]:
    """Return the values that are of the primary and its applications."""
    values = {
        _key("build", "_info", (("python", platform.python_version()), ("version", found.version))): 1.0,
        _key("uptime_seconds"): found.uptime,
        _key("primary_cpu_seconds", "_total"): found.cpu,
        _key("primary_resident_memory_bytes"): found.rss,
    }
    for app in found.apps:
        at: Labels = (("app", app.name),)
        values |= {
            _key("generation", "", at): app.generation,
            _key("workers_wanted", "", at): app.wanted,
            _key("worker_restarts", "_total", at): app.restarts,
            _key("connections_accepted", "_total", at): app.accepted,
            _key("connections_dealt_again", "_total", at): app.dealt_again,
            _key("connections_waiting", "", at): app.waiting,
        }
        values |= {_key("worker_recycles", "_total", (*at, ("why", why))): n for why, n in app.recycled.items()}
        states = [worker.state for worker in found.workers if worker.app == app.name]
        values |= {_key("workers", "", (*at, ("state", state))): states.count(state) for state in _STATES}
    return values


def figures_of_worker(worker: WorkerStatistics) -> dict[Key, float]:
    """Return the values of one worker, each with its place as a label; none of a standby, which has no place yet."""
    if worker.slot is None:
        return {}
    at: Labels = (("app", worker.app), ("worker", place_of(worker)))
    values: dict[Key, float] = {
        _key("worker_up", "", at): float(worker.state == "ready"),
        _key("worker_cpu_seconds", "_total", at): worker.cpu,
        _key("worker_resident_memory_bytes", "", at): worker.rss,
        _key("worker_age_seconds", "", at): worker.age,
        _key("loop_silent_seconds", "", at): worker.silent,
        _key("http_connections", "", at): worker.dealt,
    }
    if worker.http is not None:
        values.update(_http(worker.http, at))
    if worker.replies:
        values.update(_replies(worker, at))
    if worker.report is not None:
        for key, value in _report(worker.report, at):
            values[key] = values.get(key, 0.0) + value  # pools of one name count together
    return values


def place_of(worker: WorkerStatistics) -> str:
    """Return what its label `worker` says."""
    return "" if worker.slot is None else str(worker.slot)


def _key(name: str, suffix: str = "", labels: Labels = ()) -> Key:
    name = _PREFIX + name
    return name, name + suffix, labels


def _http(http: HttpStatistics, at: Labels) -> Iterator[tuple[Key, float]]:
    yield _key("http_connections", "", at), http.connections
    yield _key("http_active_requests", "", at), http.active_requests
    yield _key("http_websockets", "", at), http.websockets
    yield _key("http_refused", "_total", at), http.refused


def _replies(worker: WorkerStatistics, at: Labels) -> Iterator[tuple[Key, float]]:
    counts = buckets.EMPTY
    for digit, row in enumerate(worker.replies):
        if digit:
            yield _key("http_requests", "_total", (("status", f"{digit}xx"), *at)), sum(row)
        counts = buckets.add(counts, row)
    yield from _histogram("http_request_duration_seconds", counts, sum(worker.reply_seconds), at)


def _report(report: WorkerReport, at: Labels) -> Iterator[tuple[Key, float]]:
    health = report.health
    yield _key("loop_active_seconds", "_total", at), report.active
    yield _key("loop_blocked", "_total", at), health.blocked_count
    yield _key("loop_blocked_seconds", "_total", at), health.blocked_seconds
    yield _key("log_dropped", "_total", at), report.log.dropped
    yield from _durations("loop_delay_seconds", health.loop_delay, at)
    for pool in report.pools:
        yield from _pool(pool, (("pool", pool.name), *at))


def _pool(pool: PoolStatistics, at: Labels) -> Iterator[tuple[Key, float]]:
    for outcome in ("completed", "failed", "cancelled", "timed_out"):
        yield _key("pool_tasks", "_total", (("outcome", outcome), *at)), getattr(pool, outcome)
    yield _key("pool_queued", "", at), pool.queued
    yield _key("pool_running", "", at), pool.running
    yield _key("pool_workers", "", at), len(pool.workers)
    yield from _durations("pool_wait_seconds", pool.wait, at)
    yield from _durations("pool_run_seconds", pool.run, at)


def _durations(name: str, found: Durations, at: Labels) -> Iterator[tuple[Key, float]]:
    yield from _histogram(name, found.buckets or buckets.EMPTY, found.total, at)


def _histogram(name: str, counts: tuple[int, ...], total_s: float, at: Labels) -> Iterator[tuple[Key, float]]:
    exposed = buckets.exposed(counts)
    for bound, count in exposed:
        yield _key(name, "_bucket", (("le", bound), *at)), count
    yield _key(name, "_count", at), exposed[-1][1]
    yield _key(name, "_sum", at), total_s

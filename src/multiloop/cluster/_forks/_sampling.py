"""A program that forks itself, at one moment: from live objects to the snapshot that `multiloop status` shows.

What lives here: `sample`. What must not: how it looks (`cluster._status`), what `serve` is (`cluster._sample`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..._wire.forks import Load
from ...stats import AppStatistics, ClusterStatistics, HttpStatistics, WorkerStatistics
from .._sample import ended, snapshot
from .._usage import usage

if TYPE_CHECKING:
    from ._primary import Primary
    from ._worker import Worker


def sample(primary: Primary, name: str, target: str, started_at: float) -> ClusterStatistics:
    """Return a snapshot. `name` is what people call the program, `target` what was run."""
    return snapshot(
        started_at,
        apps=(_program(primary, name, target),),
        workers=tuple(_worker(primary, name, worker) for worker in primary.workers.values()),
    )


def _program(primary: Primary, name: str, target: str) -> AppStatistics:
    supervision, dealer = primary.supervision, primary.dealer
    supervisor = supervision.flock if supervision is not None else None
    state = supervision.state if supervision is not None else "stopping" if primary.stopping else "running"
    policy = primary.scheduling_policy
    return AppStatistics(
        name=name,
        target=target,
        state=state,
        listen=tuple(primary.board.addresses()),
        policy=policy if isinstance(policy, str) else type(policy).__name__,
        generation=supervisor.generation if supervisor is not None else 1,
        restarts=supervisor.restarts if supervisor is not None else 0,
        recycled=dict(supervisor.recycled) if supervisor is not None else {},
        boot_failure=supervisor.boot_failure if supervisor is not None else "",
        accepted=dealer.accepted,
        dealt_again=dealer.dealt_again,
        waiting=dealer.waiting,
        duplicates=dealer.duplicates,
        wanted=len(supervisor.slots) if supervisor is not None else 0,
        ended=ended(supervisor.ends if supervisor is not None else ()),
    )


def _worker(primary: Primary, name: str, worker: Worker) -> WorkerStatistics:
    record, link = primary.flock.workers.get(worker.id), primary.dealer.links().get(worker.id)
    cost = usage(worker.process.pid) if worker.process.pid else None
    beat = worker.page.last_beat() if worker.page is not None and not worker.is_dead() else 0.0
    return WorkerStatistics(
        app=name,
        number=worker.id,
        pid=worker.process.pid or 0,
        slot=worker.seat,
        state=record.state.value if record is not None else worker.state.value,
        generation=record.generation if record is not None else 1,
        age=time.time() - worker.started_at,
        silent=max(0.0, time.monotonic() - beat) if beat else 0.0,
        dealt=link.connections if link is not None else 0,
        dealt_total=link.total if link is not None else 0,
        rss=cost[1] if cost is not None else 0,
        cpu=cost[0] if cost is not None else 0.0,
        http=_http(worker.report),
    )


def _http(report: Any) -> HttpStatistics | None:
    """What a supervised worker says of its requests; of what is no HTTP of ours, its connections."""
    load = report.statistics if report is not None else None
    if not isinstance(load, Load):
        return None
    return HttpStatistics(
        connections=load.connections,
        active_requests=load.active_requests,
        requests=load.requests,
        refused=0,
        websockets=0,
        draining=False,
    )

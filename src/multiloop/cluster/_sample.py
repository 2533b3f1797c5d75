"""The cluster at one moment: from live objects to one frozen snapshot.

What lives here: `sample`, `sample_worker`, and what every snapshot has (`snapshot`, `ended`; `_forks._sampling` uses them).
What must not: how it looks (`_status`, `dashboard`), what follows from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .. import __version__
from ..stats import (
    AppStatistics,
    ClusterStatistics,
    EndedWorker,
    HttpStatistics,
    WorkerReport,
    WorkerStatistics,
)
from ._states import End, State
from ._usage import own_usage, usage

if TYPE_CHECKING:
    from ._app import App


def sample(apps: Sequence[App], started_at: float) -> ClusterStatistics:
    """Return a snapshot. Costs some 50 microseconds for each worker."""
    return snapshot(
        started_at,
        apps=tuple(_sample_app(app) for app in apps),
        workers=tuple(sample_worker(app, number) for app in apps for number in sorted(app.supervisor.workers)),
    )


def snapshot(
    started_at: float, apps: tuple[AppStatistics, ...], workers: tuple[WorkerStatistics, ...]
) -> ClusterStatistics:
    """Return a snapshot of this primary, which has run since then (Unix time), with what it runs."""
    now = time.time()
    cpu_s, rss_bytes = own_usage()
    return ClusterStatistics(
        at=time.monotonic(),
        time=now,
        pid=os.getpid(),
        version=__version__,
        uptime=now - started_at,
        rss=rss_bytes,
        cpu=cpu_s,
        apps=apps,
        workers=workers,
    )


def ended(ends: Iterable[End]) -> tuple[EndedWorker, ...]:
    """Return what is told of workers that are no more."""
    now = time.monotonic()
    return tuple(
        EndedWorker(end.number, end.slot, end.generation, end.why, end.how, max(0.0, now - end.at)) for end in ends
    )


def _sample_app(app: App) -> AppStatistics:
    settings, supervisor, dealer = app.settings, app.supervisor, app.dealer
    scheme = "https" if settings.tls is not None else "http"
    return AppStatistics(
        name=settings.called,
        target=settings.target.name,
        state=supervisor.state,
        listen=tuple(listener.url(scheme) for listener in app.listeners),
        policy=settings.supervisor.policy,
        generation=supervisor.generation,
        restarts=supervisor.restarts,
        recycled=dict(supervisor.recycled),
        boot_failure=supervisor.boot_failure,
        accepted=dealer.accepted,
        dealt_again=dealer.dealt_again,
        waiting=dealer.waiting,
        duplicates=dealer.duplicates,
        wanted=len(supervisor.slots),
        ended=ended(supervisor.ends),
    )


def sample_worker(app: App, number: int) -> WorkerStatistics:
    """Return a snapshot of one worker that has a record."""
    record, process, link = app.supervisor.workers[number], app.processes.get(number), app.dealer.links().get(number)
    report = process.report if process is not None else None
    cost = usage(process.pid) if process is not None and process.pid else None
    replies = process.page.replies() if process is not None and process.measures else None
    beat = process.page.last_beat() if process is not None else 0.0
    details = report.details if report is not None else None
    statistics = report.statistics if report is not None else None
    return WorkerStatistics(
        app=app.settings.called,
        number=number,
        pid=process.pid if process is not None else 0,
        slot=record.slot,
        state=record.state.value,
        generation=record.generation,
        age=time.time() - process.started_at if process is not None else 0.0,
        silent=max(0.0, time.monotonic() - beat) if beat else 0.0,
        dealt=link.connections if link is not None else 0,
        dealt_total=link.total if link is not None else 0,
        rss=cost[1] if cost is not None else report.rss_bytes if report is not None else 0,
        cpu=cost[0] if cost is not None else 0.0,
        http=statistics if isinstance(statistics, HttpStatistics) else None,
        replies=replies.buckets if replies is not None else (),
        reply_seconds=replies.seconds if replies is not None else (),
        report=details if isinstance(details, WorkerReport) else None,
        blocked_at=process.page.shown_block() if process is not None and record.state is not State.STARTING else None,
    )

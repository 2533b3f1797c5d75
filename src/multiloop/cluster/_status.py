"""What `multiloop status` shows, as plain values that JSON can carry.

What lives here: `app_status` and `cluster_status`. What must not: how it looks (`cli`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ._app import App


def cluster_status(apps: Sequence[dict[str, Any]], started_at: float) -> dict[str, Any]:
    """Return the state of the whole primary; times are seconds, sizes bytes.

    With one application its fields stand at the top; `apps` has them for each.
    """
    head: dict[str, Any] = {
        "pid": os.getpid(),
        "version": __version__,
        "uptime": round(time.time() - started_at, 3),
    }
    if len(apps) == 1:
        head |= apps[0]
    else:
        head["workers"] = [worker for app in apps for worker in app["workers"]]
    return {**head, "apps": list(apps)}


def app_status(app: App) -> dict[str, Any]:
    """Return the state of one application."""
    settings, supervisor, dealer = app.settings, app.supervisor, app.dealer
    scheme = "https" if settings.tls is not None else "http"
    now = time.monotonic()
    return {
        "name": settings.called,
        "target": settings.target.name,
        "state": supervisor.state,
        "listen": [listener.url(scheme) for listener in app.listeners],
        "policy": settings.supervisor.policy,
        "generation": supervisor.generation,
        "restarts": supervisor.restarts,
        "recycled": dict(supervisor.recycled),
        "boot_failure": supervisor.boot_failure,
        "accepted": dealer.accepted,
        "dealt_again": dealer.dealt_again,
        "waiting": dealer.waiting,
        "duplicates": dealer.duplicates,
        "wanted": len(supervisor.slots),
        "workers": [_worker(app, number) for number in sorted(supervisor.workers)],
        "ended": [
            {
                "number": end.number,
                "slot": end.slot,
                "generation": end.generation,
                "why": end.why,
                "how": end.how,
                "ago": round(now - end.at, 3),
            }
            for end in supervisor.ends
        ],
    }


def _worker(app: App, number: int) -> dict[str, Any]:
    record = app.supervisor.workers[number]
    process = app.processes.get(number)
    report = process.report if process is not None else None
    link = app.dealer.links().get(number)
    statistics = report.statistics if report is not None else None
    return {
        "app": app.settings.called,
        "number": number,
        "pid": process.pid if process is not None else 0,
        "slot": record.slot,
        "state": record.state.value,
        "generation": record.generation,
        "age": round(time.time() - process.started_at, 3) if process is not None else 0.0,
        "dealt": link.connections if link is not None else 0,
        "rss": report.rss_bytes if report is not None else 0,
        "statistics": asdict(statistics) if is_dataclass(statistics) and not isinstance(statistics, type) else {},
    }

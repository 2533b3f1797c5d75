"""What `multiloop status` shows, as plain values that JSON can carry.

What lives here: `status`. What must not: how it looks (`cli`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from .. import __version__
from ._dealer import Dealer
from ._listeners import Listener
from ._process import Process
from ._settings import ServeSettings
from ._supervisor import Supervisor


def status(
    settings: ServeSettings,
    listeners: Sequence[Listener],
    supervisor: Supervisor,
    dealer: Dealer,
    processes: Mapping[int, Process],
    started_at: float,
) -> dict[str, Any]:
    """Return the state of the whole cluster; times are seconds, sizes bytes."""
    now = time.time()
    scheme = "https" if settings.tls is not None else "http"
    return {
        "pid": os.getpid(),
        "version": __version__,
        "target": settings.target.name,
        "state": supervisor.state,
        "listen": [listener.url(scheme) for listener in listeners],
        "policy": settings.supervisor.policy,
        "generation": supervisor.generation,
        "uptime": round(now - started_at, 3),
        "restarts": supervisor.restarts,
        "accepted": dealer.accepted,
        "dealt_again": dealer.dealt_again,
        "waiting": dealer.waiting,
        "duplicates": dealer.duplicates,
        "wanted": len(supervisor.slots),
        "workers": [_worker(number, supervisor, dealer, processes, now) for number in sorted(supervisor.workers)],
    }


def _worker(
    number: int, supervisor: Supervisor, dealer: Dealer, processes: Mapping[int, Process], now: float
) -> dict[str, Any]:
    record = supervisor.workers[number]
    process = processes.get(number)
    report = process.report if process is not None else None
    link = dealer.links().get(number)
    statistics = report.statistics if report is not None else None
    return {
        "number": number,
        "pid": process.pid if process is not None else 0,
        "slot": record.slot,
        "state": record.state.value,
        "generation": record.generation,
        "age": round(now - process.started_at, 3) if process is not None else 0.0,
        "dealt": link.connections if link is not None else 0,
        "rss": report.rss_bytes if report is not None else 0,
        "statistics": asdict(statistics) if is_dataclass(statistics) and not isinstance(statistics, type) else {},
    }

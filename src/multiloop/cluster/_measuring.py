"""What a worker tells about itself while somebody measures: for the dashboard, `/metrics` and `multiloop top`.

What lives here: `Measuring`. What must not: when the worker reports (`_worker`), reading any of it (`dashboard`).

Nobody measures unless the primary asks for it, for a time or for good. Then, besides the report of each second:

    each reply        one count in the page that the primary reads (`http._meter`)
    a block           where, into the page while it lasts; a Blocked message when it is over
    user metrics      what changed, in a Metrics message; rarer when collecting them takes long
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from .. import _limits as limits
from .. import health, logs
from .._wire import messages as wire
from ..http._meter import meter_into
from ..metrics._collect import Collector
from ..stats import BlockedLoop, PoolStatistics, WorkerReport
from ._page import Page
from ._service import Service


class Measuring:
    """Counts while it is asked to. `send` takes messages to the primary."""

    def __init__(self, page: Page, send: Callable[[Any], object]) -> None:
        self._page = page
        self._send = send
        self._until_s = 0.0
        self._service: Service | None = None
        self._collector: Collector | None = None
        self._collect_at_s = 0.0
        self._is_on = False
        self._off: Callable[[], None] | None = None
        self._meter = meter_into(page.meter_memory())

    def ask(self, seconds: float) -> None:
        """Measure from now on for so long; before `begin` it is remembered."""
        self._until_s = max(self._until_s, time.monotonic() + seconds)
        self._look()

    def begin(self, service: Service) -> None:
        """The worker serves: measure, if that is wanted. The loop's watchdog runs already."""
        self._service = service
        self._look()

    def beat(self) -> None:
        """The loop turns: it is not blocked. Ends the measuring when its time is over."""
        self._page.show_block(None)
        if self._is_on and time.monotonic() > self._until_s:
            self._end()

    def details(self) -> WorkerReport | None:
        """Return what belongs into a Report; None while nobody measures."""
        if not self._is_on:
            return None
        used = health.utilization()
        return WorkerReport(
            sent_at=time.monotonic(),
            idle=used.idle,
            active=used.active,
            health=health.statistics(),
            pools=_pools(),
            log=logs.statistics(),
        )

    def metrics(self, *, now: bool = False) -> wire.Metrics | None:
        """Return what changed in the user's metrics; None if nothing did, or it is too early to look again."""
        began_s = time.monotonic()
        if not self._is_on or (began_s < self._collect_at_s and not now):
            return None
        if self._collector is None:
            if "prometheus_client" not in sys.modules:
                return None
            self._collector = Collector()
        described, values = self._collector.changes()
        self._collect_at_s = began_s + (time.monotonic() - began_s) / limits.METRICS_SHARE
        return wire.Metrics(described, values) if described or values else None

    def _look(self) -> None:
        if self._is_on or self._service is None or time.monotonic() > self._until_s:
            return
        self._is_on = True
        self._service.measure(self._meter)
        watchdog = health.watch()
        watchdog.sighted = self._page.show_block
        self._off = health.on_blocked(self._blocked)

    def _end(self) -> None:
        self._is_on = False
        if self._service is not None:
            self._service.measure(None)
        health.watch().sighted = None
        if self._off is not None:
            self._off()
            self._off = None

    def _blocked(self, block: BlockedLoop) -> None:
        self._send(wire.Blocked(block))


def _pools() -> tuple[PoolStatistics, ...]:
    """Every pool of this process; nothing is loaded for it."""
    pool = sys.modules.get("multiloop.pool")
    return tuple(pool.statistics()) if pool is not None else ()

"""How the primary's work grows with the number of its workers.

What lives here: `growth`. What must not: workers' own work; it is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ._host import SimHost
from ._run import _quiet
from ._schedule import Setup


@dataclass(frozen=True, slots=True)
class Growth:
    """The primary's processor time with so many workers, in microseconds."""

    workers: int
    tick_us: float  # one look at all heartbeats and deadlines, ten times a second
    deal_us: float  # one connection: accepted, dealt, acknowledged, closed
    reload_ms: float  # all decisions of one reload, all workers replaced


def growth(workers: Sequence[int] = (1, 10, 100, 1000), *, connections: int = 2000) -> list[Growth]:
    """Measure clusters of these sizes; only the primary's own code is timed."""
    return [_measure(count, connections) for count in workers]


def _measure(workers: int, connections: int) -> Growth:
    setup = Setup(workers, 0, "round_robin", 0, grace=1.0, hang_timeout=1e6, max_requests=0)
    host = SimHost(1, setup)
    timed = _Timed(host)
    with _quiet():
        host.begin()
        host.app.supervisor._parallel = max(2, workers // 4)
        _until_quiet(host)
        timed.reset()
        host.world.run(host.world.now + 20.0, _nothing)
        tick_us = timed.seconds / 80 * 1e6
        timed.reset()
        host.clients_come(connections, 20.0)
        host.world.run(host.world.now + 20.0, _nothing)
        deal_us = max(0.0, timed.seconds / connections * 1e6 - tick_us * 80 / connections)
        _until_quiet(host)
        timed.reset()
        began = host.world.now
        outcome = host.app.reload()
        while not outcome.done():
            host.world.run(host.world.now + 1.0, _nothing)
        _until_quiet(host)
        ticks = (host.world.now - began) * 4
        reload_ms = timed.seconds * 1e3 - ticks * tick_us / 1e3
    return Growth(workers, tick_us, deal_us, reload_ms)


def _until_quiet(host: SimHost) -> None:
    host.world.run(host.world.now + 1.0, _nothing)
    while not host.is_quiet:
        host.world.run(host.world.now + 1.0, _nothing)


class _Timed:
    """Counts the processor time of everything that happens in the primary's process."""

    def __init__(self, host: SimHost) -> None:
        self.seconds = 0.0
        world, machine = host.world, host.machine
        push = world.push

        def timed_push(event: object) -> None:
            if getattr(event, "machine", None) is machine:
                callback = event.callback  # type: ignore[attr-defined]

                def call(*args: object) -> None:
                    began = time.thread_time()
                    callback(*args)
                    self.seconds += time.thread_time() - began

                event.callback = call  # type: ignore[attr-defined]
            push(event)  # type: ignore[arg-type]

        world.push = timed_push  # type: ignore[method-assign]

    def reset(self) -> None:
        self.seconds = 0.0


def _nothing() -> None:
    """No checks: they would be timed, too."""

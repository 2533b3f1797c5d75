"""What must always hold, and what must hold in the end.

What lives here: `InvariantBroken` and `Checker`, which looks at the supervisor after every event. What must not: the
rules of connections (`_kernel`, `_worker` and `_clients` check those where they happen).

After every event
* A worker is in one place; whoever is dealt to is ready; a serving worker is told to go only when its heir is open, or its
  place is given up.
* A place without a worker has one that is coming, or waits for its delay, or as many as may are starting already.
* Deaths of ready workers are answered at the rate that was promised, after the burst.
* A worker that drains is gone, or was killed, at its deadline.
In the end: every reload and restart was answered once, one generation serves, every place is filled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ... import _limits as limits
from ...cluster._states import State

if TYPE_CHECKING:
    from ...cluster._app import App

_TICK_S = 0.25
_REAP_S = 4.0  # a killed process may take this long to be gone (a disk, a debugger)


class InvariantBroken(AssertionError):
    """Something that must hold did not: a bug of ours, with the seed that shows it."""


def demand(holds: object, what: str) -> None:
    """Raise InvariantBroken unless it holds."""
    if not holds:
        raise InvariantBroken(what)


class Checker:
    """Looks at one application."""

    def __init__(self, app: App, parallel: int) -> None:
        self._app = app
        self._parallel = parallel
        self._restarted: list[float] = []  # when the replacement of one that died after ready was started
        self._died: set[int] = set()  # places whose worker died after it was ready
        self.drained = 0
        self.lowest = math.inf

    def action(self, name: str, action: Any, now: float) -> None:
        """The supervisor decided something, and it is about to be done."""
        supervisor = self._app.supervisor
        if name == "Spawn":
            demand(not supervisor.stopping, f"worker {action.number} is started while stopping")
            if action.slot in self._died and supervisor.slots[action.slot].serving is None:
                self._died.discard(action.slot)
                self._restarted.append(now)
                self._check_rate(now)
        elif name == "Drain":
            self.drained += 1
            self._check_heir(action.number)

    def died(self, slot: int | None) -> None:
        """A worker that served died by itself."""
        if slot is not None:
            self._died.add(slot)

    def _check_rate(self, now: float) -> None:
        """Restarts in any window fit the bucket: a burst, then a rate (delays may be a fifth shorter by their jitter)."""
        allowed = limits.RESTART_BURST + self._app.settings.supervisor.workers
        rate = limits.RESTART_RATE_S / (1 - limits.RESTART_JITTER)
        times = self._restarted
        for index, begin in enumerate(times):
            count = len(times) - index
            demand(count <= allowed + rate * (now - begin) + 1, f"{count} restarts in {now - begin:.1f} s")

    def _check_heir(self, number: int) -> None:
        supervisor = self._app.supervisor
        slot = supervisor.workers[number].slot
        if supervisor.stopping or slot is None or slot >= len(supervisor.slots):
            return
        place = supervisor.slots[slot]
        regrown = place.serving is None and place.coming is None  # given up by scaling, and wanted again
        demand(
            regrown or (place.serving is not None and place.serving.number != number),
            f"worker {number} drains, and nobody has its place",
        )

    def look(self, now: float, *, is_late: bool = False) -> None:
        """Look after an event; the primary `is_late` when it was stopped until a moment ago."""
        supervisor = self._app.supervisor
        seen: set[int] = set()
        starting = sum(1 for worker in supervisor.workers.values() if worker.state is State.STARTING)
        for slot in supervisor.slots:
            for worker in (slot.serving, slot.coming):
                if worker is not None:
                    demand(worker.number not in seen, f"worker {worker.number} is in two places")
                    seen.add(worker.number)
            demand(
                slot.serving is None or slot.serving.is_serving, f"place {slot.index} is served by one that does not"
            )
            is_empty = slot.serving is None and slot.coming is None
            if supervisor.booted and not supervisor.stopping and is_empty and not is_late:
                demand(
                    now < slot.retry_at + 2 * _TICK_S + 1.0 or starting >= self._parallel,
                    f"place {slot.index} is empty and nobody comes",
                )
        links = self._app.dealer.links()
        for number, worker in supervisor.workers.items():
            if worker.state is State.DRAINING and not is_late:
                demand(now <= worker.deadline + 3 * _TICK_S + 1.0, f"worker {number} drains past its deadline")
            link = links.get(number)
            if link is not None:
                demand(
                    not link.is_open or worker.state is State.READY,
                    f"worker {number} is dealt to and {worker.state.value}",
                )

    def finish(self) -> None:
        """Look when everything has come to rest."""
        supervisor = self._app.supervisor
        demand(supervisor.state == "serving", f"it rests, and is {supervisor.state}")
        generations = {slot.serving.generation for slot in supervisor.slots if slot.serving is not None}
        demand(
            generations == {supervisor.generation},
            f"generations {generations} serve, {supervisor.generation} is wanted",
        )
        wanted = len(supervisor.slots) + supervisor.settings.standby
        demand(len(supervisor.workers) == wanted, f"{len(supervisor.workers)} workers, {wanted} are wanted")

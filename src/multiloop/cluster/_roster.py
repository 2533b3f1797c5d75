"""Who is there: the records of workers and slots, and the elementary steps on them. Pure.

What lives here: `Roster`: each step changes a record and notes the action that follows. What must not: deciding when
(`_supervisor`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from .. import _limits as limits
from ._actions import Action, Activate, Close, Drain, Kill, Open, Say, Spawn, Stack, Terminate
from ._backoff import Random
from ._settings import SupervisorSettings
from ._states import Event, Slot, State, Worker


class Roster:
    """Workers, slots, and what is to be done.

    Args:
        numbers: where workers' numbers come from, shared by the applications of one primary.
    """

    def __init__(self, settings: SupervisorSettings, random: Random, numbers: Iterator[int] | None = None) -> None:
        self.settings = settings
        self.workers: dict[int, Worker] = {}
        self.slots = [Slot(index) for index in range(settings.workers)]
        self._random = random
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._actions: list[Action] = []
        self._last_tick = -math.inf

    def take_actions(self) -> list[Action]:
        """Return what is to be done, in order, and forget it."""
        actions, self._actions = self._actions, []
        return actions

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _say(self, level: str, message: str, detail: str = "") -> None:
        self._do(Say(level, message, detail))

    # -- beginnings ----------------------------------------------------------------------------------------------------
    def _spawn(self, slot: Slot | None, generation: int, now: float) -> None:
        """Start a process for a slot, or a standby."""
        index = None if slot is None else slot.index
        worker = Worker(next(self._numbers), generation, index, now)
        worker.spread = 1 + self.settings.recycle_jitter * self._random()
        self.workers[worker.number] = worker
        if slot is not None:
            slot.coming = worker
        self._do(Spawn(worker.number, generation, standby=slot is None, slot=index))

    def _activate(self, worker: Worker, slot: Slot, now: float) -> None:
        """Let a standby fill a slot."""
        if worker.move(Event.ACTIVATED):
            worker.slot, worker.started_at = slot.index, now
            slot.coming = worker
            self._do(Activate(worker.number))

    def _install(self, worker: Worker, slot: Slot, now: float) -> Worker | None:
        """A worker that is ready takes its slot; returns the one that had it, which still serves."""
        worker.ready_at = worker.last_beat = now
        old, slot.serving, slot.coming = slot.serving, worker, None
        slot.failures.clear()
        slot.said = ""
        self._do(Open(worker.number, slot.index))
        return old

    # -- ends ----------------------------------------------------------------------------------------------------------
    def _kill(self, worker: Worker, *, stack: bool = False) -> None:
        if worker.move(Event.KILL):
            worker.deadline = math.inf
            self._do(Close(worker.number))
            self._do(Kill(worker.number, stack))

    def _dismiss(self, worker: Worker, now: float, why: str, *, give_back: bool = False, fast: bool = False) -> None:
        """Let a worker go: a serving one drains, one that is not ready has nothing to finish."""
        was = worker.state
        if was is State.KILLED or (was is State.DRAINING and not fast):
            return
        grace = 0.0 if fast else self.settings.grace
        margin = limits.FAST_STOP_S if fast else limits.DRAIN_KILL_MARGIN_S
        self._vacate(worker)
        worker.move(Event.DRAIN)
        worker.why = worker.why or why
        if was in (State.STARTING, State.STANDBY):
            worker.deadline = now + margin
            self._do(Terminate(worker.number))
        else:
            worker.deadline = now + grace + margin
            self._do(Close(worker.number, pull_back=give_back))  # else nobody is left who could have it
            self._do(Drain(worker.number, grace, give_back))

    def _vacate(self, worker: Worker) -> tuple[Slot | None, Slot | None]:
        """Take a worker off its slot; returns the slot that it served, and the one that it was coming for."""
        slot = self._slot_of(worker)
        if slot is not None and slot.serving is worker:
            slot.serving = None
            return slot, None
        if slot is not None and slot.coming is worker:
            slot.coming = None
            return None, slot
        return None, None

    def _slot_of(self, worker: Worker) -> Slot | None:
        """Return the slot with the worker's index, if there still is one; it may be another worker's by now."""
        index = worker.slot
        return self.slots[index] if index is not None and index < len(self.slots) else None

    # -- heartbeats ----------------------------------------------------------------------------------------------------
    def _take_beats(self, now: float, beats: Mapping[int, float]) -> None:
        """Note when each worker's loop last turned."""
        stalled = now - self._last_tick > limits.STALLED_S
        self._last_tick = now
        for number, at in beats.items():
            worker = self.workers.get(number)
            if worker is not None and at > worker.last_beat:
                worker.last_beat = at
        if stalled:
            # The primary itself did not run (stopped, suspended): the others had no chance to prove themselves.
            for worker in self.workers.values():
                worker.last_beat = max(worker.last_beat, now)

    def _feel_pulse(self, worker: Worker, now: float) -> bool:
        """Route around a worker whose loop has fallen silent, and back when it turns again; whether one happened."""
        event, number = worker.pulse(now), worker.number
        if event is None:
            return False
        worker.move(event)
        if event is Event.MISSED:
            silent_s = now - worker.last_beat
            self._do(Close(number))
            self._say("warning", f"worker {number}: its loop is blocked ({silent_s:.2f} s): routed around")
            self._do(Stack(number))
        else:
            self._say("info", f"worker {number}: its loop turns again")
            if worker.slot is not None:
                self._do(Open(number, worker.slot))
        return True

    # -- counts --------------------------------------------------------------------------------------------------------
    def _starting(self) -> int:
        return sum(1 for worker in self.workers.values() if worker.state is State.STARTING)

    def _replacing(self) -> int:
        return sum(1 for slot in self.slots if slot.coming is not None and slot.serving is not None)

    def _standby_with(self, generation: int) -> Worker | None:
        """Return a standby worker that has the code of this generation."""
        for worker in self.workers.values():
            if worker.state is State.STANDBY and worker.generation == generation:
                return worker
        return None

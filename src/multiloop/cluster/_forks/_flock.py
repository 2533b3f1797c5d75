"""The workers of a program that looks after them itself: only their heartbeats are watched. Pure.

What lives here: `Flock`: events and time in, actions out, as the supervisor (`_supervisor`), which takes its place in a
program that has one. What must not: starting, replacing, killing: the program decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import random

from ..._wire.messages import Report
from .._actions import Close, Open
from .._roster import Roster
from .._settings import SupervisorSettings
from .._states import Event, Worker


class Flock(Roster):
    """Who may have connections: workers whose loop runs, turns, and that do not leave."""

    wants_reports = False

    def __init__(self) -> None:
        super().__init__(SupervisorSettings(workers=0), random)

    def forked(self, number: int, seat: int, now: float) -> None:
        """A worker was started."""
        self.workers[number] = Worker(number, 1, seat, now)

    def attached(self, number: int, now: float) -> None:
        """Its loop runs."""
        worker = self.workers.get(number)
        if worker is not None and worker.slot is not None and worker.move(Event.READY):
            worker.ready_at = worker.last_beat = now
            self._do(Open(number, worker.slot))

    def leaving(self, number: int, now: float) -> None:
        """It was told to disconnect, or does so by itself."""
        worker = self.workers.get(number)
        if worker is not None and worker.move(Event.DRAIN):
            self._do(Close(number))

    def hung_up(self, number: int, now: float) -> None:
        """Its channel is closed: it leaves, or is dead."""
        self.leaving(number, now)

    def listening(self, number: int, now: float) -> None:
        """It listens: news for a supervisor."""

    def reported(self, number: int, report: Report, now: float) -> None:
        """Its statistics: news for a supervisor."""

    def exited(self, number: int, how: str, now: float) -> None:
        """It is gone."""
        self.workers.pop(number, None)

    def tick(self, now: float, beats: Mapping[int, float]) -> None:
        """Time passes. `beats` is when each worker's loop last turned."""
        self._take_beats(now, beats)
        for worker in self.workers.values():
            self._feel_pulse(worker, now)

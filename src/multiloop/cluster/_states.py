"""The life of a worker, as a table. Pure.

What lives here: the states, what moves a worker from one to the next, and the records that the supervisor keeps.
What must not: deciding (`_supervisor`), processes.

    STARTING ─IMPORTED→ STANDBY ─ACTIVATED→ STARTING ─READY→ READY ⇄ (MISSED, HEARD) ⇄ SILENT
    any of them ─DRAIN→ DRAINING, any ─KILL→ KILLED; the process's exit ends the record from every state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from .. import _limits as limits


class State(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"  # importing the application, or its lifespan is starting
    STANDBY = "standby"  # imported, its lifespan not started, waiting to be needed
    READY = "ready"  # takes connections
    SILENT = "silent"  # was ready and its loop does not turn: gets no connections
    DRAINING = "draining"  # finishes what it has, then leaves
    KILLED = "killed"  # was sent SIGKILL and is not gone yet


class Event(Enum):
    """What moves a worker."""

    IMPORTED = "imported"
    ACTIVATED = "activated"
    READY = "ready"
    MISSED = "missed"
    HEARD = "heard"
    DRAIN = "drain"
    KILL = "kill"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.IMPORTED): State.STANDBY,
    (State.STANDBY, Event.ACTIVATED): State.STARTING,
    (State.STARTING, Event.READY): State.READY,
    (State.READY, Event.MISSED): State.SILENT,
    (State.SILENT, Event.HEARD): State.READY,
    (State.STARTING, Event.DRAIN): State.DRAINING,
    (State.STANDBY, Event.DRAIN): State.DRAINING,
    (State.READY, Event.DRAIN): State.DRAINING,
    (State.SILENT, Event.DRAIN): State.DRAINING,
    (State.STARTING, Event.KILL): State.KILLED,
    (State.STANDBY, Event.KILL): State.KILLED,
    (State.READY, Event.KILL): State.KILLED,
    (State.SILENT, Event.KILL): State.KILLED,
    (State.DRAINING, Event.KILL): State.KILLED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker did not become ready, or died."""

    reason: str  # one line
    details: str = ""  # its traceback
    exit_code: int | None = None  # what the primary ends with when this happens at boot


class Recycle(NamedTuple):
    """Why a worker that serves is to be replaced."""

    kind: str  # requests | memory | lifetime | asked; what is counted
    text: str  # for the log


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended, for those who look back."""

    number: int
    slot: int | None
    generation: int
    why: str  # what the supervisor knows of the reason: "recycled: 500 requests served", "died (SIGSEGV)"
    how: str  # what the process said: "exit code 0", "SIGKILL"
    at: float


@dataclass(slots=True)
class Worker:
    """The supervisor's record of one process."""

    number: int
    generation: int
    slot: int | None  # None: a standby that no slot needed yet
    started_at: float
    state: State = State.STARTING
    ready_at: float = math.inf
    last_beat: float = 0.0
    deadline: float = math.inf  # when a draining or failing worker is killed
    failure: Failure | None = None
    recycle: Recycle | None = None  # why it is to be replaced
    why: str = ""  # why it leaves, or died
    spread: float = 1.0  # its own factor on the recycling limits, so that workers do not go together

    def move(self, event: Event) -> bool:
        """Take a step of the table. False: this event means nothing in this state (it came too late)."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            return False
        self.state = state
        return True

    def pulse(self, now: float) -> Event | None:
        """Return MISSED when its loop has fallen silent, HEARD when it turns again; None when nothing is new."""
        is_silent = now - self.last_beat > limits.HEARTBEAT_MISSED_S
        if self.state is State.READY and is_silent:
            return Event.MISSED
        if self.state is State.SILENT and not is_silent:
            return Event.HEARD
        return None

    @property
    def is_serving(self) -> bool:
        """Whether it holds its slot."""
        return self.state is State.READY or self.state is State.SILENT


@dataclass(slots=True)
class Slot:
    """A place that one worker is to fill. During a replacement a second one is on its way."""

    index: int
    serving: Worker | None = None
    coming: Worker | None = None
    retry_at: float = -math.inf  # no new start before
    failures: list[float] = field(default_factory=list)  # when starts failed, since one became ready
    said: str = ""  # the last failure that was logged in full
    restarts: list[int] = field(default_factory=list)  # those who wait until its worker was replaced


@dataclass(slots=True)
class Reload:
    """A reload on its way."""

    generation: int
    tokens: list[int]  # those who wait for its outcome
    proven: bool = False  # a worker with the new code became ready
    failures: int = 0


@dataclass(slots=True)
class Standby:
    """When the next standby may be started, and when starts failed."""

    retry_at: float = -math.inf
    failures: list[float] = field(default_factory=list)

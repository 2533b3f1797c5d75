"""Staying awake for a moment after a message, where the next one is likely to come at once.

What lives here: `Vigil`, one for each loop. What must not: who sends messages.

Waking a loop that sleeps on another core takes longer than answering a small message, so two loops that talk to and fro
spend most of the time waking each other. A loop that got a message soon after the one before therefore goes on turning
for at most 100 µs, with all that a turn does (timers fire, sockets are read), before it sleeps.

* One that waited long for its message sleeps at once: a program that is idle, or that gets a message now and then, never
  stays awake.
* Where others want its core, or the interpreter's lock, it does not stay awake for a while: whoever is always awake has used
  up its turn when it is needed.
"""

from __future__ import annotations

import contextvars
import os
import time

from ._hub import Hub

_AWAKE_NS = 100_000  # at most this long after a message
_SOON_NS = 200_000  # a message that comes sooner after the one before is followed by a vigil
_LOOK_NS = 1_000_000  # how often it is asked whether others want the core
_TAKEN = 0.25  # they do, when this part of the time was not ours
_CALM_NS = 10_000_000  # then it sleeps at once for this time, doubled …
_CALM_MOST_NS = 2_000_000_000  # … up to this while it goes on

_now = time.monotonic_ns
_cpu = time.thread_time_ns


def _has_cores() -> bool:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return count != 1


class Vigil:
    """Keeps one loop turning between messages that come in quick succession."""

    __slots__ = (
        "_calm",
        "_calm_until",
        "_context",
        "_cpu_at",
        "_is_on",
        "_is_possible",
        "_looked",
        "_loop",
        "_message",
        "_until",
    )

    def __init__(self, of: Hub) -> None:
        self._loop = of.loop
        self._context = contextvars.Context()
        self._is_possible = _has_cores()
        self._is_on = False
        self._message = 0  # when the last one came
        self._until = 0
        self._looked = self._cpu_at = 0
        self._calm = _CALM_NS
        self._calm_until = 0

    def message(self) -> None:
        """A message has come: stay awake for the next one, if it is likely to come at once."""
        now = _now()
        before, self._message = self._message, now
        if now - before < _SOON_NS and self._is_possible:
            self._until = now + _AWAKE_NS
            if not self._is_on and now > self._calm_until:
                self._is_on = True
                self._looked, self._cpu_at = now, _cpu()
                self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        now = _now()
        if now - self._looked > _LOOK_NS and self._is_disturbed(now):
            self._calm_until = now + self._calm
            self._calm = min(2 * self._calm, _CALM_MOST_NS)
            self._is_on = False
        elif now > self._until:
            self._is_on = False
        else:
            self._loop.call_soon(self._turn, context=self._context)

    def _is_disturbed(self, now: int) -> bool:
        used = _cpu()
        taken = (now - self._looked) - (used - self._cpu_at)
        disturbed = taken > (now - self._looked) * _TAKEN
        self._looked, self._cpu_at = now, used
        if not disturbed:
            self._calm = max(_CALM_NS, self._calm - self._calm // 4)  # a hiccup of the machine is soon forgotten
        return disturbed


def vigil_of(of: Hub) -> Vigil:
    """Return the vigil of this loop; made on first use."""
    if of.vigil is None:
        of.vigil = Vigil(of)
    return of.vigil

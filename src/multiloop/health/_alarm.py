"""The alarm of the watchdog's side thread: a sleep that each beat of a busy loop makes longer.

What lives here: `Alarm` in plain Python, and which form is taken. What must not: what the thread does when it wakes
(`_watchdog`).

A thread that wakes beside a loop that computes has to get the interpreter's lock from it. Where the loop lets go of the
lock for a moment in each turn and takes it again, that may need tens of milliseconds, and each time the waiting thread is
woken in vain: it costs a few per cent of a core. So, in the compiled form, who sleeps here does not wake while beats come.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from _thread import allocate_lock

from ._threads import read_clocks


class Alarm:
    """A sleep for one thread. Any thread may `prolong` or `ring`."""

    def __init__(self) -> None:
        self._rung = allocate_lock()  # free once it has rung
        self._rung.acquire()

    def prolong(self, until_s: float) -> None:
        """Let a sleep under way that may be prolonged go on until then, by the monotonic clock. Wakes nobody.

        The plain form does not hear of it: its sleeper wakes, sees that there was a beat, and sleeps again.
        """

    def ring(self) -> None:
        """End this sleep, and each one after it. To be called once."""
        self._rung.release()

    def sleep(self, until_s: float, most_s: float, clocks: dict[int, int]) -> tuple[float, dict[int, float]]:
        """Sleep until `until_s`, or what it was prolonged to, but not past `most_s`; both by the monotonic clock.

        Returns when that was, which is before now if somebody held the interpreter's lock, and what these clocks of threads
        said then (in plain Python: what they said before). Clocks of threads that have ended are missing.
        """
        used_s = read_clocks(clocks)
        if self._rung.acquire(True, max(until_s - time.monotonic(), 0.0)):
            self._rung.release()
            return min(until_s, time.monotonic()), used_s
        return until_s, used_s


FORM: type[Alarm] = Alarm
"""The form that is taken here."""

with contextlib.suppress(ImportError):  # plain Python runs, or another system
    FORM = importlib.import_module("multiloop.health._alarm_clock").Alarm

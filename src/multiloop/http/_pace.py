"""How long a request takes in this process, as a rule: for policies that deal by load.

What lives here: `Pace`, and whether this process keeps one. What must not: whom it is told (`cluster._page`), what a
policy makes of it (`cluster._policy`).

A mean would not do: one stream of ten seconds among thousand requests of a millisecond makes ten of that. The geometric
mean of the last 64 moves by a hundredth then, and still by all of it where every request is slow.
"""

from __future__ import annotations

from math import exp, log
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._exchange import Exchange

_LAST = 64
_LEAST_S = 1e-6
_HALF_LIFE_S = 1.0  # without a reply: what was true then is true no more, and somebody has to try


class Pace:
    """The usual duration of a request, from its head to the end of the reply. The longer nothing ends, the less it says."""

    def __init__(self) -> None:
        self._log = 0.0
        self._weight = 0.0  # how many replies stand behind it, at most _LAST
        self._ended_at_s = perf_counter()

    def ended(self, exchange: Exchange) -> None:
        """Count a reply that has ended (what `HttpService` calls)."""
        now = perf_counter()
        self.count(now - exchange.started_at_s, now)

    def count(self, seconds: float, now: float) -> None:
        """Count a reply that took so long."""
        silent_s = now - self._ended_at_s
        if silent_s > 0.1:
            self._weight *= 0.5 ** (silent_s / _HALF_LIFE_S)
        self._ended_at_s = now
        self._weight = min(self._weight + 1.0, _LAST)
        self._log += (log(max(seconds, _LEAST_S)) - self._log) / max(self._weight, 1.0)

    def typical_s(self, now: float) -> float:
        """Return the usual duration in seconds; 0 while nothing has ended, and halved by each second of silence."""
        if not self._weight:
            return 0.0
        faded: float = 0.5 ** (max(now - self._ended_at_s, 0.0) / _HALF_LIFE_S)
        return exp(self._log) * faded


_kept: Pace | None = None


def keep_pace() -> Pace:
    """Have every server that is made in this process from now on tell its pace; returns it."""
    global _kept
    if _kept is None:
        _kept = Pace()
    return _kept


def kept_pace() -> Pace | None:
    """Return this process's pace; None if nobody asked for it."""
    return _kept

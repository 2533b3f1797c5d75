"""How soon a worker may be started again. Pure: time and randomness are arguments.

What lives here: the delay after a start that failed, and the intensity that deaths after ready are held to.
What must not: what died and why.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import _limits as limits
from ._settings import SupervisorSettings

Random = Callable[[], float]  # uniform in [0, 1)


def jittered(delay_s: float, random: Random) -> float:
    """Spread a delay, so that many that failed together do not start together."""
    return delay_s * (1 + limits.RESTART_JITTER * (2 * random() - 1))


def delay_after_failures(failures: list[float], now: float, settings: SupervisorSettings, random: Random) -> float:
    """Return how long to wait after a start that failed.

    `failures` are the times at which starts failed since one became ready, the last one included. The delay doubles;
    with `restart_max` failures within `restart_window` it is the longest one at once.
    """
    recent = sum(1 for at in failures if at > now - settings.restart_window)
    if recent >= settings.restart_max:
        return jittered(limits.RESTART_DELAY_MAX_S, random)
    doubled = limits.RESTART_DELAY_FIRST_S * 2 ** min(len(failures) - 1, 30)
    return jittered(min(doubled, limits.RESTART_DELAY_MAX_S), random)


class Intensity:
    """Deaths after ready: a burst is answered at once, then restarts are held to a rate (a token bucket)."""

    __slots__ = ("_at", "_burst", "_random", "_tokens")

    def __init__(self, burst: int, random: Random) -> None:
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = 0.0
        self._random = random

    def delay(self, now: float) -> float:
        """Count one death; return how long its replacement must wait: 0.0 within the intensity."""
        rate = limits.RESTART_RATE_S
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * rate)
        self._at = now
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0.0 else jittered(-self._tokens / rate, self._random)

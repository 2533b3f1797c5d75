"""Time that a test moves.

What lives here: `FakeClock`, for everything pure that takes the time as a callable or an argument. What must not: loops.
"""

from __future__ import annotations


class FakeClock:
    """A clock that stands still until it is told to go on. Call it for the time, in seconds.

        clock = FakeClock()
        service.clock = clock
        clock.advance(10)

    It never goes back, as `time.monotonic` never does.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the time."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new time. ValueError for a negative time."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds
        return self._now

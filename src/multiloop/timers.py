"""Timers: set_timeout, set_interval, set_immediate, next_tick, sleep.

What lives here: Node's timers on asyncio's clock, counted. What must not: the tick queue itself (`loop._hub`).

Promises that hold, each pinned by a test
* T1 a timer never fires early, and timers of the same duration fire in the order they were set. Delays are seconds; one
  below 1 ms, not finite or over 2^31-1 ms counts as 1 ms, as in Node.
* T2 an interval's next due time is the start of its callback plus the period; a callback that raises does not stop it.
* T3 an unref'd timer fires while something else keeps the program going.
* T4 `refresh()` re-arms from now with the same duration, also inside the callback and after firing.
* L6 immediates queued while immediates run wait for the next turn; one that raises loses none of the others.
* L4 `next_tick` callbacks run before any other callback of ours, after the one that queued them.
What does not hold on asyncio: microtasks have no priority over callbacks, and there is no check phase: immediates run
on the loop's next turn, in no promised order against I/O.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .loop import Handle, Hub, hub

_LONGEST_S = (2**31 - 1) / 1000
_CLOCK_ERROR_S = 1e-6  # of adding and subtracting seconds as floats


def _duration(delay: float) -> float:
    if not isinstance(delay, int | float):
        raise TypeError(f"a delay is a number of seconds, not {type(delay).__name__}")
    if not math.isfinite(delay) or delay < 0.001 or delay > _LONGEST_S:
        return 0.001
    return float(delay)


def _counts_milliseconds(loop: asyncio.AbstractEventLoop) -> bool:
    return type(loop).__module__ == "uvloop"


def _now(loop: asyncio.AbstractEventLoop) -> float:
    # uvloop's own time stands still during a turn of the loop; other loops may have a clock of their own (tests).
    return time.monotonic() if _counts_milliseconds(loop) else loop.time()


class Timer(Handle):
    """A timer that set_timeout or set_interval returned. Cancel it, refresh it, or unref it."""

    __slots__ = ("_args", "_callback", "_context", "_delay_s", "_due_s", "_repeat", "_scheduled")

    def __init__(
        self, of: Hub, callback: Callable[..., Any], delay: float, args: tuple[Any, ...], repeat: bool
    ) -> None:
        super().__init__()
        if not callable(callback):
            raise TypeError(f"a timer's callback must be callable, not {type(callback).__name__}")
        self._hub = of
        self._callback = callback
        self._args = args
        self._delay_s = _duration(delay)
        self._repeat = repeat
        self._context = contextvars.copy_context()
        self._scheduled: asyncio.TimerHandle | None = None
        self._arm(_now(of.loop))

    def _arm(self, now_s: float) -> None:
        self._opened(self._hub)
        self._due_s = now_s + self._delay_s
        self._schedule()

    def _schedule(self) -> None:
        loop = self._hub.loop
        if _counts_milliseconds(loop):
            # Its time is the millisecond in which this turn began: counted from there, nothing is early, and timers of
            # one duration keep their order.
            wait_ms = math.ceil(round((self._due_s - loop.time()) * 1000, 6))
            self._scheduled = loop.call_later(max(1, wait_ms) / 1000, self._fire, context=self._context)
        else:
            self._scheduled = loop.call_at(self._due_s, self._fire, context=self._context)

    def _fire(self) -> None:
        now_s = _now(self._hub.loop)
        if now_s < self._due_s - _CLOCK_ERROR_S:
            self._schedule()
            return
        self._scheduled = None
        if self._repeat:
            self._arm(now_s)
        try:
            self._hub.call(self._callback, *self._args)
        finally:
            if self._scheduled is None:
                self._ended()

    def cancel(self) -> None:
        """Stop it; safe at any time, also twice and inside its own callback."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        self._repeat = False
        self._ended()

    def refresh(self) -> Timer:
        """Start the same duration again from now; also revives a timer that has fired. Returns itself."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._arm(_now(self._hub.loop))
        return self

    def _shutdown(self) -> None:
        self.cancel()

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Timer {self._delay_s} s {'armed' if self._scheduled else 'idle'}>"


def set_timeout(callback: Callable[..., Any], delay: float = 0.001, *args: Any) -> Timer:
    """Call `callback(*args)` once, `delay` seconds from now or a little later, never earlier."""
    return Timer(hub(), callback, delay, args, repeat=False)


def set_interval(callback: Callable[..., Any], delay: float = 0.001, *args: Any) -> Timer:
    """Call `callback(*args)` every `delay` seconds until cancelled, counted from the start of each call."""
    return Timer(hub(), callback, delay, args, repeat=True)


class Immediate(Handle):
    """A callback that set_immediate queued. Cancel it or unref it."""

    __slots__ = ("_args", "_callback", "_context")

    def __init__(self, of: Hub, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        if not callable(callback):
            raise TypeError(f"an immediate's callback must be callable, not {type(callback).__name__}")
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context()
        self._opened(of)

    def cancel(self) -> None:
        """Do not call it; safe at any time."""
        self._ended()

    def _shutdown(self) -> None:
        self._ended()


class _Immediates:
    """The immediates of one loop: one turn runs those that were queued before it began."""

    __slots__ = ("hub", "queue", "scheduled")

    def __init__(self, of: Hub) -> None:
        self.hub = of
        self.queue: deque[Immediate] = deque()
        self.scheduled = False

    def add(self, immediate: Immediate) -> None:
        self.queue.append(immediate)
        if not self.scheduled:
            self.scheduled = True
            self.hub.loop.call_soon(self._turn)

    def _turn(self) -> None:
        batch, self.queue = self.queue, deque()
        self.scheduled = False
        while batch:
            immediate = batch.popleft()
            if not immediate._alive:
                continue
            immediate._ended()
            try:
                immediate._context.run(self.hub.call, immediate._callback, *immediate._args)
            except BaseException:  # SystemExit leaves the loop: the rest must not be lost with it
                self.queue.extendleft(reversed(batch))
                if self.queue and not self.scheduled:
                    self.scheduled = True
                    self.hub.loop.call_soon(self._turn)
                raise


def set_immediate(callback: Callable[..., Any], *args: Any) -> Immediate:
    """Call `callback(*args)` on the loop's next turn."""
    of = hub()
    immediate = Immediate(of, callback, args)
    try:
        queue: _Immediates = of.loop._multiloop_immediates  # type: ignore[attr-defined]
    except AttributeError:
        queue = of.loop._multiloop_immediates = _Immediates(of)  # type: ignore[attr-defined]
    queue.add(immediate)
    return immediate


def next_tick(callback: Callable[..., Any], *args: Any) -> None:
    """Call `callback(*args)` right after the current callback of ours, before any other. Recursion starves I/O."""
    if not callable(callback):
        raise TypeError(f"next_tick's callback must be callable, not {type(callback).__name__}")
    hub().next_tick(callback, args)


async def sleep(seconds: float) -> None:
    """Wait without blocking the loop. Never shorter than asked."""
    of = hub()
    woken: asyncio.Future[None] = of.loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = Timer(of, wake, seconds, (), repeat=False)
    try:
        await woken
    finally:
        timer.cancel()

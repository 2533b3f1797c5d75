"""Timers: set_timeout, set_interval, set_immediate, next_tick, sleep, interval.

What lives here: Node's timers on asyncio's clock, counted. What must not: the tick queue itself (`loop._hub`).

Promises that hold, each pinned by a test
* T1 a timer never fires early, and timers of the same duration fire in the order they were set. Delays are seconds; one
  below 1 ms counts as 1 ms, and as in Node one over 2^31-1 ms, too, with a warning.
* T2 an interval's next due time is the start of its callback plus the period; a callback that raises does not stop it.
* T3 an unref'd timer fires while something else keeps the program going.
* T4 `refresh()` re-arms from now with the same duration, also inside the callback and after firing; after `cancel()`
  it does nothing.
* T5 `cancel()` is safe at any time.
* T6 `sleep` and `interval` are awaited; cancelling the awaiter ends them.
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
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar, overload

from .errors import TimeoutOverflowWarning
from .loop import CallbackOperation, ErrorFirst, Handle, Hub, hub, launch

T = TypeVar("T")

_LONGEST_S = (2**31 - 1) / 1000
_CLOCK_ERROR_S = 1e-6  # of adding and subtracting seconds as floats


def _check(delay: float) -> None:
    if not isinstance(delay, int | float):
        raise TypeError(f"a delay is a number of seconds, not {type(delay).__name__}")


def _duration(delay: float) -> float:
    _check(delay)
    if 0.001 <= delay <= _LONGEST_S:
        return float(delay)
    if not delay <= _LONGEST_S:  # or no number
        message = f"a delay of {delay} s does not fit a timer (at most {_LONGEST_S:.0f} s): it fires after 1 ms"
        warnings.warn(TimeoutOverflowWarning(message), stacklevel=4)
    return 0.001


def _counts_milliseconds(loop: asyncio.AbstractEventLoop) -> bool:
    return type(loop).__module__ == "uvloop"


def _now(loop: asyncio.AbstractEventLoop) -> float:
    # uvloop's own time stands still during a turn of the loop; other loops may have a clock of their own (tests).
    return time.monotonic() if _counts_milliseconds(loop) else loop.time()


class Timer(Handle):
    """A timer that set_timeout or set_interval returned. Cancel it, refresh it, or unref it."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_delay_s", "_due_s", "_repeat", "_scheduled")

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
        self._cancelled = False
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
        """Stop it for good; safe at any time, also twice and inside its own callback."""
        self._cancelled = True
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        self._repeat = False
        self._ended()

    def refresh(self) -> Timer:
        """Start the same duration again from now; also revives a timer that has fired, not one that was cancelled.

        Returns itself.
        """
        if not self._cancelled:
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


@overload
def sleep(seconds: float, result: T | None = None) -> Coroutine[Any, Any, T | None]: ...
@overload
def sleep(seconds: float, result: T | None = None, *, callback: ErrorFirst) -> CallbackOperation[T | None]: ...
def sleep(
    seconds: float, result: T | None = None, *, callback: ErrorFirst | None = None
) -> Coroutine[Any, Any, T | None] | CallbackOperation[T | None]:
    """Wait without blocking the loop, never shorter than asked (for ever with infinity); returns `result`.

    Raises ValueError for NaN, TypeError for what is no number.
    """
    sleeping = _sleep(seconds, result)
    return sleeping if callback is None else launch(sleeping, callback)


async def _sleep(seconds: float, result: T | None) -> T | None:
    of = hub()
    _check(seconds)
    if math.isnan(seconds):
        raise ValueError("sleep(nan): how long?")
    while seconds > _LONGEST_S:
        await _wait(of, _LONGEST_S)
        seconds -= _LONGEST_S
    await _wait(of, seconds)
    return result


async def _wait(of: Hub, seconds: float) -> None:
    woken: asyncio.Future[None] = of.loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = Timer(of, wake, seconds, (), repeat=False)
    try:
        await woken
    finally:
        timer.cancel()


def interval(seconds: float, value: T | None = None) -> AsyncGenerator[T | None, None]:
    """Iterate over the times of an interval: `async for _ in timers.interval(0.5): ...`, each time with `value`.

    The first comes after `seconds`, the next so long after the time before it. A body that takes longer is called again
    at once, once: times that it missed are not made up for.
    """
    return _interval(hub(), _duration(seconds), value)


async def _interval(of: Hub, duration_s: float, value: T | None) -> AsyncGenerator[T | None, None]:
    due_s = _now(of.loop) + duration_s
    while True:
        await _wait(of, due_s - _now(of.loop))
        yield value
        due_s = max(due_s + duration_s, _now(of.loop))

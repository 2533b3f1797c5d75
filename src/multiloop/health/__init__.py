"""health: is the loop doing well, and who blocks it?

What lives here: `watch` (the blocked-loop watchdog), `on_blocked`, `loop_delay`, `utilization`, `statistics`, and the door
to the guard against blocking calls. What must not: mending anything.

    health.watch()                                    # logs: the event loop was blocked for 0.41 s at app.py:12 in slow
    health.on_blocked(lambda report: alert(report.file, report.line, report.duration))
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .._limits import BLOCKED_LOOP_S, LOOP_DELAY_RESOLUTION_S
from ..loop import Hub, hub
from ..stats import BlockedLoop as BlockedLoop
from ..stats import BlockingCall as BlockingCall
from ..stats import HealthStatistics as HealthStatistics
from ._delay import LoopDelay as LoopDelay
from ._requests import Served as Served
from ._requests import name_requests as name_requests
from ._watchdog import Watchdog as Watchdog

if TYPE_CHECKING:
    from ._guard import Guard as Guard
    from ._guard import allow_blocking_calls as allow_blocking_calls
    from ._guard import guard_blocking_calls as guard_blocking_calls

current_request: Any = None
"""What the loop works on, for the reports: text, or anything with `method` and `path`. A server that calls handlers on
the loop sets it before the call and to None after (two stores); servers whose handlers are tasks use `name_requests`.
It is for a process with one loop."""


class Utilization(NamedTuple):
    """How a loop spent its time, in seconds: waiting for events, or active; and the share that was active (0 to 1)."""

    idle: float
    active: float
    utilization: float


class _State:
    """What health keeps for one loop."""

    __slots__ = ("began_cpu_s", "began_s", "watchdog")

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.began_cpu_s = time.thread_time()
        self.watchdog: Watchdog | None = None


def _state(of: Hub) -> _State:
    try:
        return of.loop._multiloop_health  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        made = of.loop._multiloop_health = _State()  # type: ignore[attr-defined]
        return made


def watch(threshold: float = BLOCKED_LOOP_S) -> Watchdog:
    """Watch the running loop from now on: when it is blocked for `threshold` seconds or more, say so, once.

    Logged as a warning of `multiloop.health`: how long, file and line of your own code, the request if known, then the
    stack. A block of more than 2 s is logged while it lasts. Calling it again gives the same watchdog; with another
    threshold, a new one in its place. On a free-threaded build stacks cannot be read safely: reports have no place.

    Raises:
        UsageError: the threshold is below 0.005 s or over an hour.
        RuntimeError: no loop runs in this thread.
    """
    of = hub()
    state = _state(of)
    before = state.watchdog
    if before is not None and before._alive:
        if before.threshold == threshold:
            return before
        before.stop()
    state.watchdog = made = Watchdog(of, threshold, _read_current_request)
    if before is not None:
        made.callbacks, made.on_wake = before.callbacks, before.on_wake
    return made


def _read_current_request() -> Any:
    return current_request


def on_blocked(callback: Callable[[BlockedLoop], Any]) -> Callable[[], None]:
    """Call `callback(report)` after each time that the running loop was blocked; starts `watch()` if it is not on.

    The callback runs on the loop, when that is free again; it may be async. Returns a function that ends it.
    """
    watchdog = _state(hub()).watchdog
    if watchdog is None or not watchdog._alive:
        watchdog = watch()
    callbacks = watchdog.callbacks
    callbacks.append(callback)

    def off() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return off


def loop_delay(resolution: float = LOOP_DELAY_RESOLUTION_S) -> LoopDelay:
    """Start measuring how late the running loop is, every `resolution` seconds: min, max, mean, p50, p99.

    Raises UsageError for a resolution below 0.001 s or over a minute.
    """
    return LoopDelay(hub(), resolution)


def utilization(since: Utilization | None = None) -> Utilization:
    """Return how the running loop spent its time since it was first asked about, or `since` an earlier answer.

    Active is the processor time of its thread, and time in which it was blocked without using a core (`watch()` knows).
    """
    state = _state(hub())
    wall_s = time.monotonic() - state.began_s
    active_s = time.thread_time() - state.began_cpu_s
    if state.watchdog is not None:
        active_s += state.watchdog.blocked_without_cpu_s
    active_s = min(active_s, wall_s)
    idle_s = wall_s - active_s
    if since is not None:
        idle_s, active_s = max(0.0, idle_s - since.idle), max(0.0, active_s - since.active)
    total_s = idle_s + active_s
    return Utilization(idle_s, active_s, active_s / total_s if total_s else 0.0)


def statistics() -> HealthStatistics:
    """Return a frozen snapshot of the running loop's health. What needs `watch()` is 0 without it."""
    here = hub()
    watchdog = _state(here).watchdog
    used = utilization()
    if watchdog is None:
        return HealthStatistics(utilization=used.utilization, handles=here.refs, blocking_calls=_blocking_calls())
    return HealthStatistics(
        watching=watchdog._alive,
        threshold=watchdog.threshold,
        utilization=used.utilization,
        blocked_count=watchdog.blocked_count,
        blocked_seconds=watchdog.blocked_s,
        last_blocked=watchdog.last,
        longest_blocked=watchdog.longest,
        loop_delay=watchdog.delays.snapshot(),
        handles=here.refs,
        blocking_calls=_blocking_calls(),
    )


def _blocking_calls() -> int:
    guard = sys.modules.get(f"{__name__}._guard")
    return 0 if guard is None else int(guard.count_found())


def __getattr__(name: str) -> Any:
    # Found late: the guard is for development, and most processes load none of it.
    if name not in ("Guard", "allow_blocking_calls", "guard_blocking_calls"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("._guard", __name__), name)
    globals()[name] = value
    return value

"""The watchdog: notices that the loop is blocked, looks at what blocks it while it does, and says so once.

What lives here: `Watchdog`: the beat on the loop, the side thread that listens to it, the report. What must not: reading
stacks (`_stack`), killing (a cluster's primary does that by the heartbeat of its own).

    beat (a timer on the loop, every `threshold`; twice as often while the loop is busy)
      ║ half-way between two beats the side thread looks whether the loop waits for events (not while busy)
      ║ a beat is overdue: it looks at the loop's stack, again and again until the next beat, then reports

* Cost when idle: one wake-up of the loop and one of the thread per `threshold`. No locks are shared with the loop.
* What blocks for 1.3 times `threshold` is always reported, what blocks for less than 0.7 times never. The beginning of a
  block lies between two looks and is taken in the middle, so that durations are right within a quarter of `threshold`,
  and closer when the loop computes.
* A call into C that holds the interpreter's lock holds the side thread as well; it looks at the stack in the moment in
  which that call returns, so the line is right.
* A loop that waits for events while its beat is overdue is not blocked: the machine or the process was stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .._limits import BLOCKED_LOOP_LONG_S
from ..errors import UsageError
from ..loop import Handle, Hub
from ..stats import BlockedLoop
from . import _stack
from ._histogram import Histogram

log = logging.getLogger("multiloop.health")

_BUSY_SHARE = 0.2  # of a core: a loop that computes more is beaten more often
_FASTER = 2
_LOOK_AGAIN_MAX_S = 0.5
_JOIN_S = 1.0


class Watchdog(Handle):
    """Watches the running loop. `stop()` ends it; the end of the loop's program does, too. Never keeps it going."""

    def __init__(self, of: Hub, threshold_s: float, request: Callable[[], Any]) -> None:
        super().__init__()
        if not 0.005 <= threshold_s <= 3600:
            raise UsageError(f"watch(threshold={threshold_s}): seconds between 0.005 and 3600")
        self.threshold = threshold_s
        self.callbacks: list[Callable[[BlockedLoop], Any]] = []
        self.delays = Histogram()
        self.blocked_count = 0
        self.blocked_s = 0.0
        self.longest: BlockedLoop | None = None
        self.last: BlockedLoop | None = None
        self.blocked_without_cpu_s = 0.0  # waited for inside callbacks: active, though no core was used
        self._request = request
        self._thread_id = threading.get_ident()
        self._cpu_clock = _cpu_clock(self._thread_id)
        self._base = _stack.Base()
        self._beats = 0
        self._is_busy = False
        self._beat_at = time.monotonic()
        self._due = self._beat_at + threshold_s
        self._cpu_s = self._cpu()
        self._stopped = threading.Event()
        self.unref()
        self._opened(of)
        self._timer: asyncio.Handle = of.loop.call_soon(self._beat)  # the first one finds the frame below the loop
        self._thread = _start_thread(self._listen)

    # -- on the loop -----------------------------------------------------------------------------------------------
    def _beat(self) -> None:
        now, cpu_s = time.monotonic(), self._cpu()
        if not self._beats:
            self._base = _stack.find_base(sys._getframe())
        else:
            self.delays.record(now - self._due)
        self._is_busy = cpu_s - self._cpu_s > _BUSY_SHARE * (now - self._beat_at)
        interval_s = self.threshold / _FASTER if self._is_busy else self.threshold
        # The thread reads these without a lock: first the deadline, then the beat that makes it valid.
        self._cpu_s = cpu_s
        self._due = now + interval_s
        self._beat_at = now
        self._beats += 1
        self._timer = self._hub.loop.call_later(interval_s, self._beat)

    def _cpu(self) -> float:
        return time.clock_gettime(self._cpu_clock) if self._cpu_clock is not None else 0.0

    def stop(self) -> None:
        """Watch no more. Safe to call twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._timer.cancel()
        self._ended()
        self._thread.join(_JOIN_S)

    def _shutdown(self) -> None:
        self.stop()

    def _tell(self, report: BlockedLoop) -> None:
        for callback in tuple(self.callbacks):
            self._hub.call(callback, report)

    # -- on the side thread ----------------------------------------------------------------------------------------
    def _listen(self) -> None:
        idle_at = busy_at = 0.0  # when the loop was last seen waiting for events, and at work
        while not self._stopped.is_set() and not self._hub.loop.is_closed():
            beats, beat_at, due = self._beats, self._beat_at, self._due
            slack_s = self.threshold / 10
            now = time.monotonic()
            if now >= due + slack_s:
                if beats == self._beats:
                    latest_s = busy_at if beat_at < busy_at < due and busy_at > idle_at else due
                    _Episode(self, beats, max(beat_at, min(idle_at, latest_s)), latest_s).watch()
                continue
            wake_at = due + slack_s
            if not self._is_busy:
                half_s = (due - beat_at) / 2
                if now < due - half_s:
                    wake_at = due - half_s
                else:
                    idle = _stack.is_idle(self._thread_id, self._base)
                    if idle:
                        idle_at = now
                        wake_at = due + half_s
                    elif idle is not None:
                        busy_at = now
            self._stopped.wait(max(wake_at - now, 0.001))

    def _wait_for_beat(self, beats: int, seconds: float) -> bool:
        """Whether the loop has beaten again (or watching has ended) after so long."""
        return self._stopped.wait(seconds) or self._beats != beats

    def _finished(self, report: BlockedLoop, cpu_s: float) -> None:
        self.blocked_count += 1
        self.blocked_s += report.duration
        self.blocked_without_cpu_s += max(0.0, report.duration - cpu_s)
        self.last = report
        if self.longest is None or report.duration > self.longest.duration:
            self.longest = report
        if self.callbacks:
            try:
                self._hub.loop.call_soon_threadsafe(self._tell, report)
            except RuntimeError:  # the loop is closed
                pass


class _Episode:
    """One time that the beat is overdue."""

    def __init__(self, watchdog: Watchdog, beats: int, earliest_s: float, latest_s: float) -> None:
        self._watchdog = watchdog
        self._beats = beats
        computing_since_s = time.monotonic() - (watchdog._cpu() - watchdog._cpu_s)
        # If it has computed ever since, the processor's clock knows the beginning better.
        if earliest_s <= computing_since_s <= latest_s:
            self._began_s = computing_since_s
        else:
            self._began_s = (earliest_s + latest_s) / 2
        self._wall_time = time.time() - (time.monotonic() - self._began_s)
        self._cpu_before_s = watchdog._cpu_s
        self._sights: dict[_stack.Place, list[_stack.Sight]] = {}
        self._request: str | None = None
        self._reported = False

    def watch(self) -> None:
        watchdog = self._watchdog
        pause_s = watchdog.threshold / 5
        while True:
            self._look()
            if watchdog._wait_for_beat(self._beats, pause_s):
                break
            pause_s = min(pause_s * 1.2, _LOOK_AGAIN_MAX_S)
            if not self._reported and time.monotonic() - self._began_s > BLOCKED_LOOP_LONG_S:
                self._report(time.monotonic(), still=True)
        if watchdog._stopped.is_set():
            return
        ended_s = watchdog._beat_at if watchdog._beats == self._beats + 1 else time.monotonic()
        cpu_s = watchdog._cpu() - self._cpu_before_s
        duration_s = ended_s - self._began_s
        # Nothing but waiting was seen: a stopped process or machine; or compiled code without frames, which computes.
        if duration_s < watchdog.threshold or not (self._sights or cpu_s > duration_s / 2 or not _stack.CAN_CAPTURE):
            return
        report = self._make(duration_s)
        if not self._reported:
            self._log(report, still=False)
        watchdog._finished(report, cpu_s)

    def _look(self) -> None:
        sight = _stack.capture(self._watchdog._thread_id, self._watchdog._base)
        if sight is None:
            return
        self._sights.setdefault(_stack.blame(sight.stack), []).append(sight)
        if self._request is None:
            self._request = sight.request or _name(self._watchdog._request())

    def _report(self, now: float, still: bool) -> None:
        if self._sights or not _stack.CAN_CAPTURE:
            self._reported = True
            self._log(self._make(now - self._began_s), still)

    def _make(self, duration_s: float) -> BlockedLoop:
        place, stack = _stack.Place("", 0, ""), ""
        if self._sights:
            # The place that was seen most often: a block may begin and end somewhere else.
            place, sights = max(self._sights.items(), key=lambda item: len(item[1]))
            stack = _stack.format_stack(sights[0].stack)
        return BlockedLoop(
            duration=duration_s,
            file=place.file,
            line=place.line,
            function=place.function,
            stack=stack,
            request=self._request,
            at=self._wall_time,
        )

    def _log(self, report: BlockedLoop, still: bool) -> None:
        if not log.isEnabledFor(logging.WARNING):
            return
        what = f"the event loop {'is' if still else 'was'} blocked for {seconds(report.duration)}"
        what += " and still is, " if still else " "
        if report.file:
            what += f"at {_shown(report.file)}:{report.line} in {report.function}"
        elif not _stack.CAN_CAPTURE:
            what += f"(where is unknown: {_stack.WHY_NOT})"
        else:
            what += "by compiled code"
        if report.request:
            what += f" ({report.request})"
        # As stack_info it stands below the line with every formatter, ours and logging's own.
        record = log.makeRecord(
            log.name, logging.WARNING, report.file or __file__, report.line, what, (), None, sinfo=report.stack or None
        )
        log.handle(record)


def _start_thread(listen: Callable[[], None]) -> threading.Thread:
    try:
        thread = threading.Thread(target=listen, name="multiloop-watchdog", daemon=True)
    except RuntimeError:  # interpreters of their own allow no daemons; it ends with the loop anyway
        thread = threading.Thread(target=listen, name="multiloop-watchdog")
    thread.start()
    return thread


def seconds(duration_s: float) -> str:
    """Return a duration as people read it: `85 ms`, `0.41 s`, `12.3 s`."""
    if duration_s < 0.0995:
        return f"{duration_s * 1000:.0f} ms"
    return f"{duration_s:.2f} s" if duration_s < 9.995 else f"{duration_s:.1f} s"


def _shown(file: str) -> str:
    """The path from the working folder, if it lies in it."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if relative.startswith(os.pardir) else relative


def _name(request: Any) -> str | None:
    """Name what the server set as its current request: text, or something with a method and a path."""
    if request is None or isinstance(request, str):
        return request
    try:
        path = getattr(request, "path", None)
        return f"{request.method} {path}" if path is not None else str(request)
    except Exception:  # it is read while the server changes it
        return None


def _cpu_clock(thread: int) -> int | None:
    """The clock of the processor time of a thread; None where there is none (macOS)."""
    get = getattr(time, "pthread_getcpuclockid", None)
    return None if get is None else get(thread)

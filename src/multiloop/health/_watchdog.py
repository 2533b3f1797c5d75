"""The watchdog: notices that the loop is blocked, and keeps the counts.

What lives here: `Watchdog`: the beat on the loop, and the side thread that listens to it. What must not: one block from
its beginning to its report (`_episode`), reading stacks (`_stack`), killing (a cluster's primary does that by the
heartbeat of its own).

    beat (a timer on the loop, every `threshold`; twice as often while the loop is busy)
      ║ half-way between two beats the side thread looks whether the loop waits for events (not while busy)
      ║ a beat is overdue: it looks at the loop's stack, again and again until the next beat, then reports

* Cost: a wake-up of the thread and one of the loop per `threshold`. While the loop is busy it beats twice as often, and the
  thread does not take the interpreter's lock from it while the beats come (`_alarm`; in plain Python it does, less than
  once per `threshold`). No locks are shared with the loop.
* What blocks for 1.3 times `threshold` is always reported, what blocks for less than 0.7 times never. The beginning of a
  block lies between two looks and is taken in the middle, so that durations are right within a quarter of `threshold`,
  and closer when the loop computes.
* A call into C that holds the interpreter's lock holds the side thread as well; it looks at the stack in the moment in
  which that call returns, so the line is right. When such a call is another thread's, the loop waits for the lock, too: that
  thread is looked at, even if the loop was let in before us and has beaten again.
* A loop that waits for events while its beat is overdue is not blocked: the machine or the process was stopped. One that
  does not run (between two calls of run_until_complete) is not blocked either.
* On a machine that is too busy the loop waits for a core: that is told, and a loop that did nothing else was not blocked.
* Behind a call that held the lock several threads wait for it, and the loop may be let in first: then nobody saw the
  place, and the report says so.
* A block that ends with the loop, or with the program, is reported all the same.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from sys import _getframe
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..loop import Handle, Hub
from ..stats import BlockedLoop
from . import _alarm, _stack
from ._episode import Episode, Holder, Late, report_hold, report_unseen
from ._histogram import Histogram
from ._spans import record
from ._threads import RunQueue, clocks, cpu_times

if TYPE_CHECKING:
    import asyncio

_BUSY_SHARE = 0.2  # of a core: a loop that computes more is beaten more often
_FASTER = 2
_BUSY_PATIENCE = 1.2  # of the threshold, behind a beat that is due: what blocks for 1.3 is still seen
_HOLDER_SHARE = 0.2  # of the time that the lock was held: who held it computed so much, however busy the machine is
_ASLEEP_MAX_S = 2.0  # beside a busy loop: threads that came meanwhile are then known
_JOIN_S = 1.0


class Watchdog(Handle):
    """Watches the running loop. `stop()` ends it; the end of the loop's program does, too. Never keeps it going."""

    def __init__(self, of: Hub, threshold_s: float, request: Callable[[], Any]) -> None:
        super().__init__()
        if not 0.005 <= threshold_s <= 3600:
            raise UsageError(f"watch(threshold={threshold_s}): seconds between 0.005 and 3600")
        self.threshold = threshold_s
        self.callbacks: list[Callable[[BlockedLoop], Any]] = []
        # Called on the side thread while the loop is blocked, each time that it is seen somewhere new.
        self.sighted: Callable[[BlockedLoop], None] | None = None
        self.delays = Histogram()
        self.blocked_count = 0
        self.blocked_s = 0.0
        self.longest: BlockedLoop | None = None
        self.last: BlockedLoop | None = None
        self.blocked_without_cpu_s = 0.0  # waited for inside callbacks: active, though no core was used
        # for the episode
        self.loop = of.loop
        self.thread_id = threading.get_ident()
        self.base = _stack.Base()
        self.request = request
        self.beats = 0
        self.beat_at_s = time.monotonic()
        self.is_stopped = False
        self.stopped_at_s = 0.0  # by `stop`, on the loop
        self.holder: Holder | None = None
        self.seen_beats = -1  # the last beat whose delay an episode has looked at
        self.late: Late | None = None
        self.on_wake: Callable[[], None] | None = None  # called by the thread each time that it runs
        # of the beat
        self._run_queue = RunQueue()
        self.starved_at_beat_s = self.starved_s()
        self._cpu_clock = _cpu_clock(self.thread_id)
        self._is_busy = False
        self._due_s = self.beat_at_s + threshold_s
        self.cpu_at_beat_s = self.cpu_s()
        # of the thread
        self._alarm = _alarm.FORM()
        self.unref()
        self._opened(of)
        self._timer: asyncio.Handle = of.loop.call_soon(self._beat)  # the first one finds the frame below the loop
        self._thread = _start_thread(self._listen)
        _remember(self)

    # -- on the loop -----------------------------------------------------------------------------------------------
    def _beat(self) -> None:
        now, cpu_s = time.monotonic(), self.cpu_s()
        if not self.beats:
            self.base = _stack.find_base(_getframe())
        else:
            self.delays.record(now - self._due_s)
        if now - self._due_s >= self.threshold:
            self.late = Late(
                beats=self.beats,
                seconds=now - (self.beat_at_s + self._due_s) / 2,
                cpu_s=cpu_s - self.cpu_at_beat_s,
                starved_s=self.starved_s() - self.starved_at_beat_s,
            )
        self._is_busy = cpu_s - self.cpu_at_beat_s > _BUSY_SHARE * (now - self.beat_at_s)
        interval_s = self.threshold / _FASTER if self._is_busy else self.threshold
        # The thread reads these without a lock: first the deadline, then the beat that makes it valid.
        self.cpu_at_beat_s = cpu_s
        self.starved_at_beat_s = self.starved_s()
        self._due_s = now + interval_s
        self.beat_at_s = now
        self.beats += 1
        if self._is_busy and self.late is None:
            self._alarm.prolong(self._due_s + self.threshold * _BUSY_PATIENCE)
        self._timer = self.loop.call_later(interval_s, self._beat)

    def cpu_s(self) -> float:
        """The processor time of the loop's thread; 0 where that cannot be told."""
        return time.clock_gettime(self._cpu_clock) if self._cpu_clock is not None else 0.0

    def starved_s(self) -> float:
        """How long the loop's thread has waited for a core, so far."""
        return self._run_queue.waited_s()

    def stop(self) -> None:
        """Watch no more; a block that is under way is reported first. Safe to call twice."""
        if self.is_stopped:
            return
        self.stopped_at_s = time.monotonic()
        self._timer.cancel()
        self._ended()
        self._end_thread()

    def _end_thread(self) -> None:
        self.is_stopped = True
        self._alarm.ring()
        self._thread.join(_JOIN_S)

    def _shutdown(self) -> None:
        self.stop()

    def _tell(self, report: BlockedLoop) -> None:
        for callback in tuple(self.callbacks):
            self._hub.call(callback, report)

    # -- on the side thread ----------------------------------------------------------------------------------------
    def _listen(self) -> None:
        self._own_run_queue = RunQueue()
        try:
            self._listen_until_the_end()
        finally:
            self._run_queue.close()
            self._own_run_queue.close()

    def _listen_until_the_end(self) -> None:
        idle_at = busy_at = 0.0  # when the loop was last seen waiting for events, and at work
        while not self.is_stopped and not self.loop.is_closed():
            if not self.loop.is_running():
                self.wait(self.threshold)
                self.beat_at_s = time.monotonic()  # nobody else writes them now
                self._due_s = self.beat_at_s + self.threshold
                continue
            beats, beat_at, due = self.beats, self.beat_at_s, self._due_s
            slack_s = self.threshold / 10
            now = time.monotonic()
            if now >= due + slack_s and beats == self.beats:
                latest_s = busy_at if beat_at < busy_at < due and busy_at > idle_at else due
                Episode(self, beats, max(beat_at, min(idle_at, latest_s)), latest_s).watch()
                continue
            if self.holder is not None:
                report_hold(self, self.holder)
            self._report_unseen()
            half_s = (due - beat_at) / 2
            wake_at = due + slack_s
            if self._is_busy:  # each wake-up takes the lock from who computes: beats put it off
                self.wait(max(due + self.threshold * _BUSY_PATIENCE - now, 0.001), _ASLEEP_MAX_S)
                continue
            if now < due - half_s:
                wake_at = due - half_s
            else:
                idle = _stack.is_idle(self.thread_id, self.base)
                if idle:
                    idle_at = now
                    wake_at = due + half_s
                elif idle is not None:
                    busy_at = now
            self.wait(max(wake_at - now, 0.001))

    def _report_unseen(self) -> None:
        late, self.late = self.late, None
        if late is not None and late.beats != self.seen_beats:
            report_unseen(self, late)

    def wait(self, seconds: float, prolonged_s: float = 0.0) -> None:
        """Sleep; so many seconds, if each beat of a busy loop puts the end off. See `holder` for who made it late."""
        self.holder = None
        if self.is_stopped:
            return
        starved_s, now = self._own_run_queue.waited_s(), time.monotonic()
        until, before = self._alarm.sleep(now + seconds, now + max(seconds, prolonged_s), clocks())
        late_s = time.monotonic() - until
        if self.on_wake is not None:
            self.on_wake()
        if late_s >= self.threshold / 2:
            held_s = late_s - (self._own_run_queue.waited_s() - starved_s)
            used = {thread: cpu_s - before.get(thread, 0.0) for thread, cpu_s in cpu_times().items()}
            busiest = max(used, key=used.__getitem__, default=self.thread_id)
            enough_s = min(_HOLDER_SHARE * held_s, self.threshold / 2)
            if held_s >= self.threshold / 2 and busiest != self.thread_id and used[busiest] >= enough_s:
                self.holder = Holder(busiest, max(held_s, used[busiest]))

    def finished(self, report: BlockedLoop, cpu_s: float) -> None:
        """Count a block that has ended, and tell the callbacks."""
        self.blocked_count += 1
        self.blocked_s += report.duration
        self.blocked_without_cpu_s += max(0.0, report.duration - cpu_s)
        self.last = report
        record(report)
        if self.longest is None or report.duration > self.longest.duration:
            self.longest = report
        if self.callbacks:
            try:
                self.loop.call_soon_threadsafe(self._tell, report)
            except RuntimeError:  # the loop is closed
                pass

    def end_with_program(self) -> None:
        """Report what the loop's last callback did, before threads stand still for ever."""
        if not self.is_stopped:
            self._end_thread()


_watchdogs: weakref.WeakSet[Watchdog] | None = None


def _remember(watchdog: Watchdog) -> None:
    global _watchdogs
    if _watchdogs is None:
        _watchdogs = weakref.WeakSet()
        atexit.register(_at_exit)
    _watchdogs.add(watchdog)


def _at_exit() -> None:
    for watchdog in tuple(_watchdogs or ()):
        watchdog.end_with_program()


def _start_thread(listen: Callable[[], None]) -> threading.Thread:
    try:
        thread = threading.Thread(target=listen, name="multiloop-watchdog", daemon=True)
    except RuntimeError:  # interpreters of their own allow no daemons; it ends with the loop anyway
        thread = threading.Thread(target=listen, name="multiloop-watchdog")
    thread.start()
    return thread


def _cpu_clock(thread: int) -> int | None:
    """The clock of the processor time of a thread; None where there is none (macOS)."""
    get = getattr(time, "pthread_getcpuclockid", None)
    return None if get is None else get(thread)

"""The threads on which blocking calls run: one awake thread drains a shared queue.

What lives here: `Threads`: the queue, who is awake, who is stuck. What must not: loops and operations beyond asking
whether a call is still wanted; results go to `Completions`.

Why one: threads that all run at once fight for the interpreter's lock, and reading a small file then costs three times
as much. So one thread works, and others are woken only when it does not get on:

* **Stalled** — the queue has not moved for a millisecond in which the loop ticked and was mostly idle, so everybody
  awake is inside a call that waits for the world (a slow disk, a FIFO, a name). These threads stop counting, another
  starts; at most `OFFLOAD_MAX_THREADS` in all. Under a busy loop nothing is proved so soon, since threads may only wait
  for the interpreter's lock: there it takes `OFFLOAD_BUSY_STALL_S`.
* **Slow but moving** — calls wait, and the process used less than half a core in a few looks in a row, so each call
  waits a little: one more thread, up to the limit (4).
* **Known to be slow** (`slow=True`: names) — the thread stops counting before it begins, and such calls get at most
  half of the limit.

A thread that comes back from a stall and is not needed parks; parked threads beyond the limit end. All are daemons:
exit joins none of them.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._limits import OFFLOAD_BUSY_STALL_S, OFFLOAD_MAX_THREADS, OFFLOAD_STALL_S
from ._completions import Completions, Discard, Settled

_HALF_A_CORE = 0.5
_SLOW_LOOKS = 3  # one look may fall into a time slice that the kernel gave to another process
_EARLY = 0.75  # timers of whole milliseconds fire early: a look counts from this part of its period

Job = tuple[
    Completions,
    Settled,
    Callable[..., Any],
    tuple[Any, ...],
    contextvars.Context | None,
    Discard | None,
]


class _Slot:
    """One thread. `counts` while it is awake and not stalled; `wake` is held while it parks; `op` is its call's."""

    __slots__ = ("counts", "op", "wake")

    def __init__(self) -> None:
        self.counts = True
        self.op: Settled | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


_here = threading.local()


def _without_our_frame(error: BaseException) -> BaseException:
    trace = error.__traceback__
    return error.with_traceback(trace and trace.tb_next)


def wanted() -> bool:
    """Whether somebody still waits for the call that runs on this thread: long ones ask now and then."""
    slot: _Slot | None = getattr(_here, "slot", None)
    return slot is None or slot.op is None or not slot.op.done()


class _Wanted:
    """The operation of a turn at the slow calls: never cancelled, and nobody waits for it."""

    def done(self) -> bool:
        return False

    def _succeed(self, value: None) -> bool:
        return True

    def _fail(self, error: BaseException) -> None:
        raise error  # drain_slow catches what calls raise: this is a bug of ours


class Threads:
    """The threads of one process (of one interpreter)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.jobs: deque[Job] = deque()
        self._lock = threading.Lock()  # guards all below; `_active` is also read without it, by submit
        self._active: set[_Slot] = set()
        self._parked: list[_Slot] = []
        self._total = 0
        self._started = 0
        self._daemons = True
        self._ended = False
        self._slow_limit = max(1, limit // 2)
        self._slow_running = 0
        self._slow_waiting: deque[Job] = deque()
        # What `look` saw: the head of the queue, since when it stands there, since when with a loop that is mostly
        # idle; and when it looked last.
        self._head: Job | None = None
        self._head_s = self._quiet_s = 0.0
        self._looked_s = self._looked_cpu_s = 0.0
        self._slow_looks = 0

    # -- called by loops -------------------------------------------------------------------------------------------
    def submit(self, job: Job) -> None:
        """Queue a call. Raises RuntimeError when no thread can be started at all."""
        self.jobs.append(job)
        if self._active:
            if not job[0].ticking:  # it may have to wait behind another: somebody looks after it
                job[0].watch()
        else:
            with self._lock:
                if not self._active:
                    self._one_more()

    def submit_slow(self, job: Job) -> None:
        """Queue a call that is known to wait for long."""
        with self._lock:
            if self._slow_running >= self._slow_limit:
                self._slow_waiting.append(job)
                return
            self._slow_running += 1
        self.submit((job[0], _Wanted(), self.drain_slow, (job,), None, None))

    def look(self, now_s: float, *, loop_busy: bool) -> None:
        """Called every millisecond while calls wait in the queue: does somebody have to come and help?"""
        cpu_s = time.process_time()
        with self._lock:
            try:
                head = self.jobs[0]
            except IndexError:
                self._head = None
                self._slow_looks = 0
                return
            if head is not self._head:
                self._head, self._head_s, self._quiet_s = head, now_s, now_s
            elif self._is_stalled(now_s, loop_busy):
                for slot in self._active:
                    slot.counts = False
                self._active.clear()
                self._one_more()
                self._head_s = self._quiet_s = now_s
            elapsed_s, used_s = now_s - self._looked_s, cpu_s - self._looked_cpu_s
            if elapsed_s < OFFLOAD_STALL_S * _EARLY:
                return  # two loops look at the same threads
            self._looked_s, self._looked_cpu_s = now_s, cpu_s
            if used_s >= elapsed_s * _HALF_A_CORE or elapsed_s > OFFLOAD_STALL_S * 10:
                self._slow_looks = 0
                return
            self._slow_looks += 1
            if self._slow_looks >= _SLOW_LOOKS and len(self._active) < self.limit:
                self._slow_looks = 0
                self._one_more()

    def _is_stalled(self, now_s: float, loop_busy: bool) -> bool:
        if loop_busy:
            self._quiet_s = now_s
        # Each four that are stuck already make it a little harder, lest calls that only seem stuck start 64 at once.
        stuck = self._total - len(self._active) - len(self._parked)
        quiet_s = OFFLOAD_STALL_S * _EARLY * (1 + stuck // 4)
        return now_s - self._quiet_s >= quiet_s or now_s - self._head_s >= OFFLOAD_BUSY_STALL_S

    def _one_more(self) -> None:
        # With the lock held.
        if self._parked:
            slot = self._parked.pop()
            slot.counts = True
            self._active.add(slot)
            slot.wake.release()
        elif self._total < OFFLOAD_MAX_THREADS:
            slot = _Slot()
            try:
                self._start(slot)
            except RuntimeError:
                if not self._total:
                    raise  # with a thread at work, calls are only later
            else:
                self._total += 1
                self._active.add(slot)

    def _start(self, slot: _Slot) -> None:
        name = f"multiloop-offload-{self._started}"
        try:
            thread = threading.Thread(target=self._live, args=(slot,), name=name, daemon=self._daemons)
        except RuntimeError:
            # An isolated interpreter refuses daemon threads: there they are told to end before they are joined.
            self._daemons = False
            threading._register_atexit(self._end)  # type: ignore[attr-defined]
            thread = threading.Thread(target=self._live, args=(slot,), name=name, daemon=False)
        thread.start()
        self._started += 1

    # -- the threads themselves ------------------------------------------------------------------------------------
    def _live(self, slot: _Slot) -> None:
        _here.slot = slot
        while True:
            last = self._drain(slot)
            slot.op = None
            with self._lock:
                self._active.discard(slot)
                if self.jobs and not self._active and not self._ended:
                    slot.counts = True  # queued since we looked, by somebody who saw us awake; or back from a stall
                    self._active.add(slot)
                    parks = False
                else:
                    slot.counts = False
                    parks = len(self._parked) < self.limit and not self._ended
                    if parks:
                        self._parked.append(slot)
                    else:
                        self._total -= 1
            # Last, and parked already: what the loop does next would only wait for the lock of the interpreter.
            if last is not None:
                last.flush()
                last = None
            if parks:
                slot.wake.acquire()
            elif not slot.counts:
                return

    def _drain(self, slot: _Slot) -> Completions | None:
        # Works until the queue is empty, or this thread was found stalled. Returns whose loop is still to be woken.
        last: Completions | None = None
        take = self.jobs.popleft
        while slot.counts:
            try:
                completions, op, function, args, context, discard = take()
            except IndexError:
                break
            if completions is not last:
                if last is not None:
                    last.flush()
                last = completions
            if op.done():
                continue
            slot.op = op
            try:
                # No name for the result: it would be kept alive while the next call stalls.
                if context is None:
                    completions.done.append((op, function(*args), None, discard))
                else:
                    completions.done.append((op, context.run(function, *args), None, discard))
            except BaseException as error:
                completions.done.append((op, None, _without_our_frame(error), discard))
        # An error's traceback leads to this frame: it must not lead on to the error's own operation.
        completions = op = function = args = context = discard = None  # type: ignore[assignment]
        return last

    def drain_slow(self, job: Job | None) -> None:
        """Make slow calls, this one and those that wait. Runs in the place of a call, on a thread."""
        slot: _Slot = _here.slot
        with self._lock:
            slot.counts = False
            self._active.discard(slot)
            if self.jobs and not self._active:
                self._one_more()
        while job is not None:
            completions, op, function, args, context, discard = job
            if not op.done():
                try:
                    value = function(*args) if context is None else context.run(function, *args)
                except BaseException as error:
                    completions.done.append((op, None, _without_our_frame(error), discard))
                else:
                    completions.done.append((op, value, None, discard))
                    del value
                completions.flush()
            with self._lock:
                if self._slow_waiting:
                    job = self._slow_waiting.popleft()
                else:
                    job = None
                    self._slow_running -= 1

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            for slot in self._parked:
                slot.wake.release()
            self._parked.clear()

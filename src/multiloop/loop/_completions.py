"""Finished calls on their way from the offload's threads back to one loop.

What lives here: `Completions`, one for each loop: results in, operations settled, in batches with one wake-up.
What must not: what runs on the threads (`_threads`), what an operation is (`_operation`).

How a result travels
* A thread appends to `done` and goes on with the next call. It wakes the loop only when the queue is empty.
* While calls wait in the queue, the loop itself looks every millisecond (`_tick`): it takes what is done and asks
  `Threads.look` whether somebody is stuck. So a burst costs one wake-up a millisecond and none for each call.
* A call that cannot wait (its bytes are in memory) is made on the loop and its result comes the same way, one turn later
  (`arrive`): so an awaiter always gives way to others. After `calls_left` of them in a turn the rest takes a thread.
* The wake-up is an eventfd that the loop watches: half the price of `call_soon_threadsafe`, which serves elsewhere.

Who may touch what: `done` is appended to by threads and emptied by the loop, both through atomic deque operations.
`_armed` is set before a wake-up, and cleared after the wake-up was taken and before `done` is emptied, so no result is
left behind. All else is the loop's.
"""

from __future__ import annotations

import contextvars
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .._limits import OFFLOAD_STALL_S, READY_CALLS_PER_TURN
from ._hub import Hub
from ._operation import Operation

if TYPE_CHECKING:
    from ._threads import Threads

Discard = Callable[[Any], Any]


class Settled(Protocol):
    """What the threads and the loop ask of an operation."""

    def done(self) -> bool:
        """Whether it was cancelled: then it need not begin."""

    def _succeed(self, value: Any, /) -> bool: ...

    def _fail(self, error: BaseException, /) -> None: ...


Outcome = tuple[Settled, Any, BaseException | None, Discard | None]


class GoOn(BaseException):
    """Raised by an offloaded function of ours: the operation goes on in another way, on the loop."""

    def resume(self, op: Any) -> None:
        """Called on the loop, for an operation that is still wanted."""
        raise NotImplementedError

    def release(self) -> None:
        """Called instead when nobody waits any more: free what this holds. Any thread."""


class _WakeUp:
    """The descriptor that a loop watches. Closed with the last reference: no thread can write to a closed one."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self.fd)


class Completions:
    """What the offload keeps for one loop. Made by `completions_of`."""

    __slots__ = (
        "__weakref__",
        "_armed",
        "_context",
        "_hub",
        "_loop",
        "_settles_soon",
        "_ticked_cpu_s",
        "_ticked_s",
        "_wake_up",
        "calls_left",
        "closed",
        "done",
        "threads",
        "ticking",
    )

    def __init__(self, of: Hub, threads: Threads) -> None:
        self._hub = of
        self._loop = of.loop
        self.threads = threads
        self.done: deque[Outcome] = deque()
        self.closed = False
        self.ticking = False
        self.calls_left = READY_CALLS_PER_TURN
        self._settles_soon = False
        self._ticked_s = self._ticked_cpu_s = 0.0
        self._armed = False
        self._context = contextvars.Context()  # the loop's own calls must not keep a caller's context alive
        self._wake_up: _WakeUp | None = None
        if hasattr(os, "eventfd"):
            wake_up = _WakeUp()
            try:
                self._context.run(of.loop.add_reader, wake_up.fd, self._woken)
            except NotImplementedError:
                pass
            else:
                self._wake_up = wake_up

    # -- called by threads -----------------------------------------------------------------------------------------
    def flush(self) -> None:
        """See to it that the loop takes what is in `done`, soon."""
        if self._armed or not self.done:
            return
        self._armed = True
        wake_up = self._wake_up
        if wake_up is not None:
            os.eventfd_write(wake_up.fd, 1)
        elif self.closed:
            self._discard_all()
        else:
            try:
                self._loop.call_soon_threadsafe(self._woken, context=self._context)
            except RuntimeError:  # closed, and not by `run`
                self._discard_all()

    # -- called by the loop ----------------------------------------------------------------------------------------
    def watch(self) -> None:
        """Look every millisecond from now on, until the queue of the threads is empty."""
        self.ticking = True
        self._ticked_s, self._ticked_cpu_s = time.monotonic(), time.thread_time()
        self._loop.call_later(OFFLOAD_STALL_S, self._tick, context=self._context)

    def arrive(self, op: Settled, value: Any, discard: Discard | None = None) -> None:
        """Settle an operation in the loop's next turn: its call was made on the loop and did not have to wait."""
        self.calls_left -= 1
        self.done.append((op, value, None, discard))
        if not self._settles_soon:
            self._settles_soon = True
            self._loop.call_soon(self._settle_arrived, context=self._context)

    def _settle_arrived(self) -> None:
        self._settles_soon = False
        self.calls_left = READY_CALLS_PER_TURN
        self._settle()

    def _tick(self) -> None:
        now_s, cpu_s = time.monotonic(), time.thread_time()
        elapsed_s, used_s = now_s - self._ticked_s, cpu_s - self._ticked_cpu_s
        self._ticked_s, self._ticked_cpu_s = now_s, cpu_s
        # Asked before emptying: with an empty queue the last thread at work wakes the loop itself.
        self.ticking = bool(self.threads.jobs)
        # A loop that was late or at work most of the time kept the interpreter's lock from the threads.
        self.threads.look(now_s, loop_busy=used_s > elapsed_s / 2 or elapsed_s > OFFLOAD_STALL_S * 4)
        if self.ticking:
            self._loop.call_later(OFFLOAD_STALL_S, self._tick, context=self._context)
        self._settle()

    def _woken(self) -> None:
        if self._wake_up is not None:
            try:
                os.eventfd_read(self._wake_up.fd)
            except BlockingIOError:
                pass
        self._armed = False  # after reading: a wake-up that is read here must not count as one on its way
        self._settle()

    def _settle(self) -> None:
        of = self._hub
        take = self.done.popleft
        try:
            for _ in range(len(self.done)):
                op, value, error, discard = take()
                if error is not None:
                    if not isinstance(error, GoOn):
                        op._fail(error)
                    elif op.done():
                        error.release()
                    else:
                        error.__traceback__ = error.__context__ = None  # it lives on, and frames hold what was read
                        error.resume(op)
                elif type(op) is Operation:  # _succeed, written out: this runs once for each file
                    if not op.done():
                        op.set_result(value)
                        if op._counted:
                            of.refs -= 1
                    elif discard is not None:
                        discard(value)
                elif not op._succeed(value) and discard is not None:
                    discard(value)
        except BaseException:  # SystemExit from a callback leaves the loop: the rest must not be lost with it
            self.flush()
            raise
        if not of.refs and of.on_idle is not None:
            of.on_idle()

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """The loop is closed: free what arrived too late. Calls that wait are still made, for nobody: one may close."""
        self.closed = True
        self._wake_up = None
        self._armed = False  # what comes from now on is discarded by the thread that brings it
        self._discard_all()

    def _discard_all(self) -> None:
        while True:
            try:
                _, value, error, discard = self.done.popleft()
            except IndexError:
                return
            if isinstance(error, GoOn):
                error.release()
            elif error is None and discard is not None:
                discard(value)

    def __del__(self) -> None:
        self._discard_all()  # the only end of a loop that `run` did not make: nobody refers to it any more

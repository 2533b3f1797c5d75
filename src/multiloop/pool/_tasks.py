"""One task, as the pool keeps it: what is to be called, and who waits for the outcome.

What lives here: `Task` (what engines rely on) and its three forms: `AsyncTask` (awaited on the pool's own loop),
`CallbackTask` (`callback=`), `FutureTask` (a concurrent.futures.Future: synchronous code, other threads, other loops).
What must not: queues, workers, pickles.

The task *is* the operation or future that the caller holds: a tiny task is not worth a second object.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import TaskExited
from ..loop import CallbackOperation, Hub, Operation
from ._options import TaskOptions

if TYPE_CHECKING:
    from ._calls import Function, Made
    from ._link import Link
    from ._rights import Parcel
    from ._streams import Stream

_FIELDS = (
    "call",  # what the worker gets: plain arguments or a pickle
    "flags",  # IS_PLAIN … of the protocol
    "function",  # the Function: its name, number and usual duration
    "link",  # the worker that has it; None while it waits
    "number",  # its number with that worker
    "options",
    "owner",  # the core of its pool
    "parcel",  # (kind, descriptors) if the call is one, or None
    "stream",  # where the items of a stream go, or None
    "submitted_ns",
)


class Owner(Protocol):
    """What a task asks of its pool."""

    def stop(self, task: Task) -> None:
        """The caller does not want the outcome any more: free what it holds, stop it if it runs."""

    def would_deadlock(self) -> bool:
        """Whether waiting in this thread would keep the results from being read."""


class Task(Protocol):
    """What engines rely on."""

    call: Any
    flags: int
    function: Function
    link: Link | None
    number: int
    options: TaskOptions
    owner: Owner
    parcel: Parcel | None
    stream: Stream[Any] | None
    submitted_ns: int
    can_end_unnoticed: bool  # by another thread, while it is in the queue

    def done(self) -> bool:
        """Whether it has an outcome, or nobody wants one."""

    def begin(self) -> bool:
        """Say that a worker gets it now; False when it was cancelled before."""

    def _succeed(self, value: Any) -> bool: ...

    def _fail(self, error: BaseException) -> None: ...


class AsyncTask(Operation[Any]):
    """A task that is awaited on the loop that does the pool's I/O."""

    __slots__ = _FIELDS
    can_end_unnoticed = False

    call: Any
    flags: int
    function: Function
    link: Link | None
    number: int
    options: TaskOptions
    owner: Owner
    parcel: Parcel | None
    stream: Stream[Any] | None
    submitted_ns: int

    def cancel(self, msg: Any = None) -> bool:
        """Cancel: the awaiter gets CancelledError at once, a task that runs is stopped. False when it had ended."""
        if not asyncio.Future.cancel(self, msg):
            return False
        self._settled()
        self.owner.stop(self)
        return True

    def begin(self) -> bool:
        return not self.done()

    def _succeed(self, value: Any) -> bool:
        if self.done():
            return False
        self.set_result(value)
        if self._counted:  # as _settled, without its two calls
            self._counted = False
            of = self._hub
            of.refs -= 1
            if not of.refs and of.on_idle is not None:
                of.on_idle()
        return True

    def _fail(self, error: BaseException) -> None:
        super()._fail(_for_await(error, self.function.name))


def make_async(of: Hub, owner: Owner, options: TaskOptions, made: Made) -> AsyncTask:
    """Make a started task, counted by its loop's hub."""
    task = AsyncTask(loop=of.loop)
    task._hub = of
    task._counted = True
    task._stop = None
    of.refs += 1
    task.owner = owner
    task.options = options
    task.function, task.flags, task.call, task.parcel = made
    task.link = task.stream = None
    task.submitted_ns = monotonic_ns()
    return task


class CallbackTask(CallbackOperation[Any]):
    """A task that reports to an error-first callback."""

    __slots__ = _FIELDS
    can_end_unnoticed = False

    call: Any
    flags: int
    function: Function
    link: Link | None
    number: int
    options: TaskOptions
    owner: Owner
    parcel: Parcel | None
    stream: Stream[Any] | None
    submitted_ns: int

    def cancel(self, msg: Any = None) -> bool:
        """Cancel: the callback gets CancelledError, a task that runs is stopped. False when it had ended."""
        if not super().cancel(msg):
            return False
        self.owner.stop(self)
        return True

    def begin(self) -> bool:
        return not self._done

    def _fail(self, error: BaseException) -> None:
        super()._fail(_for_await(error, self.function.name))


class FutureTask(concurrent.futures.Future[Any]):
    """A task as a concurrent.futures.Future, with its contract: `cancel()` fails once a worker has it.

    `pool.stop(future)` stops it then, too. Waiting for it on the loop that would read its result raises RuntimeError.
    """

    can_end_unnoticed = True

    call: Any
    flags: int
    function: Function
    link: Link | None
    number: int
    options: TaskOptions
    owner: Owner
    parcel: Parcel | None
    stream: Stream[Any] | None
    submitted_ns: int

    def cancel(self) -> bool:
        """Cancel the task if no worker has it yet; returns whether it is cancelled."""
        was = self.cancelled()
        if not super().cancel():
            return False
        if not was:
            self.owner.stop(self)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the outcome; see concurrent.futures. Raises RuntimeError where that would wait forever."""
        self._check_wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the exception; see concurrent.futures. Raises RuntimeError where that would wait forever."""
        self._check_wait(timeout)
        return super().exception(timeout)

    def _check_wait(self, timeout: float | None) -> None:
        if timeout != 0 and not self.done() and self.owner.would_deadlock():
            raise RuntimeError(
                "waiting here would stop the loop that reads the pool's results: use `await pool.run(...)`, "
                "or `await asyncio.wrap_future(future)`"
            )

    def begin(self) -> bool:
        # A task that was sent, not begun, and dealt again is RUNNING already.
        return self.running() or (not self.done() and self.set_running_or_notify_cancel())

    def notify_cancel(self) -> None:
        """Wake those who wait for a task that was cancelled in the queue."""
        if self._state == "CANCELLED":
            self.set_running_or_notify_cancel()

    def _succeed(self, value: Any) -> bool:
        try:
            self.set_result(value)
        except concurrent.futures.InvalidStateError:
            return False
        return True

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._stopped()
            return
        try:
            self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass

    def _stopped(self) -> None:
        """End as cancelled although it was running, which only `pool.stop` may do."""
        with self._condition:
            if self.done():
                return
            self._state = "PENDING"
        super().cancel()
        self.set_running_or_notify_cancel()


def set_up(task: Any, owner: Owner, options: TaskOptions, made: Made) -> None:
    """Fill in the fields of a new task."""
    task.owner = owner
    task.options = options
    task.function, task.flags, task.call, task.parcel = made
    task.link = task.stream = None
    task.submitted_ns = monotonic_ns()


def _for_await(error: BaseException, name: str) -> BaseException:
    """Return what an awaiter can be given: exceptions that would end the program or the coroutine are wrapped."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    if isinstance(error, asyncio.CancelledError):
        return error
    wrapped = TaskExited(name, error)
    wrapped.__cause__ = error
    return wrapped


class Relay:
    """Hands outcomes to another loop in batches: many tasks that end together cost one wake-up."""

    def __init__(self, of: Hub) -> None:
        self._hub = of
        self._done: list[tuple[Any, FutureTask]] = []
        self._lock = threading.Lock()

    def follow(self, op: Any, future: FutureTask) -> None:
        """Settle the operation, which belongs to this relay's loop, as the future ends."""
        future.add_done_callback(lambda ended: self._put(op, ended))  # type: ignore[arg-type]

    def _put(self, op: Any, future: FutureTask) -> None:
        with self._lock:
            self._done.append((op, future))
            wake = len(self._done) == 1
        if wake:
            try:
                self._hub.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                pass  # that loop is closed: nobody waits any more

    def _drain(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for op, future in done:
            if future.cancelled():
                op._fail(asyncio.CancelledError())
            elif (error := future.exception()) is not None:
                op._fail(_for_await(error, future.function.name))
            else:
                op._succeed(future.result())

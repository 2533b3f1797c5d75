"""The threads on which blocking calls run.

What lives here: `offload` (public) and `offload_to` (for the modules above): one hop for a whole logical operation,
results handed to the loop in batches with one wake-up. What must not: what is called.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .._limits import OFFLOAD_THREADS
from ._hub import Hub, hub
from ._operation import AnyOperation, Operation, begin

T = TypeVar("T")

_Job = tuple[
    "_Completions",
    AnyOperation[Any],
    Callable[..., Any],
    tuple[Any, ...],
    contextvars.Context,
    Callable[[Any], Any] | None,
]


class _Completions:
    """Finished jobs on their way to one loop: appended by threads, drained by the loop with one wake-up."""

    __slots__ = ("_armed", "_done", "_hub", "_lock")

    def __init__(self, of: Hub) -> None:
        self._hub = of
        self._done: deque[tuple[AnyOperation[Any], Any, BaseException | None, Callable[[Any], Any] | None]] = deque()
        self._lock = threading.Lock()
        self._armed = False

    def put(
        self, op: AnyOperation[Any], value: Any, error: BaseException | None, discard: Callable[[Any], Any] | None
    ) -> None:
        with self._lock:
            self._done.append((op, value, error, discard))
            wake = not self._armed
            self._armed = True
        if wake:
            try:
                self._hub.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody waits any more
                if discard is not None and error is None:
                    discard(value)

    def _drain(self) -> None:
        with self._lock:
            self._armed = False
            done, self._done = self._done, deque()
        for op, value, error, discard in done:
            if error is not None:
                op._fail(error)
            elif not op._succeed(value) and discard is not None:
                discard(value)


class _Threads:
    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._count = 0
        self._limit = int(os.environ.get("MULTILOOP_THREADS", OFFLOAD_THREADS))
        self._lock = threading.Lock()
        self._idle = 0

    def submit(self, job: _Job) -> None:
        self._jobs.put(job)
        if self._count < self._limit:
            with self._lock:
                if self._count < self._limit:
                    self._count += 1
                    threading.Thread(target=self._work, name=f"multiloop-offload-{self._count}", daemon=True).start()

    def _work(self) -> None:
        while True:
            completions, op, function, args, context, discard = self._jobs.get()
            if op.done():
                continue
            try:
                value, error = context.run(function, *args), None
            except BaseException as raised:
                value, error = None, raised
            completions.put(op, value, error, discard)
            del completions, op, function, args, context, discard, value, error


_threads = _Threads()


def offload_to(
    op: AnyOperation[Any],
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    *,
    slow: bool = False,
    discard: Callable[[Any], Any] | None = None,
) -> None:
    """Run `function(*args)` on a thread and settle `op` with its outcome.

    Args:
        slow: the call waits for the outside world for long (names): such calls get at most half of the threads.
        discard: frees a result that comes after a cancel (closes a descriptor).
    """
    of = op._hub
    try:
        completions: _Completions = of.loop._multiloop_completions  # type: ignore[attr-defined]
    except AttributeError:
        completions = of.loop._multiloop_completions = _Completions(of)  # type: ignore[attr-defined]
    _threads.submit((completions, op, function, args, contextvars.copy_context(), discard))


def offload(function: Callable[..., T], *args: Any) -> Operation[T]:
    """Run a blocking call on a thread, at once: `value = await multiloop.offload(function, *args)`.

    The function runs in a copy of the caller's context. Cancelling stops waiting and drops a call that has not begun;
    one that runs goes on to its end, since a thread cannot be stopped. For CPU-bound work use `multiloop.pool`.
    """
    op = begin(None, hub())
    offload_to(op, function, args)
    return op

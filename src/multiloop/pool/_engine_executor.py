"""The engine that gives tasks to somebody else's concurrent.futures.Executor.

What lives here: `ExecutorEngine`, with the same surface as `LocalEngine`, and its calls. What must not: ending the
executor, which is its owner's.

The queue, priorities, `max_queue`, `map` and context variables are ours. How a task runs, and what becomes of it when
its worker dies, is the executor's: a task that runs cannot be stopped here, only be left alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..stats import PoolWorkerStatistics
from ._calls import Calls, Made
from ._context import Carried, WorkerContext
from ._driver import Driver
from ._meter import Meter
from ._options import PoolConfig
from ._queue import NO_PLACE, Admission, TaskQueue
from ._tasks import FutureTask

if TYPE_CHECKING:
    from ._tasks import Task

_AHEAD = 2  # tasks that the executor has for each of its workers


def refusal_of(broken: BaseException | None) -> BaseException:
    """Return the error of a task that comes too late."""
    from ._engine_local import refusal

    return broken or refusal()


class ExecutorCalls(Calls):
    """Calls as they are: what is pickled, and how, the executor knows."""

    def make(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_stream: bool = False,
        for_many: bool = False,
    ) -> Made:
        """See Calls."""
        if is_stream:
            raise UsageError("stream() cannot be kept with an executor as engine: use engine='local'")
        function = self.function(target)
        if function.is_generator:
            raise UsageError(f"{function.name} is a generator function: an executor cannot send what it yields")
        return function, 0, (target, args, kwargs, self.carried()), None


class ExecutorEngine:
    """Somebody else's workers, and our queue before them."""

    def __init__(
        self, config: PoolConfig, workers: int, driver: Driver, meter: Meter, admission: Admission | None
    ) -> None:
        assert config.engine is not None
        self.config = config
        self.driver = driver
        self.loop = driver.loop
        self.hub = driver.hub
        self.queue = TaskQueue()
        self.broken: BaseException | None = None
        self._executor = config.engine
        self._limit = workers
        self._meter = meter
        self._admission = admission
        self._running: dict[Task, Future[Any]] = {}
        self._is_open = True
        self._closed: Callable[[], Any] | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._ended: list[tuple[Task, Future[Any]]] = []

    def begin(self) -> None:
        """Called once, on the loop."""

    # -- tasks -----------------------------------------------------------------------------------------------------
    def add(self, task: Task) -> None:
        """Take a task; it fails at once when the pool is closed."""
        if not self._is_open:
            self.discard(task, refusal_of(self.broken))
            return
        self.queue.push(task)
        self._deal()

    def _deal(self) -> None:
        room = self._limit * _AHEAD - len(self._running)
        if room <= 0 or not self.queue:
            return
        for task in self.queue.take(room, float("inf"), 0):
            target, args, kwargs, carried = task.call
            task.link = None
            task.number = 0
            try:
                if carried is None:
                    future = self._executor.submit(target, *args, **kwargs)
                else:
                    future = self._executor.submit(_carry, self.config.context, carried, target, args, kwargs)
            except Exception as error:  # shut down, or broken
                self.discard(task, error)
                continue
            self._running[task] = future
            task.submitted_ns = monotonic_ns() - task.submitted_ns  # now: how long it waited
            future.add_done_callback(lambda ended, task=task: self._has_ended(task, ended))  # type: ignore[misc]

    def _has_ended(self, task: Task, future: Future[Any]) -> None:
        """Called by the executor, on any thread."""
        with self._lock:
            self._ended.append((task, future))
            wake = len(self._ended) == 1
        if wake:
            self.driver.call(self._settle)

    def _settle(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for task, future in ended:
            if self._running.pop(task, None) is None:
                continue
            self._meter.waits.fresh.append(task.submitted_ns)
            self.release(task)
            if future.cancelled():
                task._fail(asyncio.CancelledError())
            elif (error := future.exception()) is not None:
                self._meter.failed += 1
                task._fail(asyncio.CancelledError() if isinstance(error, CancelledError) else error)
            else:
                task._succeed(future.result())
            self._meter.runs.fresh.append(0)
        self._meter.fold()
        self._deal()
        self._maybe_closed()

    def stop(self, task: Task) -> None:
        """The caller of a task has its outcome, a cancel: take it back if it waits, else leave it alone."""
        self._meter.cancelled += 1
        self.queue.forget(task)
        if isinstance(task, FutureTask):
            task.notify_cancel()
        future = self._running.get(task)
        if future is not None:
            future.cancel()
        self.release(task)
        self._maybe_closed()

    def release(self, task: Task) -> None:
        """Let go of what an unfinished task holds: its arguments and its place. Safe to call twice."""
        if task.call is not None:
            task.call = None
            if self._admission is not None and task.number != NO_PLACE:
                self._admission.leave()

    def discard(self, task: Task, error: BaseException) -> None:
        """Fail a task without a result."""
        self.release(task)
        if isinstance(task, FutureTask) and not task.done():
            task.begin()
        task._fail(error)

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self, then: Callable[[], Any], *, cancel_waiting: bool, force: bool) -> None:
        """Take no more tasks, finish those that were accepted, then call `then`. The executor stays open."""
        before = self._closed
        self._closed = then if before is None else lambda: (before(), then())
        self._is_open = False
        if self._is_closed:
            then()
            return
        if cancel_waiting or force:
            for task in self.queue.clear():
                if not task.done():
                    self._meter.cancelled += 1
                    self.discard(task, asyncio.CancelledError())
        if force:
            for task, future in list(self._running.items()):
                future.cancel()
                self._running.pop(task, None)
                if not task.done():
                    self._meter.cancelled += 1
                    self.discard(task, asyncio.CancelledError())
        self._maybe_closed()

    def _maybe_closed(self) -> None:
        if self._closed is not None and not self._is_closed and not self.queue and not self._running:
            self._is_closed = True
            self._closed()

    def abandon(self) -> None:
        """The loop or the program ends: nobody waits any more."""
        self._is_open = False
        self._is_closed = True
        tasks = [*self.queue.clear(), *self._running]
        for future in self._running.values():
            future.cancel()
        self._running.clear()
        for task in tasks:
            if isinstance(task, FutureTask):
                self.discard(task, refusal_of(None))
            elif not task.done() and not self.loop.is_closed():
                self.discard(task, asyncio.CancelledError())

    def forget(self) -> None:
        """In a forked child: nothing of it is here."""

    # -- numbers ---------------------------------------------------------------------------------------------------
    def resize(self, workers: int) -> None:
        """Change how many tasks the executor is given."""
        self._limit = workers
        self._deal()

    def when_ready(self, then: Callable[[BaseException | None], Any]) -> None:
        """An executor starts its workers as it likes."""
        then(None)

    @property
    def queued(self) -> int:
        """How many tasks wait here or with the executor."""
        return len(self.queue) + max(0, len(self._running) - self._limit)

    @property
    def running(self) -> int:
        """How many tasks run, as far as can be told."""
        return min(len(self._running), self._limit)

    def workers(self) -> tuple[PoolWorkerStatistics, ...]:
        """An executor does not show its workers."""
        return ()


def _carry(
    names: tuple[str, ...], carried: Carried, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return WorkerContext(names).run(carried, _call, target, args, kwargs)


def _call(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return target(*args, **kwargs)


def workers_of(executor: Any) -> int:
    """Return how many workers an executor has, as far as it tells."""
    return int(getattr(executor, "_max_workers", 0) or os.cpu_count() or 1)

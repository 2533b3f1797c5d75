"""The one object behind all faces of a pool: which loop it works on, what it accepts, how it ends.

What lives here: `Core`. What must not: how tasks are run (the engines), what users see (`_pool`, `_executor`), what
happens to all pools at the end of the program (`_pools`).

The loop is chosen on first use: the caller's for asynchronous use, one on a thread of our own for `submit` and the
executor. When that loop has ended, the next use chooses again. Everything that reaches an engine does so on its loop.
"""

from __future__ import annotations

import sys
import threading
from asyncio import _get_running_loop as _running_loop
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from .. import _telemetry
from ..errors import PoolFull, UsageError
from ..loop import AnyOperation, Handle, Hub, Operation, begin, hub
from ..worker_threads._main_module import GUARD, is_importing_main
from . import _pools as pools
from ._calls import Calls, Made
from ._context import Carrier
from ._driver import Driver
from ._engine_executor import ExecutorCalls, ExecutorEngine
from ._engine_far import FarEngine
from ._engine_local import LocalEngine, refusal
from ._far_calls import FarCalls
from ._meter import Meter
from ._options import PoolConfig, TaskOptions
from ._queue import NO_PLACE, Admission
from ._shared import Shared, put_local
from ._spans import follow
from ._tasks import CallbackTask, FutureTask, Relay, Task, make_async, set_up

Engine = LocalEngine | ExecutorEngine | FarEngine


class _Guard(Handle):
    """Open while an engine uses a loop, so that the end of `multiloop.run` ends the workers; keeps nothing running."""

    def __init__(self, core: Core, of: Hub) -> None:
        super().__init__()
        self._core = core
        self.unref()
        self._opened(of)

    def _shutdown(self) -> None:
        self._ended()
        self._core.let_go()

    def over(self) -> None:
        """The engine has ended by itself."""
        self._ended()


class Core:
    """A pool without its faces."""

    def __init__(self, config: PoolConfig, *, takes_all: bool = False) -> None:
        self.config = config
        self._takes_all = takes_all  # as many workers as the engine has room for, once that is known
        self.limit = config.workers
        self.meter = Meter()
        carrier = Carrier(config.context)
        self.calls = self._calls(carrier)
        self.admission = None if config.max_queue is None else Admission(config.workers + config.max_queue)
        self.engine: Engine | None = None
        self.driver: Driver | None = None
        self.is_closed = False
        self._guard: _Guard | None = None
        self._lock = threading.RLock()
        self._inbox: deque[Task] = deque()
        self._is_inbox_armed = False

    def _calls(self, carrier: Carrier) -> Calls:
        if self.config.engine is not None:
            return ExecutorCalls(carrier)
        cluster = self.config.cluster
        return Calls(carrier) if cluster is None else FarCalls(carrier, cluster.cloud, self._adopt)

    # -- starting --------------------------------------------------------------------------------------------------
    def bind(self, of: Hub | None) -> Driver:
        """Return the loop this pool works on, chosen now if there is none: `of`'s, or one of our own for None."""
        with self._lock:
            driver = self.driver
            if driver is not None and (driver.is_alive or (of is not None and driver.loop is of.loop)):
                return driver
            self.refuse_if_closed()
            if driver is not None:
                self.let_go()
            driver = Driver.of_own(self.config.name) if of is None else Driver(of, None)
            self.engine = self._make_engine(driver)
            self.driver = driver
            pools.add(self)
            if driver.thread is None:
                self._guard = _Guard(self, driver.hub)
                self.engine.begin()
            else:
                driver.call(self.engine.begin)
            return driver

    def _make_engine(self, driver: Driver) -> Engine:
        given = self.config, self.limit, driver, self.meter, self.admission
        if self.config.cluster is not None:
            far = FarEngine(*given)
            if self._takes_all:
                far.has_room_for = self.resize
            return far
        return LocalEngine(*given) if self.config.engine is None else ExecutorEngine(*given)

    def refuse_if_closed(self) -> None:
        """Raise what a task that comes now would end with, if the pool is closed."""
        if pools.is_program_over():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self.is_closed:
            raise refusal()
        check_main_guard()

    @property
    def broken(self) -> BaseException | None:
        """Why no worker can start, None when all is well."""
        return None if self.engine is None else self.engine.broken

    @property
    def is_busy(self) -> bool:
        """Whether a task waits or runs."""
        engine = self.engine
        return engine is not None and bool(engine.queued or engine.running)

    # -- tasks -----------------------------------------------------------------------------------------------------
    def run(
        self,
        options: TaskOptions,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stream: Any = None,
    ) -> Operation[Any]:
        """Give a task to the workers from a loop; returns the started operation."""
        if _telemetry.MODULE in sys.modules and (tracer := _telemetry.tracer()) is not None:
            return follow(tracer, target, options, lambda told: self._run(told, target, args, kwargs, stream))  # type: ignore[no-any-return]
        return self._run(options, target, args, kwargs, stream)

    def _run(
        self,
        options: TaskOptions,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stream: Any,
    ) -> Operation[Any]:
        engine = self.engine
        if engine is None or _running_loop() is not engine.loop or self.is_closed:
            return self._run_elsewhere(options, target, args, kwargs, stream)
        made = self.calls.make(target, args, kwargs, stream is not None, options.idempotent)
        of = engine.hub
        task: Any
        if options.callback is None:
            task = make_async(of, self, options, made)
        else:
            task = CallbackTask(of, options.callback)
            set_up(task, self, options, made)
        if stream is not None:
            task.stream = stream
        if self.admission is None:
            engine.add(task)
        else:
            try:
                self._place(task, may_block=False)
            except BaseException:
                _forget_counted(task, of)
                raise
        return task  # type: ignore[no-any-return]

    def _run_elsewhere(
        self,
        options: TaskOptions,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stream: Any,
    ) -> Operation[Any]:
        """The first task, or one from another loop than the one that does the pool's I/O."""
        try:
            of = hub()
        except RuntimeError:
            raise RuntimeError(
                "pool.run() needs a running loop; from synchronous code use pool.submit(...).result()"
            ) from None
        if self.bind(of).loop is of.loop:
            self.refuse_if_closed()
            return self._run(options, target, args, kwargs, stream)
        future = self._submit(options, target, args, kwargs, stream, False)
        op: Any = begin(options.callback, of)
        op._stop = lambda: self.stop_future(future)
        if stream is not None:
            stream.task = future
        _relay(of).follow(op, future)
        return op  # type: ignore[no-any-return]

    def submit(
        self,
        options: TaskOptions,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        stream: Any = None,
        may_block: bool = True,
    ) -> FutureTask:
        """Give a task to the workers from anywhere; returns a concurrent.futures.Future."""
        return self.traced(target, options, lambda told: self._submit(told, target, args, kwargs, stream, may_block))

    @staticmethod
    def traced(
        target: Callable[..., Any], options: TaskOptions, start: Callable[[TaskOptions], FutureTask]
    ) -> FutureTask:
        """Start a task, in a span of its own where the program traces."""
        if _telemetry.MODULE in sys.modules and (tracer := _telemetry.tracer()) is not None:
            return follow(tracer, target, options, start)  # type: ignore[no-any-return]
        return start(options)

    def _submit(
        self,
        options: TaskOptions,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stream: Any,
        may_block: bool,
    ) -> FutureTask:
        self.bind(None)
        self.refuse_if_over()
        made = self.calls.make(target, args, kwargs, stream is not None, options.idempotent)
        return self.give(options, made, stream, may_block)

    def refuse_if_over(self) -> None:
        """Raise what a task that comes now would end with, if the pool is closed or broken."""
        self.refuse_if_closed()
        if self.broken is not None:
            raise self.broken

    def give(self, options: TaskOptions, made: Made, stream: Any = None, may_block: bool = True) -> FutureTask:
        """Give a call that is made to the workers."""
        task = FutureTask()
        set_up(task, self, options, made)
        task.stream = stream
        self._place(task, may_block)
        return task

    def _place(self, task: Task, may_block: bool) -> None:
        """Hand a task to the engine once there is room for it. Raises PoolFull where it must not wait."""
        admission = self.admission
        if admission is None or admission.enter():
            self._hand_over(task)
            return
        if not task.options.block:
            raise PoolFull(admission.count, admission.limit)
        task.number = NO_PLACE
        if may_block and self.driver is not None and not self.driver.is_here:
            entered = threading.Event()

            def enter() -> bool:
                entered.set()
                return True

            if not admission.enter_or_wait(enter):
                entered.wait()
            self._hand_over(task)
        elif admission.enter_or_wait(lambda: not task.done() and self._hand_over(task)):
            self._hand_over(task)

    def _hand_over(self, task: Task) -> bool:
        driver, engine = self.driver, self.engine
        task.number = 0
        if driver is None or engine is None:
            task._fail(refusal())
        elif driver.is_here:
            engine.add(task)
        else:
            self._inbox.append(task)
            if not self._is_inbox_armed:
                self._is_inbox_armed = True
                if not driver.call(self._empty_inbox):
                    self._empty_inbox()
        return True

    def _empty_inbox(self) -> None:
        self._is_inbox_armed = False
        while self._inbox:
            task = self._inbox.popleft()
            if self.engine is None:
                task._fail(refusal())
            elif not task.done():
                self.engine.add(task)

    def on_driver(self, function: Callable[..., Any], *args: Any) -> None:
        """Call on the engine's loop: now if this is it."""
        if self.driver is not None:
            if self.driver.is_here:
                function(*args)
            else:
                self.driver.call(function, *args)

    def stop(self, task: Task) -> None:
        """See `_tasks.Owner`."""
        if self.engine is not None:
            self.on_driver(self.engine.stop, task)

    def stop_future(self, future: FutureTask) -> bool:
        """Stop a task, running or not; False when it had ended."""
        if future.done():
            return False
        if future.cancel():
            return True

        def stop_running() -> None:
            if not future.done() and self.engine is not None:
                future._stopped()
                self.engine.stop(future)

        self.on_driver(stop_running)
        return True

    def would_deadlock(self) -> bool:
        """See `_tasks.Owner`."""
        return self.driver is not None and self.driver.is_here and self.driver.loop.is_running()

    def credit(self, task: Task, items: int) -> None:
        """Let a stream send more items."""

        def send() -> None:
            if task.link is not None and not task.done():
                task.link.send_credit(task, items)

        self.on_driver(send)

    # -- values that many tasks use --------------------------------------------------------------------------------
    def put(self, value: Any) -> Shared:
        """Put a value where all workers find it; takes as long as that takes."""
        cluster = self.config.cluster
        if self.config.engine is not None:
            raise UsageError("put() cannot be kept with an executor as engine: give its tasks the value itself")
        if cluster is None:
            return put_local(value)
        cluster.connect()
        far, size = cluster.put(value)
        return self._hold(Shared(size, far=far))

    def _adopt(self, value: Any) -> Shared | None:
        """Return what stands for a value that is the engine's already."""
        far = self.config.cluster.adopt(value)
        return None if far is None else self._hold(Shared(0, far=far))

    def _hold(self, shared: Shared) -> Shared:
        shared.when_dropped(self._drop)
        return shared

    def _drop(self, key: int) -> None:
        engine, driver = self.engine, self.driver
        if isinstance(engine, FarEngine) and driver is not None and not driver.loop.is_closed():
            driver.call(engine.drop, key)

    def resize(self, workers: int) -> None:
        """Change how many workers there may be."""
        before, self.limit = self.limit, workers
        if self.admission is not None:
            self.admission.limit += workers - before
            self.admission.settle()
        if self.engine is not None:
            self.on_driver(self.engine.resize, workers)

    # -- ending ----------------------------------------------------------------------------------------------------
    def close(self, then: Callable[[], Any], *, cancel_waiting: bool = False, force: bool = False) -> None:
        """Take no more tasks; finish what was accepted (or stop it), end the workers, call `then` on the loop."""
        with self._lock:
            self.is_closed = True
            engine, driver = self.engine, self.driver
            if engine is None or driver is None or not driver.is_alive:
                self.let_go()
                engine = None
        if engine is None or driver is None:
            then()
            return

        def closed() -> None:
            self._over()
            driver.end()
            then()

        def close() -> None:
            if self.admission is not None:
                self.admission.open_wide()
            self._empty_inbox()
            engine.close(closed, cancel_waiting=cancel_waiting, force=force)

        self.on_driver(close)

    def shutdown(self, *, wait: bool, cancel_waiting: bool, force: bool) -> None:
        """Close from synchronous code. Raises RuntimeError where waiting would never end."""
        driver = self.driver
        done = threading.Event()
        self.close(done.set, cancel_waiting=cancel_waiting, force=force)
        if not wait or driver is None:
            return
        if driver.is_here and not done.is_set() and driver.loop.is_running():
            raise RuntimeError("waiting here would stop the loop that ends the pool: use `await pool.close()`")
        done.wait()
        if driver.thread is not None and not driver.is_here:
            driver.thread.join()

    def when_ready(self, of: Hub, op: AnyOperation[None]) -> None:
        """Start all workers, and settle an operation of `of`'s loop once they are ready."""

        def settle(error: BaseException | None) -> None:
            if error is None:
                op._succeed(None)
            else:
                op._fail(error)

        def ready(error: BaseException | None) -> None:
            if not of.loop.is_closed():
                of.loop.call_soon_threadsafe(settle, error)

        if self.engine is not None:
            self.on_driver(self.engine.when_ready, ready)

    def _over(self) -> None:
        pools.discard(self)
        if self._guard is not None:
            self._guard.over()
            self._guard = None

    def let_go(self) -> None:
        """End everything at once and without waiting: the loop or the program ends. A later use starts again."""
        with self._lock:
            engine, driver = self.engine, self.driver
            self.engine = self.driver = None
            self._over()
        if engine is None or driver is None:
            return
        if driver.thread is not None and driver.is_alive and not driver.is_here:

            def abandon() -> None:
                engine.abandon()
                driver.end()

            driver.call(abandon)
            driver.thread.join()
        else:
            engine.abandon()
        self._empty_inbox()

    def forget(self) -> None:
        """In the child of somebody's fork: the workers are the parent's, and so is the thread."""
        engine = self.engine
        self.engine = self.driver = self._guard = None
        self._lock = threading.RLock()
        self._inbox.clear()
        self.meter = Meter()
        if self.admission is not None:
            self.admission = Admission(self.admission.limit)
        if engine is not None:
            engine.forget()


def _forget_counted(task: Any, of: Hub) -> None:
    """Undo the counting of an operation that was never handed out."""
    if task._counted:
        task._counted = False
        of.release()


def _relay(of: Hub) -> Relay:
    try:
        return cast(Relay, of.loop._multiloop_pool_relay)  # type: ignore[attr-defined]
    except AttributeError:
        made = of.loop._multiloop_pool_relay = Relay(of)  # type: ignore[attr-defined]
        return made


def check_main_guard() -> None:
    """Raise the one clear line when a worker's import of the main file runs the program again."""
    if is_importing_main():
        raise UsageError(
            f"the main file starts a pool when it is imported, and a pool's worker has just imported it to find a "
            f"function: {GUARD}"
        )

"""`Pool`: what users see.

What lives here: the faces `Pool` and `Configured` with their documentation. What must not: how anything is done.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

from ..errors import UsageError
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, begin, hub
from ..loop._offload import offload_to
from ..stats import PoolStatistics
from . import _machine
from . import _options as options_of
from ._context import find_variable
from ._core import Core
from ._engine_executor import workers_of
from ._executor import PoolExecutor
from ._iterate import Mapping as MapOf
from ._options import Kind, PoolConfig, TaskOptions
from ._shared import Shared
from ._statistics import statistics_of
from ._streams import Stream
from ._tasks import AsyncTask, CallbackTask, FutureTask

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

_names = itertools.count(1)
_DEFAULT = TaskOptions()


class Lifeline:
    """Held by every face of a pool: when the last one is gone, the pool finishes what it has and closes."""

    def __init__(self, core: Core) -> None:
        finalizer = weakref.finalize(self, _let_finish, core)
        finalizer.atexit = False


def _let_finish(core: Core) -> None:
    """Close later, on the pool's own loop: garbage is collected anywhere, also in the middle of the engine."""
    driver = core.driver
    if driver is None:
        core.is_closed = True
    elif not core.is_closed and not driver.call(core.close, lambda: None):
        core.let_go()  # that loop is closed


class Configured:
    """A pool together with options for its tasks; `pool.options(...)` makes it."""

    def __init__(self, core: Core, lifeline: Lifeline, options: TaskOptions) -> None:
        self._core = core
        self._lifeline = lifeline
        self._options = options

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Operation[T]:
        """Run `function(*args, **kwargs)` in a worker: `value = await pool.run(function, *args)`.

        Starts at once. All arguments go to the function; arguments of the pool's own go through `options`. Function,
        arguments and result are pickled; what the function changes in its arguments stays in the worker.

        Cancelling the awaiter stops the task: where it runs its worker is killed and replaced (after a moment in which
        it may return by itself, if it has called `pool.stop_requested()`), and no other task notices.

        Raises, when called:
            NotSendable: the function or an argument cannot be pickled; names the path to it.
            PoolFull: as many tasks are unfinished as `max_queue` allows, and `options(block=True)` was not given.
            PoolClosed: the pool is closed.
        Raises, when awaited: what the function raised, with its notes, causes and the worker's traceback, or
            WorkerDied: the worker ended while it ran this task; its message names the signal.
            TimeoutError: it ran for longer than its `timeout`.
            PoolBroken: no worker can start.
        """
        return self._core.run(self._options, function, args, kwargs)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `function(*args, **kwargs)` in a worker and return a concurrent.futures.Future; works without a loop.

        `future.cancel()` cancels what no worker has yet; `pool.stop(future)` also stops what runs. With `block=True`
        this call waits while the pool is full. Raises as `run`.
        """
        return cast("Future[T]", self._core.submit(self._options, function, args, kwargs))

    def map(
        self,
        function: Callable[[Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
        buffer: int | None = None,
        progress: bool = False,
    ) -> MapOf[T]:
        """Run `function(item)` for every item: `async for value in pool.map(...)`, or `for` in synchronous code.

        Items are taken lazily: at most `buffer` tasks are under way, finished or not (None: four for each worker, more
        while they are tiny). The first exception is raised, and ends it; leaving the loop stops what is under way.

        Args:
            ordered: values in the order of the items; False: as they are ready.
            progress: draw a bar on standard error.
        """
        return MapOf(self._core, self._lifeline, self._options, function, items, ordered, buffer, progress)

    def stream(self, function: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """Iterate what a generator function yields in a worker: `async for value in pool.stream(function, *args)`.

        The worker is at most 16 values ahead. Leaving the loop closes the generator at its next `yield`; one that does
        not come there within a second is killed. In synchronous code: `for`.
        """
        return Stream(self._core, self._lifeline, self._options, function, args, kwargs)


class Pool(Configured):
    """Workers that run CPU-bound functions beside the loop.

    `async with Pool() as pool: value = await pool.run(function, *args)`; from synchronous code
    `with Pool() as pool: value = pool.submit(function, *args).result()`. The pool starts on first use; entering it is
    for closing it. Leaving the block waits for what was given to the pool; leaving it by an exception stops that.

    A worker is started when a task finds no idle one, until there are `workers`. A worker that dies fails only the task
    it was running; tasks that were sent ahead to it and had not begun are run by others.

    Args:
        workers: how many at most; None: one for each core that this process may use.
        kind: "process" (every Python, can always be stopped), "interpreter" (Python 3.14 and newer), "thread";
            "auto" is "process".
        engine: "local"; "ray" (the Ray that this process uses, or RAY_ADDRESS names, or one on this machine),
            "ray://host:port", "dask://host:port": workers on other machines; or any concurrent.futures.Executor, which
            then decides how its tasks are run and ended.
        max_queue: how many tasks may wait beyond one for each worker; 0: none; None: any number.
        nice: niceness of the workers; None: as this process, or 10 inside a server.
        task_timeout: seconds that a task may run, from its start; `options(timeout=...)` overrides it.
        recycle_after_tasks: replace a worker after so many tasks.
        recycle_above_rss: replace a worker, between two tasks, when it holds more than so many bytes.
        recycle_after_age: replace a worker, between two tasks, after so many seconds (10 % jitter).
        initializer: called in each worker before its first task, with `initargs`; if it raises the pool is broken.
        finalizer: called in each worker that leaves in peace: at the end, or when it is recycled.
        context: names of context variables ("package.module:variable") whose values travel with each task.
        cores: pin workers: "spread" (each to one core, in turn), or a list of cores or sets of cores, used in turn.
        warm: start all workers on first use and keep that number; see also `ready()`.
        name: in thread names, the list of processes and statistics.
        cpus, gpus, memory, resources: what each worker asks of Ray or Dask: numbers of cores and accelerators, bytes,
            and whatever else the cluster has, by name.
    """

    def __init__(
        self,
        workers: int | None = None,
        kind: Kind = "auto",
        engine: str | Executor = "local",
        *,
        max_queue: int | None = None,
        nice: int | None = None,
        task_timeout: float | None = None,
        recycle_after_tasks: int | None = None,
        recycle_above_rss: int | None = None,
        recycle_after_age: float | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], Any] | None = None,
        context: Sequence[str] = (),
        cores: Any = None,
        warm: bool = False,
        name: str | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        if max_queue is not None and max_queue < 0:
            raise ValueError(f"max_queue={max_queue!r}: a number of tasks, or None for any number")
        asked = options_of.check_resources(cpus, gpus, memory, resources)
        executor, cluster, engine_name = options_of.check_engine(engine, asked)
        count = options_of.check_workers(workers_of(executor) if workers is None and executor is not None else workers)
        chosen, reason = options_of.choose_kind(kind, has_engine=engine_name != "local")
        for variable in context:
            find_variable(variable)
        config = PoolConfig(
            workers=count,
            kind=chosen,
            kind_reason=reason,
            engine=executor,
            cluster=cluster,
            engine_name=engine_name,
            name=name or f"pool-{next(_names)}",
            max_queue=max_queue,
            nice=_machine.defaults.nice if nice is None and chosen == "process" and cluster is None else nice,
            cores=options_of.check_cores(cores),
            task_timeout=options_of.check_positive("task_timeout", task_timeout),
            recycle_after_tasks=options_of.check_positive("recycle_after_tasks", recycle_after_tasks),
            recycle_above_rss=options_of.check_positive("recycle_above_rss", recycle_above_rss),
            recycle_after_age=options_of.check_positive("recycle_after_age", recycle_after_age),
            initializer=options_of.check_hook("initializer", initializer, (initializer, tuple(initargs))),
            finalizer=options_of.check_hook("finalizer", finalizer, finalizer),
            context=options_of.check_names(context),
            warm=warm,
        )
        options_of.check_fit(config)
        core = Core(config, takes_all=cluster is not None and workers is None)
        options = _DEFAULT if task_timeout is None else TaskOptions(timeout=task_timeout)
        super().__init__(core, Lifeline(core), options)
        self._executor = PoolExecutor(core, self._lifeline, options)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._core.config.name

    @property
    def kind(self) -> str:
        """What the workers are: "process", "interpreter" or "thread"; `kind_reason` says why."""
        return self._core.config.kind

    @property
    def kind_reason(self) -> str:
        """Why `kind` is what it is."""
        return self._core.config.kind_reason

    @property
    def executor(self) -> PoolExecutor:
        """This pool as a concurrent.futures.Executor. Works without entering the pool; its `shutdown` closes it."""
        return self._executor

    def options(
        self,
        *,
        timeout: float | None = None,
        priority: int = 0,
        block: bool = False,
        idempotent: bool = False,
        on_report: Callable[[Any], Any] | None = None,
        callback: Callable[[BaseException | None, Any], Any] | None = None,
    ) -> Configured:
        """Return this pool with options for the tasks that are given to what is returned.

        Args:
            timeout: seconds that the task may run, from its start; then it is stopped: TimeoutError.
            priority: higher goes first among the tasks that wait.
            block: wait while the pool is full, instead of PoolFull.
            idempotent: it does no harm to run the task again: it is, twice at most, when its worker dies.
            on_report: called with what the task gives to `pool.report(...)`, on the pool's loop.
            callback: for `run`: called with (error, None) or (None, value), instead of awaiting.
        """
        given = TaskOptions(
            timeout=self._options.timeout if timeout is None else timeout,
            priority=priority,
            block=block,
            idempotent=idempotent,
            on_report=on_report,
            callback=callback,
        )
        options_of.check_task_fit(self._core.config, given)
        return Configured(self._core, self._lifeline, given)

    def stop(self, task: Any) -> bool:
        """Stop a task that `run` or `submit` returned, running or not; it ends as cancelled. False when it had ended.

        `future.cancel()` does not do that once a worker has the task: that is the contract of concurrent.futures.
        """
        if isinstance(task, FutureTask):
            return self._core.stop_future(task)
        if isinstance(task, AsyncTask | CallbackTask | Operation):
            return bool(task.cancel())
        raise UsageError(f"stop() needs what run() or submit() returned, not {type(task).__name__}")

    @overload
    def put(self, value: Any) -> Operation[Shared]: ...
    @overload
    def put(self, value: Any, *, callback: ErrorFirst) -> CallbackOperation[Shared]: ...
    def put(self, value: Any, *, callback: ErrorFirst | None = None) -> AnyOperation[Shared]:
        """Put a value where all workers find it: `shared = await pool.put(array)`, then `pool.run(function, shared)`.

        It is copied once, into shared memory or into the engine's object store, and each task gets the value itself; the
        memory of its arrays is read-only there. It stays as long as what this returns is held.

        Raises, when awaited: NotSendable; UsageError with an executor as engine; EngineLost.
        """
        of = hub()
        op: AnyOperation[Shared] = begin(callback, of)
        offload_to(op, self.put_now, (value,))
        return op

    def put_now(self, value: Any) -> Shared:
        """As `put`, from synchronous code: waits until the value is there."""
        return self._core.put(value)

    @overload
    def ready(self) -> Operation[None]: ...
    @overload
    def ready(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def ready(self, *, callback: ErrorFirst | None = None) -> AnyOperation[None]:
        """Start all workers; done when every initializer has run. Raises PoolBroken when one failed."""
        of = hub()
        op: AnyOperation[None] = begin(callback, of)
        self._core.bind(of)
        self._core.when_ready(of, op)
        return op

    def resize(self, workers: int) -> None:
        """Change how many workers there may be, while tasks run. Those that are too many leave after their task."""
        self._core.resize(options_of.check_workers(workers))

    def statistics(self) -> PoolStatistics:
        """Return what the pool has done and is doing, from any thread."""
        return statistics_of(self._core)

    @overload
    def close(self, *, force: bool = False) -> Operation[None]: ...
    @overload
    def close(self, *, force: bool = False, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def close(self, *, force: bool = False, callback: ErrorFirst | None = None) -> AnyOperation[None]:
        """Close: take no more tasks, finish those that were given, end the workers. Await it, on any loop.

        With `force` tasks that wait are cancelled and tasks that run are stopped.
        """
        of = hub()
        op: AnyOperation[None] = begin(callback, of)

        def closed() -> None:
            if not of.loop.is_closed():
                of.loop.call_soon_threadsafe(op._succeed, None)

        self._core.close(closed, cancel_waiting=force, force=force)
        return op

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close from synchronous code; as concurrent.futures.Executor.shutdown."""
        self.executor.shutdown(wait, cancel_futures=cancel_futures)

    async def __aenter__(self) -> Pool:
        self._core.bind(hub())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(force=error is not None)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._core.shutdown(wait=True, cancel_waiting=error is not None, force=error is not None)

    def __repr__(self) -> str:
        config = self._core.config
        return f"<Pool {config.name}: {self._core.limit} x {config.kind}{' closed' if self._core.is_closed else ''}>"

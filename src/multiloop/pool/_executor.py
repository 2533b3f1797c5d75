"""A pool as a concurrent.futures.Executor.

What lives here: `PoolExecutor`, with that contract to the letter. What must not: anything the contract does not know.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._core import Core
from ._options import TaskOptions
from ._tasks import FutureTask

if TYPE_CHECKING:
    from ._pool import Lifeline

T = TypeVar("T")


class PoolExecutor(concurrent.futures.Executor):
    """`pool.executor`: for `loop.run_in_executor`, and for code that takes any executor.

    Differs from ProcessPoolExecutor where that one gives up: a worker's death fails one task and not the pool, and its
    error (WorkerDied) is a BrokenExecutor, too. `map`'s chunksize is not needed: small tasks travel together anyway.
    """

    def __init__(self, core: Core, lifeline: Lifeline, options: TaskOptions) -> None:
        self._core = core
        self._lifeline = lifeline
        self._options = options

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Run `fn(*args, **kwargs)` in a worker. What cannot be pickled fails the future, as the contract has it.

        Raises:
            RuntimeError: after shutdown.
            BrokenExecutor: no worker can start.
            PoolFull: the pool has a `max_queue`, and it is reached.
        """
        core = self._core
        core.bind(None)
        core.refuse_if_over()

        def start(options: TaskOptions) -> FutureTask:
            try:
                made = core.calls.make(fn, args, kwargs)
            except Exception as error:
                failed = FutureTask()
                failed.set_running_or_notify_cancel()
                failed.set_exception(error)
                return failed
            return core.give(options, made)

        return cast("concurrent.futures.Future[T]", core.traced(fn, self._options, start))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool: finish what was submitted (or cancel what no worker has), end the workers.

        Raises RuntimeError on the loop that does the pool's I/O, where waiting would never end.
        """
        self._core.shutdown(wait=wait, cancel_waiting=cancel_futures, force=False)

    @property
    def _broken(self) -> BaseException | None:
        """As ThreadPoolExecutor and ProcessPoolExecutor have it."""
        return self._core.broken

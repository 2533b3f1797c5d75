"""`pool.stream`: what a generator function yields in a worker, iterated here.

What lives here: `Stream`, with an asynchronous and a synchronous face. What must not: how a task is run.

    the worker's ITEM frames → put() → what waits here → the loop of the user → credit() → the worker yields on
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import UsageError
from ._core import Core
from ._options import TaskOptions
from ._protocol import STREAM_WINDOW

if TYPE_CHECKING:
    from ._pool import Lifeline

T = TypeVar("T")

_CREDIT_AT = STREAM_WINDOW // 2  # items taken before the worker is told: half of the messages, never a pause
_End = object()


class Stream(Generic[T]):
    """What `pool.stream` returns: `async for value in ...` on a loop, `for value in ...` elsewhere. Iterate it once."""

    def __init__(
        self,
        core: Core,
        lifeline: Lifeline,
        options: TaskOptions,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if options.callback is not None:
            raise UsageError("stream() has no callback: iterate it")
        self._core = core
        self._lifeline = lifeline
        self._options = replace(options, idempotent=False)
        self._call = (function, args, kwargs)
        self.task: Any = None  # the one that the engine knows, which may not be the one that is awaited
        self._put: Callable[[Any, BaseException | None], Any] = lambda value, error: None

    def put(self, value: Any, error: BaseException | None) -> None:
        """Take an item, on the pool's loop."""
        self._put(value, error)

    # -- on a loop -------------------------------------------------------------------------------------------------
    def __aiter__(self) -> AsyncIterator[T]:
        return self._items_async()

    async def _items_async(self) -> AsyncIterator[T]:
        loop = asyncio.get_running_loop()
        items: deque[tuple[Any, BaseException | None]] = deque()
        waiter: asyncio.Future[None] | None = None

        def wake(*_: Any) -> None:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

        def put(value: Any, error: BaseException | None) -> None:
            items.append((value, error))
            if here():
                wake()
            else:
                loop.call_soon_threadsafe(wake)

        def here() -> bool:
            return asyncio._get_running_loop() is loop

        self._put = put
        function, args, kwargs = self._call
        task: Any = self._core.run(self._options, function, args, kwargs, self)
        task.add_done_callback(wake)
        if self.task is None:
            self.task = task
        taken = 0
        try:
            while True:
                while items:
                    value, error = items.popleft()
                    if error is not None:
                        raise error
                    taken += 1
                    if taken % _CREDIT_AT == 0:
                        self._core.credit(self.task, _CREDIT_AT)
                    yield value
                    del value
                if task.done() and not items:
                    task.result()
                    return
                waiter = loop.create_future()
                await waiter
        finally:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                task.exception()

    # -- without a loop --------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[T]:
        items: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._put = lambda value, error: items.put((value, error))
        function, args, kwargs = self._call
        future = self._core.submit(self._options, function, args, kwargs, stream=self)
        if not future.done() and self._core.would_deadlock():
            self._core.stop_future(future)
            raise RuntimeError("waiting here would stop the loop that reads the stream: use `async for`")
        future.add_done_callback(lambda _: items.put((_End, None)))
        return self._items(future, items)

    def _items(self, future: Any, items: queue.SimpleQueue[tuple[Any, BaseException | None]]) -> Iterator[T]:
        taken = 0
        try:
            while True:
                value, error = items.get()
                if error is not None:
                    raise error
                if value is _End:
                    future.result()
                    return
                taken += 1
                if taken % _CREDIT_AT == 0:
                    self._core.credit(future, _CREDIT_AT)
                yield value
                del value
        finally:
            self._core.stop_future(future)

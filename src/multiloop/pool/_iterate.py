"""`pool.map`: many calls of one function, iterated.

What lives here: `Mapping`, with an asynchronous and a synchronous face. What must not: how a task is run.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import _limits as limits
from ..errors import UsageError
from ._assign import UNKNOWN_NS
from ._core import Core
from ._options import TaskOptions, check_positive
from ._progress import Bar

if TYPE_CHECKING:
    from ._pool import Lifeline

T = TypeVar("T")

_TINY_NS = 2_000_000.0  # as many tasks as make this much work for each worker are under way


class Mapping(Generic[T]):
    """What `pool.map` returns: `async for value in ...` on a loop, `for value in ...` elsewhere. Iterate it once."""

    def __init__(
        self,
        core: Core,
        lifeline: Lifeline,
        options: TaskOptions,
        function: Callable[[Any], T],
        items: Iterable[Any] | AsyncIterable[Any],
        ordered: bool,
        buffer: int | None,
        progress: bool,
    ) -> None:
        check_positive("buffer", buffer)
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"map() needs items to iterate, not {type(items).__name__}")
        self._core = core
        self._lifeline = lifeline
        # Waiting for room is what a lazy map does anyway.
        self._options = replace(options, block=True, callback=None)
        self._function = function
        self._items = items
        self._ordered = ordered
        self._buffer = buffer
        self._progress = progress

    def _most(self, task: Any) -> int:
        """Return how many tasks may be under way, knowing one of them."""
        if self._buffer is not None:
            return self._buffer
        each = limits.POOL_MAP_AHEAD
        known = getattr(task, "function", None)
        if known is not None and known.estimate_ns != UNKNOWN_NS:
            each = min(limits.POOL_MAP_AHEAD_MOST, max(each, int(_TINY_NS / (known.estimate_ns + 1000))))
        return each * self._core.limit

    def _bar(self) -> Bar | None:
        if not self._progress:
            return None
        total = len(self._items) if isinstance(self._items, Sized) else None
        return Bar(getattr(self._function, "__name__", "tasks"), total)

    # -- on a loop -------------------------------------------------------------------------------------------------
    def __aiter__(self) -> AsyncIterator[T]:
        return self._values_async()

    async def _values_async(self) -> AsyncIterator[T]:
        pending: deque[asyncio.Future[T]] = deque()
        ready: deque[asyncio.Future[T]] = deque()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] | None = None

        def is_ready(task: asyncio.Future[T]) -> None:
            ready.append(task)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

        bar = self._bar()
        under_way, most = 0, self._most(None)
        open_tasks: set[asyncio.Future[T]] = set()
        items = self._items_async()
        is_over = False
        try:
            while True:
                while not is_over and under_way < most:
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        is_over = True
                        break
                    task: asyncio.Future[T] = self._core.run(self._options, self._function, (item,), {})
                    under_way += 1
                    if self._ordered:
                        pending.append(task)
                    else:
                        open_tasks.add(task)
                        task.add_done_callback(is_ready)
                if not under_way:
                    return
                if self._ordered:
                    task = pending.popleft()
                else:
                    while not ready:
                        waiter = loop.create_future()
                        await waiter
                    task = ready.popleft()
                    open_tasks.discard(task)
                most = self._most(task)
                try:
                    value = await task
                except BaseException:
                    task.cancel()
                    raise
                under_way -= 1
                if bar is not None:
                    bar.advance()
                yield value
                del value
        finally:
            for task in (*pending, *open_tasks):
                if not task.cancel() and not task.cancelled():
                    task.exception()  # seen: what was raised first is what is told
            if bar is not None:
                bar.close()

    async def _items_async(self) -> AsyncIterator[Any]:
        if isinstance(self._items, AsyncIterable):
            async for item in self._items:
                yield item
        else:
            for item in self._items:
                yield item

    # -- without a loop --------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._items, Iterable):
            raise UsageError("the items are asynchronous: use `async for`")
        return self._values(iter(self._items))

    def _values(self, items: Iterator[Any]) -> Iterator[T]:
        pending: deque[Any] = deque()
        ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        bar = self._bar()
        under_way, most = 0, self._most(None)
        open_futures: set[Any] = set()
        is_over = False
        try:
            while True:
                while not is_over and under_way < most:
                    try:
                        item = next(items)
                    except StopIteration:
                        is_over = True
                        break
                    future = self._core.submit(self._options, self._function, (item,), {})
                    under_way += 1
                    if self._ordered:
                        pending.append(future)
                    else:
                        open_futures.add(future)
                        future.add_done_callback(ready.put)
                if not under_way:
                    return
                done = pending[0] if self._ordered else ready.get()
                value = done.result()
                most = self._most(done)
                open_futures.discard(done)
                if self._ordered:
                    pending.popleft()
                del done
                under_way -= 1
                if bar is not None:
                    bar.advance()
                yield value
                del value
        finally:
            for future in (*pending, *open_futures):
                self._core.stop_future(future)
            if bar is not None:
                bar.close()

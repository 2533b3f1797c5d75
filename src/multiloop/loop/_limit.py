"""Limiting one's own concurrency: `Limiter` and `map_limited`.

What lives here: two small tools over asyncio, for code that would otherwise start ten thousand operations at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar, overload

from ..errors import UsageError
from ._operation import CallbackOperation, ErrorFirst, launch

T = TypeVar("T")
R = TypeVar("R")


class Limiter:
    """At most `limit` bodies at a time: `async with limiter: ...`, or `await limiter.run(function, *args)`.

    First come, first served. `active` and `waiting` count what is inside and outside.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise UsageError(f"Limiter(limit={limit}): at least 1")
        self.limit = limit
        self.active = 0
        self.waiting = 0
        self._semaphore = asyncio.Semaphore(limit)

    async def __aenter__(self) -> Limiter:
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1
        self.active += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.active -= 1
        self._semaphore.release()

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call and await `function` once there is room. Keyword arguments are all the function's: there is no callback."""
        async with self:
            return await function(*args, **kwargs)


@overload
def map_limited(
    function: Callable[[T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], *, limit: int
) -> Coroutine[Any, Any, list[R]]: ...
@overload
def map_limited(
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int,
    callback: ErrorFirst,
) -> CallbackOperation[list[R]]: ...
def map_limited(
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int,
    callback: ErrorFirst | None = None,
) -> Coroutine[Any, Any, list[R]] | CallbackOperation[list[R]]:
    """Await `function(item)` for every item, at most `limit` at a time; results in the order of the items.

    Items are taken lazily. The first failure cancels the calls in flight, waits for them, and is raised.
    """
    mapping = _map_limited(function, items, limit)
    return mapping if callback is None else launch(mapping, callback)


async def _map_limited(
    function: Callable[[T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], limit: int
) -> list[R]:
    if limit < 1:
        raise UsageError(f"map_limited(limit={limit}): at least 1")
    results: dict[int, R] = {}
    running: set[asyncio.Task[None]] = set()

    async def one(index: int, item: T) -> None:
        results[index] = await function(item)

    async def settle(until: int) -> None:
        while len(running) > until:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running.difference_update(done)
            for task in done:
                task.result()

    index = 0
    try:
        if isinstance(items, AsyncIterable):
            async for item in items:
                running.add(asyncio.ensure_future(one(index, item)))
                index += 1
                await settle(limit - 1)
        else:
            for item in items:
                running.add(asyncio.ensure_future(one(index, item)))
                index += 1
                await settle(limit - 1)
        await settle(0)
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise
    return [results[i] for i in range(index)]

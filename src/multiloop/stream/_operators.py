"""What can be made of a `Readable`: `map`, `filter`, `take`, … give another one; `to_array`, `reduce`, `find`, … a value.

What lives here: `Operators`, the base of `Readable` that has them, on asynchronous iteration alone. What must not: buffers.

Rules
* Nothing is taken from the source before somebody takes from the result, and no more than its marks allow.
* Functions may be sync or async. With `concurrency` up to so many run at once; results stay in the order of the chunks.
* One that raises, a result that is left or destroyed, and an operator that has seen enough (`take`, `find`) destroy the
  source.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..loop import ErrorFirst, Operation, launch

if TYPE_CHECKING:
    from ._readable import Readable

Function = Callable[[Any], Any]
_NOTHING = object()


class Operators:
    """The operators of a `Readable`."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise NotImplementedError

    def _derive(self, source: AsyncGenerator[Any, None]) -> Readable:
        """Make a stream of objects from what an operator yields."""
        raise NotImplementedError

    # -- another stream --------------------------------------------------------------------------------------------
    def map(self, function: Function, *, concurrency: int = 1) -> Readable:
        """A stream of what `function` returns for each chunk."""
        return self._derive(_results(self, function, _checked(concurrency)))

    def filter(self, function: Function, *, concurrency: int = 1) -> Readable:
        """A stream of the chunks for which `function` returns something true."""
        return self._derive(_fitting(self, function, _checked(concurrency)))

    def flat_map(self, function: Function, *, concurrency: int = 1) -> Readable:
        """A stream of everything in the iterables, sync or async, that `function` returns."""
        return self._derive(_flat(self, function, _checked(concurrency)))

    def take(self, limit: int) -> Readable:
        """A stream of the first `limit` chunks; the source is destroyed after them."""
        return self._derive(_first(self, _checked(limit, "limit", 0)))

    def drop(self, limit: int) -> Readable:
        """A stream of all but the first `limit` chunks."""
        return self._derive(_rest(self, _checked(limit, "limit", 0)))

    # -- a value ---------------------------------------------------------------------------------------------------
    def to_array(self, *, callback: ErrorFirst | None = None) -> Operation[list[Any]]:
        """All chunks, in memory."""
        return launch(_gather(self), callback)  # type: ignore[no-any-return]

    def for_each(
        self, function: Function, *, concurrency: int = 1, callback: ErrorFirst | None = None
    ) -> Operation[None]:
        """Call `function` for each chunk; done when the last call is."""
        return launch(_for_each(self, function, _checked(concurrency)), callback)  # type: ignore[no-any-return]

    def reduce(
        self, function: Callable[[Any, Any], Any], initial: Any = _NOTHING, *, callback: ErrorFirst | None = None
    ) -> Operation[Any]:
        """`function(so_far, chunk)` for each chunk, beginning with `initial`, else with the first chunk.

        Raises TypeError for an empty stream without `initial`.
        """
        return launch(_reduced(self, function, initial), callback)  # type: ignore[no-any-return]

    def find(self, function: Function, *, concurrency: int = 1, callback: ErrorFirst | None = None) -> Operation[Any]:
        """The first chunk for which `function` returns something true; None when there is none."""
        return launch(_found(self, function, _checked(concurrency), None), callback)  # type: ignore[no-any-return]

    def some(self, function: Function, *, concurrency: int = 1, callback: ErrorFirst | None = None) -> Operation[bool]:
        """Whether `function` returns something true for one chunk."""
        return launch(_is_there(self, function, _checked(concurrency)), callback)  # type: ignore[no-any-return]

    def every(self, function: Function, *, concurrency: int = 1, callback: ErrorFirst | None = None) -> Operation[bool]:
        """Whether `function` returns something true for all chunks."""
        return launch(_is_everywhere(self, function, _checked(concurrency)), callback)  # type: ignore[no-any-return]


def _checked(number: int, name: str = "concurrency", least: int = 1) -> int:
    if number < least:
        raise UsageError(f"{name}={number!r}: {least} or more")
    return number


async def _call(function: Function, chunk: Any) -> Any:
    result = function(chunk)
    return await result if inspect.isawaitable(result) else result


async def _results(source: AsyncIterable[Any], function: Function, concurrency: int) -> AsyncGenerator[Any, None]:
    if concurrency == 1:
        async for chunk in source:
            yield await _call(function, chunk)
        return
    started: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    room = asyncio.Semaphore(concurrency)  # for calls whose results were not taken yet

    async def start_calls() -> None:
        try:
            async for chunk in source:
                await room.acquire()
                started.put_nowait(asyncio.ensure_future(_call(function, chunk)))
        finally:
            started.put_nowait(None)

    starting = asyncio.ensure_future(start_calls())
    calls = [starting]
    try:
        while (call := await started.get()) is not None:
            calls = [starting, call]
            result = await call
            room.release()
            yield result
        await starting
    finally:
        while not started.empty():
            calls.append(started.get_nowait() or starting)
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _fitting(source: AsyncIterable[Any], function: Function, concurrency: int) -> AsyncGenerator[Any, None]:
    async def ask(chunk: Any) -> tuple[bool, Any]:
        return bool(await _call(function, chunk)), chunk

    async with aclosing(_results(source, ask, concurrency)) as asked:
        async for fits, chunk in asked:
            if fits:
                yield chunk


async def _flat(source: AsyncIterable[Any], function: Function, concurrency: int) -> AsyncGenerator[Any, None]:
    async with aclosing(_results(source, function, concurrency)) as results:
        async for found in results:
            if isinstance(found, AsyncIterable):
                async for each in found:
                    yield each
            elif isinstance(found, Iterable) and not isinstance(found, str | bytes):
                for each in found:
                    yield each
            else:
                raise TypeError(f"flat_map(): the function must return an iterable, not {type(found).__name__}")


async def _first(source: AsyncIterable[Any], limit: int) -> AsyncGenerator[Any, None]:
    left = limit
    if left:
        async for chunk in source:
            yield chunk
            left -= 1
            if not left:
                break


async def _rest(source: AsyncIterable[Any], limit: int) -> AsyncGenerator[Any, None]:
    left = limit
    async for chunk in source:
        if left:
            left -= 1
        else:
            yield chunk


async def _gather(source: AsyncIterable[Any]) -> list[Any]:
    return [chunk async for chunk in source]


async def _for_each(source: AsyncIterable[Any], function: Function, concurrency: int) -> None:
    async with aclosing(_results(source, function, concurrency)) as results:
        async for _ in results:
            pass


async def _reduced(source: AsyncIterable[Any], function: Callable[[Any, Any], Any], initial: Any) -> Any:
    so_far = initial
    async for chunk in source:
        if so_far is _NOTHING:
            so_far = chunk
            continue
        so_far = function(so_far, chunk)
        if inspect.isawaitable(so_far):
            so_far = await so_far
    if so_far is _NOTHING:
        raise TypeError("reduce(): the stream is empty, and there is no initial value")
    return so_far


async def _found(source: AsyncIterable[Any], function: Function, concurrency: int, default: Any) -> Any:
    async with aclosing(_fitting(source, function, concurrency)) as fitting:
        async for chunk in fitting:
            return chunk
    return default


async def _is_there(source: AsyncIterable[Any], function: Function, concurrency: int) -> bool:
    return await _found(source, function, concurrency, _NOTHING) is not _NOTHING


async def _is_everywhere(source: AsyncIterable[Any], function: Function, concurrency: int) -> bool:
    async def fails(chunk: Any) -> bool:
        return not await _call(function, chunk)

    return not await _is_there(source, fails, concurrency)

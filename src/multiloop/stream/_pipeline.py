"""`pipeline`: stages tied together, with backpressure from end to end, and one end for all.

What lives here: what a stage may be, who feeds whom, and how all are brought down. What must not: streams.

The chain is pulled: the last stage takes from the one before, and so on. Only a stage with both sides (a Transform, a
socket) in the middle has a task that feeds it; generators need none.

One end for all: a stage fails, is closed too early, or the awaiter is cancelled → the feeding tasks are cancelled, every
stream is destroyed and every generator closed → when all are closed, that first error is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any

from ..errors import UsageError
from ..events import EventEmitter
from ..loop import ErrorFirst, hub, launch
from ._base import Stream
from ._finished import finished
from ._readable import END, Readable


def pipeline(*stages: Any, end: bool = True, callback: ErrorFirst | None = None) -> Any:
    """Move everything from the first stage through the others into the last; wait until it is written and all is closed.

    `await pipeline(fs.create_read_stream("a"), gzip, fs.create_write_stream("b"))`

    Stages
        first: a `Readable`, anything to iterate over, sync or async (text and bytes are one chunk), or a function that
            returns one.
        between: a `Transform` or whatever can be written to and iterated over, or a function that takes an async
            iterable and returns one (an async generator function).
        last: a `Writable` or whatever has `write`, `drain` and `end` (a socket, a child's stdin), or a function that
            takes an async iterable; what it returns is the result.

    Raises what the first failing stage raised; PrematureClose for one that was closed too early. Cancelling destroys
    all stages, too.

    Args:
        end: False leaves the last stage open at a good end, to write more to it.
    """
    if len(stages) == 1 and isinstance(stages[0], list | tuple):
        stages = tuple(stages[0])
    if len(stages) < 2:
        raise UsageError(f"pipeline() needs a source and a destination, not {len(stages)} stages")
    made = _Pipeline(stages, end)
    op = launch(made.run(), callback)
    for stage in stages:
        if isinstance(stage, Stream):
            stage._awaited = True
    cancel_task = op._stop

    def stop() -> None:
        cancel_task()
        made.cancelled()

    op._stop = stop
    return op


class _Pipeline:
    """One call of `pipeline`."""

    def __init__(self, stages: tuple[Any, ...], end: bool) -> None:
        self._stages = stages
        self._end = end
        self._made: list[Any] = []  # iterables that functions returned
        self._tasks: list[asyncio.Future[Any]] = []
        self._began = False

    def cancelled(self) -> None:
        """A task that is cancelled before its first step never takes it: then nobody else destroys the stages."""
        if not self._began:
            for stage in self._stages:
                if hasattr(stage, "destroy"):
                    stage.destroy()

    async def run(self) -> Any:
        self._began = True
        try:
            result = await self._flow()
        except BaseException as error:
            await self._destroy_all(error)
            raise
        # Sources and transforms close themselves at their end; nobody is left behind half-open.
        for stage in self._stages:
            if isinstance(stage, Stream) and stage.destroyed:
                await stage.wait_closed()
        return result

    async def _flow(self) -> Any:
        source = self._first(self._stages[0])
        for stage in self._stages[1:-1]:
            if _is_writable(stage) and hasattr(stage, "__aiter__"):
                self._start(self._feed(source, stage, end=True))
                source = stage
            elif callable(stage):
                source = self._call(stage, self._asynchronous(source))
                if not hasattr(source, "__aiter__"):
                    raise TypeError(f"a stage between must return an async iterable, not {type(source).__name__}")
            else:
                raise TypeError(f"{type(stage).__name__} cannot stand between two stages of a pipeline")
        last = self._stages[-1]
        if _is_writable(last):
            # Listens from the beginning: the destination may fail while the source is silent.
            over = finished(last, readable=False).unref() if isinstance(last, EventEmitter) else None
            if over is not None:
                self._tasks.append(over)
            final = self._start(self._feed(source, last, end=self._end, over=over))
        elif callable(last):
            final = self._start(self._consume(last, source))
        else:
            raise TypeError(f"{type(last).__name__} cannot be the end of a pipeline: it has no write() and end()")
        while not final.done():
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {final}:
                self._tasks.remove(task)
                task.result()
        for task in self._tasks:
            task.cancel()  # only listeners are left
        return final.result()

    def _first(self, stage: Any) -> Any:
        if isinstance(stage, str | bytes | bytearray | memoryview):
            return [stage]
        if callable(stage) and not _is_iterable(stage):
            stage = self._call(stage)
        if not _is_iterable(stage):
            raise TypeError(f"{type(stage).__name__} cannot be the source of a pipeline: it is not iterable")
        return stage

    def _call(self, stage: Callable[..., Any], *args: Any) -> Any:
        made = stage(*args)
        self._made.append(made)
        return made

    def _asynchronous(self, source: Any) -> Any:
        return source if hasattr(source, "__aiter__") else self._call(_each, source)

    def _start(self, coroutine: Any) -> asyncio.Task[Any]:
        task = hub().loop.create_task(coroutine)
        self._tasks.append(task)
        return task

    async def _feed(self, source: Any, stage: Any, *, end: bool, over: asyncio.Future[None] | None = None) -> None:
        async with contextlib.aclosing(_each(source)) as chunks:
            async for chunk in chunks:
                if not stage.write(chunk):
                    await stage.drain()
        if end:
            ending = stage.end()
            if inspect.isawaitable(ending):
                await ending
            if over is not None:
                await over

    async def _consume(self, last: Callable[..., Any], source: Any) -> Any:
        result = self._call(last, self._asynchronous(source))
        if inspect.isawaitable(result):
            return await result
        if hasattr(result, "__aiter__"):
            async for _ in result:
                pass
            return None
        return result

    async def _destroy_all(self, error: BaseException) -> None:
        for task in self._tasks:
            task.cancel()
        for stage in self._stages:
            if isinstance(stage, Stream):
                stage.destroy(None if isinstance(error, asyncio.CancelledError) else error)
                stage._gone()  # seen: this pipeline raises it
            elif hasattr(stage, "destroy"):
                stage.destroy()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()
        for made in reversed(self._made):
            if inspect.isasyncgen(made):
                await made.aclose()
            elif inspect.iscoroutine(made):
                made.close()
        for stage in self._stages:
            if inspect.isasyncgen(stage):
                await stage.aclose()
            elif isinstance(stage, Stream):
                await stage.wait_closed()


async def _each(source: AsyncIterable[Any] | Iterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(source, Readable):
        while (chunk := await source._next()) is not END:
            yield chunk
    elif hasattr(source, "__aiter__"):
        async for chunk in source:
            yield chunk
    else:
        for chunk in source:
            yield chunk


def _is_iterable(stage: Any) -> bool:
    return hasattr(stage, "__aiter__") or hasattr(stage, "__iter__")


def _is_writable(stage: Any) -> bool:
    return callable(getattr(stage, "write", None)) and callable(getattr(stage, "end", None))

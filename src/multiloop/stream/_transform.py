"""`Duplex`, `Transform`, `PassThrough`: streams with both sides.

What lives here: how the two sides are one stream: one `destroy`, one 'close', which comes when both have ended. What
must not: the sides themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from ._base import Stream
from ._readable import Readable
from ._writable import Writable


class Duplex(Readable, Writable):
    """A stream to write to and to take from, the two sides independent of each other.

    Subclass it with `_read` and `_write` (see `Readable` and `Writable`), or give functions.

    Args:
        high_water_mark: of both sides. `object_mode` likewise.
        allow_half_open: False: the writing side ends with the reading side.
    """

    def __init__(
        self,
        *,
        high_water_mark: int | None = None,
        object_mode: bool = False,
        encoding: str | None = None,
        allow_half_open: bool = True,
        read: Callable[[int], Any] | None = None,
        write: Callable[[Any], Any] | None = None,
        writev: Callable[[Sequence[Any]], Any] | None = None,
        final: Callable[[], Any] | None = None,
        destroy: Callable[[BaseException | None], Any] | None = None,
    ) -> None:
        Stream.__init__(self, destroy=destroy)
        self._set_readable(high_water_mark, object_mode, encoding)
        self._set_writable(high_water_mark, object_mode, "utf-8")
        self._use(_read=read, _write=write, _writev=writev, _final=final)
        self._allow_half_open = allow_half_open

    def _end(self) -> None:
        super()._end()
        if not self._allow_half_open and not self.writable_ended:
            self.end()

    def _maybe_close(self) -> None:
        if self.readable_ended and self.writable_finished:
            self.destroy()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
        await self.wait_closed()


class Transform(Duplex):
    """A stream that gives back something else than what is written to it.

    Subclass it with `_transform(self, chunk)` and, for what is left at the end, `_flush(self)`; or give functions. Each
    may be sync or async and returns one chunk, None for nothing, or yields many (a generator, sync or async). While its
    own reader does not take, it takes no more: both marks hold.
    """

    def __init__(
        self,
        transform: Callable[[Any], Any] | None = None,
        flush: Callable[[], Any] | None = None,
        *,
        high_water_mark: int | None = None,
        object_mode: bool = False,
        encoding: str | None = None,
        destroy: Callable[[BaseException | None], Any] | None = None,
    ) -> None:
        super().__init__(high_water_mark=high_water_mark, object_mode=object_mode, encoding=encoding, destroy=destroy)
        self._use(_transform=transform, _flush=flush)

    def _transform(self, chunk: Any) -> Any:
        """Return or yield what becomes of a chunk."""
        raise NotImplementedError(f"{type(self).__name__} needs _transform")

    def _flush(self) -> Any:
        """Return or yield what is left at the end."""

    async def _writev(self, chunks: Sequence[Any]) -> None:
        for chunk in chunks:
            await self._give(self._transform(chunk))

    async def _final(self) -> None:
        await self._give(self._flush())
        self.push(None)

    async def _give(self, result: Any) -> None:
        if inspect.isawaitable(result):
            result = await result
        if result is None:
            return
        if isinstance(result, Iterator):
            for chunk in result:
                await self._give_one(chunk)
        elif isinstance(result, AsyncIterable) and not isinstance(result, Readable):
            async for chunk in result:
                await self._give_one(chunk)
        else:
            await self._give_one(result)

    async def _give_one(self, chunk: Any) -> None:
        await self._wait_for_room()
        if chunk is not None:
            self.push(chunk)


class PassThrough(Transform):
    """A Transform that changes nothing: to look at a stream, or to join two."""

    def _transform(self, chunk: Any) -> Any:
        return chunk

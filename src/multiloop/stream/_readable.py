"""`Readable`: chunks that come, one after another, no faster than they are taken.

What lives here: the buffer between a source and whoever takes from it, and the ways of taking: `async for`, `read()`,
'data' listeners, `pipe`. What must not: where chunks come from (a subclass, or the source that is given).

The rule of the mark: a source is asked for more only while less than `high_water_mark` is buffered, one chunk at a time;
one that pushes unasked is told False. While nobody takes, nobody is asked.
"""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
)
from typing import Any, Self, overload

from ..errors import ClosedError, PrematureClose, UsageError
from ..loop import CallbackOperation, ErrorFirst, launch
from ._base import Stream
from ._chunks import LineSplitter, as_bytes, mark, size_of
from ._operators import Operators

END: Any = object()
"""What `Readable._next` gives once nothing follows."""


class Readable(Operators, Stream):
    """A stream to take chunks from.

    Give a source (an iterable, sync or async), or a subclass with `async def _read(self, size)` that returns the next
    chunk and None at the end, or push chunks yourself: `push(chunk)` (False: wait until it is taken) and `push(None)`.

    Take with `async for chunk in stream` (leaving the loop destroys it), `await stream.read()`, `on("data", ...)`, or make
    another stream or a value of it: `map` `filter` `flat_map` `take` `drop`, `to_array` `for_each` `reduce` `find` `some`
    `every`.
    Events: 'data' (chunk) · 'end' (everything was taken) · 'pause' · 'resume' · 'error' · 'close'.

    Args:
        high_water_mark: how much may be buffered: bytes (64 KiB), or objects (16).
        object_mode: chunks are any objects but None, not bytes. A source that is given implies it.
        encoding: chunks are decoded to text, characters never cut.
        read: the function to use in place of a subclass's `_read`.
        destroy: called once when it is destroyed; may be async.
    """

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any] | None = None,
        *,
        high_water_mark: int | None = None,
        object_mode: bool | None = None,
        encoding: str | None = None,
        read: Callable[[int], Awaitable[Any]] | None = None,
        destroy: Callable[[BaseException | None], Any] | None = None,
    ) -> None:
        Stream.__init__(self, destroy=destroy)
        objects = source is not None if object_mode is None else object_mode
        self._set_readable(high_water_mark, objects, encoding)
        if source is not None:
            self._iterator = _as_async(source)
            read = self._next_of_source
        self._use(_read=read)

    def _set_readable(self, high_water_mark: int | None, object_mode: bool, encoding: str | None) -> None:
        self._objects = object_mode
        self.readable_high_water_mark = mark(high_water_mark, object_mode)
        self._chunks: deque[Any] = deque()
        self.readable_length = 0
        """How much is buffered: bytes, or objects."""
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding is not None else None
        self._pulling: asyncio.Future[Any] | None = None  # the source is asked for a chunk
        self._arrived: asyncio.Future[None] | None = None  # somebody waits for one
        self._room: list[asyncio.Future[None]] = []  # somebody waits for less than the mark
        self._ended = False
        self.readable_ended = False
        """Whether everything was taken, and 'end' emitted."""
        self._flowing: bool | None = None  # None: nobody has asked for 'data' yet
        self._turn_queued = False

    @classmethod
    def from_(cls, source: AsyncIterable[Any] | Iterable[Any] | str | bytes, **options: Any) -> Self:
        """Make a stream of objects from an iterable (Node's `Readable.from`); text and bytes are one chunk."""
        return cls([source] if isinstance(source, str | bytes) else source, **options)

    def _derive(self, source: AsyncGenerator[Any, None]) -> Readable:
        return Readable(source)

    # -- the source's side -----------------------------------------------------------------------------------------
    def push(self, chunk: Any) -> bool:
        """Add a chunk, or None for the end. False: the mark is reached; add more after it was taken.

        Raises ClosedError after the end, TypeError for what is neither bytes nor text (without `object_mode`).
        """
        if self.destroyed:
            return False
        if self._ended:
            raise ClosedError(f"{type(self).__name__}.push() after the end")
        if chunk is None:
            self._ended = True
            if self._decoder is not None and (rest := self._decoder.decode(b"", True)):
                self._keep(rest)
        else:
            if not self._objects:
                chunk = as_bytes(chunk)
            if self._decoder is not None:
                chunk = self._decoder.decode(chunk)
            if self._objects or len(chunk):
                self._keep(chunk)
        self._wake()
        return self.readable_length < self.readable_high_water_mark

    def _keep(self, chunk: Any) -> None:
        self._chunks.append(chunk)
        self.readable_length += 1 if self._objects else size_of(chunk)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        if self._flowing:
            self._flow_soon()

    _iterator: AsyncIterator[Any] | None = None

    async def _next_of_source(self, size: int) -> Any:
        assert self._iterator is not None
        try:
            chunk = await self._iterator.__anext__()
        except StopAsyncIteration:
            return None
        if chunk is None:
            raise TypeError("the source of a stream gave None, which cannot be a chunk: None is the end")
        return chunk

    _read: Callable[[int], Awaitable[Any]] | None = None

    def _start_read(self) -> asyncio.Future[Any] | None:
        """For subclasses: ask for the next chunk; the future's result is pushed. None: somebody pushes unasked."""
        if self._read is None:
            return None
        return self._hub.loop.create_task(self._read(self.readable_high_water_mark))  # type: ignore[arg-type]

    def _ask(self) -> None:
        """Ask for more, if there is room and nobody was asked."""
        if (
            self._pulling is None
            and not self._ended
            and not self.destroyed
            and (not self._chunks or self.readable_length < self.readable_high_water_mark)
        ):
            pulling = self._pulling = self._start_read()
            if pulling is not None:
                self._hub.retain()
                pulling.add_done_callback(self._pulled)

    def _source_ready(self) -> None:
        """For subclasses: the source could not be asked before, now it can."""
        if self._arrived is not None or self._flowing:
            self._ask()

    def _pulled(self, pulling: asyncio.Future[Any]) -> None:
        self._pulling = None
        try:
            if pulling.cancelled():
                if not self.destroyed:
                    self.destroy(asyncio.CancelledError("the source was cancelled"))
            elif (error := pulling.exception()) is not None:
                self.destroy(error)
            elif not self.destroyed:
                try:
                    self.push(pulling.result())
                except Exception as error:
                    self.destroy(error)
        finally:
            self._hub.release()

    async def _wait_for_room(self) -> None:
        """For sources that push: wait until less than the mark is buffered. Raises when it is destroyed."""
        while not self.destroyed and self.readable_length >= max(1, self.readable_high_water_mark):
            waiter = self._hub.loop.create_future()
            self._room.append(waiter)
            await waiter
        if self.destroyed:
            raise PrematureClose(f"{type(self).__name__} was destroyed")

    # -- the taker's side ------------------------------------------------------------------------------------------
    def _take(self) -> Any:
        chunk = self._chunks.popleft()
        self.readable_length -= 1 if self._objects else size_of(chunk)
        if self._room and self.readable_length < max(1, self.readable_high_water_mark):
            _wake_all(self._room)
        return chunk

    async def _next(self) -> Any:
        """Take the next chunk; END once nothing follows. Raises what the stream was destroyed with."""
        self._awaited = True
        while not self._chunks:
            if self.destroyed and not self.readable_ended:
                raise self._gone()
            if self._ended:
                self._end()
                return END
            if self._arrived is not None and not self._arrived.cancelled():
                raise UsageError(f"two tasks read from one {type(self).__name__}: use one, or pipe it twice")
            arrived = self._arrived = self._hub.loop.create_future()
            self._ask()
            try:
                await arrived
            finally:
                if self._arrived is arrived:  # else this one was cancelled, and another waits by now
                    self._arrived = None
        chunk = self._take()
        self._ask()
        return chunk

    def _end(self) -> None:
        if not self.readable_ended:
            self.readable_ended = True
            self._hub.call(self.emit, "end")
            self._maybe_close()

    def _maybe_close(self) -> None:
        """Nothing more can be taken: let it close itself."""
        self.destroy()

    def _nothing(self) -> Any:
        return None if self._objects else "" if self._decoder is not None else b""

    @overload
    def read(self, size: int = -1) -> Coroutine[Any, Any, Any]: ...
    @overload
    def read(self, size: int = -1, *, callback: ErrorFirst) -> CallbackOperation[Any]: ...
    def read(
        self, size: int = -1, *, callback: ErrorFirst | None = None
    ) -> Coroutine[Any, Any, Any] | CallbackOperation[Any]:
        """Take the next chunk (at most `size` bytes of it); b"" at the end (None in object mode)."""
        taking = self._take_next(size)
        return taking if callback is None else launch(taking, callback)

    async def _take_next(self, size: int) -> Any:
        chunk = await self._next()
        if chunk is END:
            return self._nothing()
        if 0 <= size < len(chunk) and not self._objects:
            self._chunks.appendleft(chunk[size:])
            self.readable_length += size_of(chunk[size:])
            return chunk[:size]
        return chunk

    def __aiter__(self) -> _Chunks:
        return _Chunks(self)

    async def lines(self, encoding: str = "utf-8") -> AsyncGenerator[str, None]:
        """Yield the lines as text, without their ends."""
        splitter = LineSplitter(encoding)
        async for chunk in self:
            for line in splitter.feed(chunk):
                yield line
        for line in splitter.finish():
            yield line

    # -- events ----------------------------------------------------------------------------------------------------
    def _listeners_changed(self, name: Hashable, count: int) -> None:
        if name == "data":
            if count and self._flowing is None:
                self.resume()
            elif not count and self._flowing:
                self._flowing = None

    def resume(self) -> Self:
        """Let 'data' flow; without a listener, everything is dropped up to the end."""
        if not self._flowing:
            self._flowing = True
            self._flow_soon()
            self._hub.loop.call_soon(self._hub.call, self.emit, "resume")
        return self

    def pause(self) -> Self:
        """Stop 'data'; the source is asked no more once the mark is reached."""
        if self._flowing is not False:
            self._flowing = False
            self._hub.loop.call_soon(self._hub.call, self.emit, "pause")
        return self

    @property
    def is_paused(self) -> bool:
        """Whether `pause()` was called last."""
        return self._flowing is False

    def _flow_soon(self) -> None:
        if not self._turn_queued:
            self._turn_queued = True
            self._hub.retain()
            self._hub.loop.call_soon(self._flow)

    def _flow(self) -> None:
        self._turn_queued = False
        try:
            while self._flowing and self._chunks:
                self._hub.call(self.emit, "data", self._take())
            if self._flowing and not self.destroyed:
                if self._ended and not self._chunks:
                    self._end()
                else:
                    self._ask()
        finally:
            self._hub.release()

    def pipe(self, destination: Any, *, end: bool = True) -> Any:
        """Write everything to `destination`, no faster than it takes it; then end it. Returns the destination.

        An error of the destination stops it and leaves this stream open, as in Node: `pipeline` cleans up.
        """

        def forward(chunk: Any) -> None:
            if not destination.write(chunk) and not destination.destroyed:
                self.pause()
                destination.once("drain", self.resume)

        def finish() -> None:
            destination.end()

        def forget(*_: Any) -> None:
            self.off("data", forward)
            self.off("end", finish)
            for event in ("close", "unpipe"):
                destination.off(event, forget)

        if end:
            self.once("end", finish)
        destination.on("close", forget)
        destination.on("unpipe", forget)
        self.once("close", forget)
        self.on("data", forward)
        return destination

    def _drop(self) -> None:
        super()._drop()
        self._chunks.clear()
        self.readable_length = 0
        if self._pulling is not None:
            self._pulling.cancel()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        _wake_all(self._room)

    def _destroy(self, error: BaseException | None) -> Any:
        return self._close_iterator() if hasattr(self._iterator, "aclose") else None

    async def _close_iterator(self) -> None:
        if self._pulling is not None:  # it was cancelled; a generator that still runs cannot be closed
            await asyncio.wait([self._pulling])
        await self._iterator.aclose()  # type: ignore[union-attr]


class _Chunks:
    """What `async for` takes from. Leaving the loop drops it, and the stream is destroyed at once."""

    # A generator would do, but one that is left is only closed in some later turn of the loop.
    __slots__ = ("_stream",)

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Any:
        chunk = END
        try:
            chunk = await self._stream._next()
        finally:
            if chunk is END:
                await self.aclose()
        if chunk is END:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Destroy the stream and wait until it is closed."""
        self._stream.destroy()
        await self._stream.wait_closed()

    def __del__(self) -> None:
        if not self._stream._hub.loop.is_closed():
            self._stream.destroy()


def _wake_all(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def _as_async(source: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if hasattr(source, "__aiter__"):
        return source.__aiter__()
    if not hasattr(source, "__iter__"):
        raise TypeError(f"a source must be iterable, sync or async, not {type(source).__name__}")
    return _walk(source)


async def _walk(source: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for chunk in source:
        yield chunk

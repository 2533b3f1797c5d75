"""The streams to and from a child: `ReadPipe` (stdout, stderr) and `WritePipe` (stdin), non-blocking on the loop.

What lives here: both classes. What must not: the child.

They watch the descriptors themselves: a pipe needs no transport, and pausing is then down to the kernel, so that a
child which writes more than is read waits. They may be there before the loop is, as their child.
"""

from __future__ import annotations

import asyncio
import codecs
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import Any, overload

from .._limits import CHILD_PIPE_BYTES, CHILD_PIPE_LAST_BYTES
from ..errors import ClosedError, UsageError
from ..events import EventEmitter
from ..loop import CallbackOperation, ErrorFirst, Hub, Operation, launch

_CHUNK_BYTES = 64 * 1024
_UNBOUNDED = 1 << 62


class _Pipe(EventEmitter):
    """An end of a pipe. It may be made before a loop runs: events come when it is attached to one."""

    _hub: Hub
    _attached = False
    _early: deque[tuple[Callable[..., Any], tuple[Any, ...]]] | None = None

    def _attach(self, of: Hub) -> None:
        """From now on this loop has it; once."""
        self._hub = of
        self._attached = True
        early, self._early = self._early, None
        for callback, args in early or ():
            self._later(callback, *args)

    def _later(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call it in the next turn of the loop: of the first one, if none runs yet."""
        if self._attached:
            self._hub.loop.call_soon(self._hub.call, callback, *args)
            return
        if self._early is None:
            self._early = deque()
        self._early.append((callback, args))


class ReadPipe(_Pipe):
    """What a child writes: read it with a 'data' listener, `async for chunk in pipe`, `lines()`, `read()` or `read_all()`.

    Events: 'data' (bytes, or str after `set_encoding`) · 'end' (all of it was taken) · 'close' (the descriptor is closed).
    Nobody reads: 64 KiB are kept, then the child waits. Once the child has ended, what it had written is kept for you.
    """

    def __init__(self, of: Hub | None, descriptor: int, on_closed: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_closed = on_closed
        self._chunks: deque[Any] = deque()
        self._size_bytes = 0
        self._mark_bytes = CHILD_PIPE_BYTES
        self._flowing: bool | None = None  # None: nobody has asked yet
        self._begun = False
        self._watching = False
        self._flush_queued = False
        self._wake: asyncio.Future[None] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._end_told = False
        self.closed = False  # nothing more comes from the child
        self.bytes_read = 0
        if of is not None:
            self._attach(of)

    # -- the descriptor --------------------------------------------------------------------------------------------
    def _attach(self, of: Hub) -> None:
        super()._attach(of)
        self._flush_soon()

    def _update(self) -> None:
        """Watch the descriptor exactly while there is room."""
        wanted = (
            self._begun
            and not self.closed
            and (
                self._flowing is True
                or self._wake is not None
                or (self._flowing is None and self._size_bytes < self._mark_bytes)
            )
        )
        if wanted != self._watching:
            self._watching = wanted
            if wanted:
                self._hub.loop.add_reader(self._descriptor, self._readable)
            else:
                self._hub.loop.remove_reader(self._descriptor)

    def _begin(self) -> None:
        """From now on it may be read: 'spawn' was emitted, which comes before any data."""
        self._begun = True
        self._update()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self.bytes_read += len(data)
        chunk: Any = data if self._decoder is None else self._decoder.decode(data, final=not data)
        if chunk:
            self._take(chunk, len(data))
        if not data:
            self._close()
        else:
            self._update()

    def _take(self, chunk: Any, size: int) -> None:
        if self._flowing and not self._chunks:
            if self.listener_count("data"):
                self._hub.call(self.emit, "data", chunk)
            return
        self._chunks.append(chunk)
        self._size_bytes += size
        self._wake_reader()
        self._flush_soon()

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._update()
        os.close(self._descriptor)
        self._wake_reader()
        self._flush_soon()
        self._later(self.emit, "close")
        self._on_closed()

    def _child_ended(self) -> None:
        """Nothing is added any more but what is in the kernel's pipe (unless others write to it): keep it all."""
        self._mark_bytes = CHILD_PIPE_LAST_BYTES
        self._update()

    def _finish(self) -> None:
        """Take what is there and close, whoever else could still write to it."""
        while not self.closed and self.bytes_read < self._mark_bytes + CHILD_PIPE_LAST_BYTES:
            before = self.bytes_read
            self._readable()
            if self.bytes_read == before:
                break
        self._close()

    def destroy(self) -> None:
        """Close at once; what was not read is lost, and a child that writes on gets EPIPE."""
        self._chunks.clear()
        self._size_bytes = 0
        self._close()

    def __del__(self) -> None:
        _close_forgotten(self)

    @property
    def readable_ended(self) -> bool:
        """Whether 'end' was emitted: everything was taken."""
        return self._end_told

    # -- flowing ---------------------------------------------------------------------------------------------------
    def _listeners_changed(self, name: Hashable, count: int) -> None:
        if name == "data" and count and self._flowing is None:
            self.resume()

    def pause(self) -> ReadPipe:
        """No 'data' until `resume()`; the child waits once the kernel's pipe is full."""
        self._flowing = False
        self._update()
        return self

    def resume(self) -> ReadPipe:
        """Let 'data' flow; without a listener the data is dropped."""
        self._flowing = True
        self._flush_soon()
        self._update()
        return self

    def set_encoding(self, encoding: str = "utf-8", errors: str = "replace") -> ReadPipe:
        """Deliver text from now on; characters cut by the pipe are put together. Before the first read only."""
        if self._chunks:
            raise UsageError("set_encoding(): something was read already; call it right after the child was started")
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        return self

    def _flush_soon(self) -> None:
        if self._attached and not self._flush_queued and (self._flowing or self.closed):
            self._flush_queued = True
            self._hub.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_queued = False
        while self._chunks and self._flowing:
            chunk = self._chunks.popleft()
            self._hub.call(self.emit, "data", chunk)
        if not self._chunks:
            self._size_bytes = 0
            if self.closed and self._flowing:
                self._tell_end()

    def _tell_end(self) -> None:
        if not self._end_told:
            self._end_told = True
            self._hub.call(self.emit, "end")

    # -- readers ---------------------------------------------------------------------------------------------------
    @overload
    def read(self, size: int = -1) -> Coroutine[Any, Any, Any]: ...
    @overload
    def read(self, size: int = -1, *, callback: ErrorFirst) -> CallbackOperation[Any]: ...
    def read(self, size: int = -1, *, callback: ErrorFirst | None = None) -> Any:
        """Wait for the next chunk, as it came, or at most `size` bytes (or characters) of it; empty is the end.

        A read that is cancelled loses nothing.
        """
        if size == 0 or size < -1:
            raise UsageError(f"read({size}): a size above 0, or -1 for the next chunk")
        return self._started(self._read(size), callback)

    @overload
    def read_all(self) -> Coroutine[Any, Any, Any]: ...
    @overload
    def read_all(self, *, callback: ErrorFirst) -> CallbackOperation[Any]: ...
    def read_all(self, *, callback: ErrorFirst | None = None) -> Any:
        """Wait for everything to the end, all of it kept in memory: for children that are trusted to end."""
        return self._started(self._read_all(), callback)

    def _started(self, reading: Coroutine[Any, Any, Any], callback: ErrorFirst | None) -> Any:
        return reading if callback is None else launch(reading, callback)

    async def _read_all(self) -> Any:
        self._mark_bytes = _UNBOUNDED
        while not self.closed:
            await self._more()
        found = list(self._chunks)
        self._chunks.clear()
        self._size_bytes = 0
        self._tell_end()
        return self._nothing().join(found)

    async def _read(self, size: int) -> Any:
        while not self._chunks:
            if self.closed:
                self._tell_end()
                return self._nothing()
            await self._more()
        chunk = self._chunks.popleft()
        if 0 < size < len(chunk):
            self._chunks.appendleft(chunk[size:])
            chunk = chunk[:size]
        self._size_bytes = sum(map(len, self._chunks))
        self._update()
        return chunk

    def _nothing(self) -> Any:
        return b"" if self._decoder is None else ""

    async def _more(self) -> None:
        if self._flowing:
            raise UsageError("this pipe flows to its 'data' listener: remove that, pause(), then read")
        if self._wake is not None and not self._wake.cancelled():
            raise UsageError("somebody reads from this pipe already: one reader at a time")
        wake = self._wake = self._hub.loop.create_future()
        self._update()
        try:
            await wake
        finally:
            if self._wake is wake:  # else this one was cancelled, and another waits by now
                self._wake = None
            self._update()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> ReadPipe:
        return self

    async def __anext__(self) -> Any:
        chunk = await self._read(-1)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines as text (UTF-8 unless `set_encoding` said otherwise), without their ends."""
        if self._decoder is None:
            self.set_encoding()
        rest = ""
        async for chunk in self:
            *lines, rest = (rest + chunk).split("\n")
            for line in lines:
                yield line.removesuffix("\r")
        if rest:
            yield rest


class WritePipe(_Pipe):
    """What a child reads. `write()` returns False above the mark; then `await drain()` or wait for 'drain'.

    Events: 'drain' · 'finish' (all that was written before `end()` has left) · 'error' · 'close'. A child that stops
    reading makes 'error' (BrokenPipeError) if anybody listens; `drain()` raises it, `write()` returns False.
    """

    def __init__(self, of: Hub | None, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._queue: deque[memoryview] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._needs_drain = False
        self._watching = False
        self._ended = False
        self.error: OSError | None = None
        self.closed = False
        self.bytes_written = 0
        self.write_buffer_size = 0
        if of is not None:
            self._attach(of)

    def _attach(self, of: Hub) -> None:
        super()._attach(of)
        if self._watching:
            of.loop.add_writer(self._descriptor, self._flush)

    def write(self, data: bytes | bytearray | memoryview | str) -> bool:
        """Send bytes (or text, as UTF-8), in order. False: more than the mark waits, or the child reads no more.

        The data is not copied: leave a bytearray alone until it has left. Raises ClosedError after `end()`.
        """
        if self._ended:
            raise ClosedError("write() after end(): write before, or start another child")
        if self.closed:
            return False
        view = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
        self.bytes_written += len(view)
        self._queue.append(view)
        self.write_buffer_size += len(view)
        if not self._watching:
            self._flush()
        if self.write_buffer_size < CHILD_PIPE_BYTES:
            return not self.closed
        self._needs_drain = True
        return False

    def _flush(self) -> None:
        queue = self._queue
        try:
            while queue:
                sent = os.write(self._descriptor, queue[0][: 1 << 20])
                self.write_buffer_size -= sent
                if sent < len(queue[0]):
                    queue[0] = queue[0][sent:]
                else:
                    queue.popleft()
        except (BlockingIOError, InterruptedError):
            self._watch(True)
            return
        except OSError as error:
            self._fail(error)
            return
        self._watch(False)
        if self._needs_drain:
            self._needs_drain = False
            self._wake()
            self._later(self.emit, "drain")
        if self._ended:
            self._later(self.emit, "finish")
            self._close()

    def _watch(self, wanted: bool) -> None:
        if wanted != self._watching:
            self._watching = wanted
            if not self._attached:
                pass
            elif wanted:
                self._hub.loop.add_writer(self._descriptor, self._flush)
            else:
                self._hub.loop.remove_writer(self._descriptor)

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._later(self._emit_error_if_heard, error)
        self.destroy()

    @overload
    def drain(self) -> Operation[None]: ...
    @overload
    def drain(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def drain(self, *, callback: ErrorFirst | None = None) -> Any:
        """Wait until writing may go on. Raises what ended the pipe (BrokenPipeError), or ClosedError."""
        return launch(self._drain(), callback)

    async def _drain(self) -> None:
        while self._needs_drain and not self.closed:
            waiter: asyncio.Future[None] = self._hub.loop.create_future()
            self._waiting.append(waiter)
            await waiter
        if self.error is not None:
            raise self.error
        if self.closed and not self._ended:
            raise ClosedError("the child has ended, or its stdin was destroyed: nothing can be written")

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def end(self, data: bytes | bytearray | memoryview | str | None = None) -> None:
        """Send `data`, then the end: the child reads to the end of its input. Calling it again changes nothing."""
        if self._ended:
            return
        if data is not None:
            self.write(data)
        self._ended = True
        if not self.closed and not self._watching:
            self._flush()

    def __del__(self) -> None:
        _close_forgotten(self)

    @property
    def writable_finished(self) -> bool:
        """Whether everything that was written before `end()` has left."""
        return self._ended and self.closed and self.error is None and not self._queue

    def destroy(self) -> None:
        """Close at once; what was not sent is lost."""
        self._queue.clear()
        self.write_buffer_size = 0
        self._close()

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._watch(False)
        os.close(self._descriptor)
        self._wake()
        self._later(self.emit, "close")


def _close_forgotten(pipe: ReadPipe | WritePipe) -> None:
    """Close the descriptor of a pipe whose loop was closed under it."""
    if not pipe.closed:
        pipe.closed = True
        os.close(pipe._descriptor)

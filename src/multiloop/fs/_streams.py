"""`create_read_stream` and `create_write_stream`: files as streams.

What lives here: where in the file a stream is, and when it opens and closes it. What must not: buffering and
backpressure (`stream`), bytes (`_calls`).

Chunks are of `high_water_mark` bytes, one read ahead of whoever takes them; what waits to be written goes in one call.
A FIFO works as a file does, and waits without a thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import ClosedError
from ..loop import Operation
from ..stream import Readable, Writable
from ._calls import as_views, write_all
from ._handle import FileHandle, checked_range
from ._handle import open as open_file
from ._paths import Path, text_of


class ReadStream(Readable):
    """A file that is read in chunks. Made by `create_read_stream`.

    Events besides a `Readable`'s: 'open' (the descriptor), 'ready'.
    """

    def __init__(
        self,
        path: Path,
        flags: str | int = "r",
        *,
        encoding: str | None = None,
        fd: FileHandle | int | None = None,
        mode: int = 0o666,
        auto_close: bool = True,
        start: int | None = None,
        end: int | None = None,
        high_water_mark: int | None = None,
    ) -> None:
        checked_range(start, end)
        super().__init__(high_water_mark=high_water_mark, object_mode=False, encoding=encoding)
        self.path = text_of(path)
        self.bytes_read = 0
        """Bytes read from the file so far."""
        self._position = start
        self._left = None if end is None else end + 1 - (start or 0)
        self._file = _File(self, path, flags, mode, fd, auto_close)

    @property
    def pending(self) -> bool:
        """Whether the file is not open yet."""
        return self._file.handle is None

    def _file_ready(self) -> None:
        self._source_ready()

    def _start_read(self) -> asyncio.Future[Any] | None:
        if self._file.handle is None:
            return None  # asked again once it is open
        size = max(1, self.readable_high_water_mark)
        if self._left is not None:
            size = min(size, self._left)
        return self._file.handle.read(size, self._position)

    def push(self, chunk: Any) -> bool:
        """Take what was read. Not for users: the file is the source."""
        if not chunk:
            return super().push(None)
        size = len(chunk)
        self.bytes_read += size
        if self._position is not None:
            self._position += size
        more = super().push(chunk)
        if self._left is not None:
            self._left -= size
            if not self._left:
                super().push(None)
        return more

    def _destroy(self, error: BaseException | None) -> Any:
        return self._file.close()


class WriteStream(Writable):
    """A file that is written in chunks. Made by `create_write_stream`.

    Events besides a `Writable`'s: 'open' (the descriptor), 'ready'.
    """

    def __init__(
        self,
        path: Path,
        flags: str | int = "w",
        *,
        encoding: str = "utf-8",
        fd: FileHandle | int | None = None,
        mode: int = 0o666,
        auto_close: bool = True,
        start: int | None = None,
        flush: bool = False,
        high_water_mark: int | None = None,
    ) -> None:
        checked_range(start, None)
        super().__init__(high_water_mark=high_water_mark, encoding=encoding)
        self.path = text_of(path)
        self.bytes_written = 0
        """Bytes written to the file so far."""
        self._position = start
        self._flush = flush
        self._file = _File(self, path, flags, mode, fd, auto_close)

    @property
    def pending(self) -> bool:
        """Whether the file is not open yet."""
        return self._file.handle is None

    def _file_ready(self) -> None:
        self._kick()

    def _kick(self) -> None:
        if self._file.handle is not None:  # before that, chunks wait
            super()._kick()

    def _start_write(self, chunks: list[Any]) -> asyncio.Future[Any]:
        assert self._file.handle is not None
        return self._file.handle._call(None, write_all, as_views(chunks), self._position)  # type: ignore[no-any-return]

    def _wrote(self) -> None:
        size = self._in_flight[1]
        self.bytes_written += size
        if self._position is not None:
            self._position += size
        super()._wrote()

    def _final(self) -> Any:
        return self._file.handle.sync() if self._flush and self._file.handle is not None else None

    def _destroy(self, error: BaseException | None) -> Any:
        return self._file.close()


class _File:
    """The file of one stream: opened at once, closed with the stream."""

    def __init__(
        self,
        stream: ReadStream | WriteStream,
        path: Path,
        flags: str | int,
        mode: int,
        given: FileHandle | int | None,
        auto_close: bool,
    ) -> None:
        self._stream = stream
        self._auto_close = auto_close
        self._opening: Operation[FileHandle] | None = None
        self.handle: FileHandle | None = None
        if given is None:
            self._opening = open_file(path, flags, mode)
            self._opening.add_done_callback(self._opened)
        else:
            handle = FileHandle(given, stream.path, owned=auto_close) if isinstance(given, int) else given
            if handle.closed:
                raise ClosedError(f"{handle.path!r} is closed: open it again")
            self.handle = handle

    def _opened(self, opening: asyncio.Future[FileHandle]) -> None:
        stream = self._stream
        if self._opening is None or opening.cancelled():
            return  # closed before it was open
        self._opening = None
        if (error := opening.exception()) is not None:
            stream.destroy(error.with_traceback(None))
            return
        self.handle = opening.result()
        if stream.destroyed:
            return  # close() comes in this turn
        for name, args in (("open", (self.handle.fd,)), ("ready", ())):
            stream._hub.call(stream.emit, name, *args)
        stream._file_ready()

    def close(self) -> Any:
        opening, self._opening = self._opening, None
        # A file that is opened all the same is closed by the thread; one that is open, and not yet known to be, by us.
        if opening is not None and not opening.cancel() and opening.exception() is None:
            self.handle = opening.result()
        handle = self.handle
        return handle.close() if handle is not None and self._auto_close else None


def create_read_stream(path: Path, flags: str | int = "r", **options: Any) -> ReadStream:
    """Read a file as a stream: `async for chunk in fs.create_read_stream("big")`, or a stage of `stream.pipeline`.

    Args:
        start, end: the first and the last byte to read, both included; without `start`, from the current position.
        high_water_mark: the size of a chunk (64 KiB).
        encoding: give text instead of bytes.
        fd: a FileHandle or descriptor that is open already, in place of `path`.
        auto_close: False leaves the file open at the end.

    Errors of opening come as the stream's error. Raises UsageError for a range that cannot be meant.
    """
    return ReadStream(path, flags, **options)


def create_write_stream(path: Path, flags: str | int = "w", **options: Any) -> WriteStream:
    """Write a file as a stream: `write()`, `drain()`, `end()`, or the last stage of `stream.pipeline`.

    Args:
        start: where in the file to begin (with flags "r+", which keeps what is there).
        high_water_mark: how many bytes may wait before `write()` answers False (64 KiB).
        encoding: of text that is written.
        flush: wait until it is on the disk before 'finish'.
        fd: a FileHandle or descriptor that is open already, in place of `path`.
        auto_close: False leaves the file open at the end.

    Errors of opening come as the stream's error.
    """
    return WriteStream(path, flags, **options)

"""`open` and `FileHandle`.

What lives here: an open file: who uses its descriptor, and that it is closed once, after the last of them. What must
not: how bytes are read and written (`_calls`).

A descriptor is never closed while a thread uses it, so its number cannot come to mean another file under a call that
runs: `close()` waits for calls in flight, also for cancelled ones that a thread still has.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from .._limits import LINE_CHUNK_BYTES
from ..errors import ClosedError, UsageError
from ..loop import AnyOperation, ErrorFirst, Operation, call, call_always, hub
from ..stream import LineSplitter
from ._calls import NotNow, as_views, read_into, read_once, read_to_end, write_all
from ._paths import Data, Path, as_data, name, nul_in, parse_flags, text_of
from ._ready import opened, part
from ._stats import Stats
from ._times import Time, times_ns
from ._wait import NoReader, Pending, abandon

if TYPE_CHECKING:
    from ._streams import ReadStream, WriteStream

Again = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], Any] | None]


def open_fd(path: Path, flags: int, mode: int, again: Again) -> int:
    """Open a descriptor, on a thread. `again`: what to call anew while a FIFO has no reader."""
    try:
        return os.open(path, flags, mode)
    except BlockingIOError:  # somebody holds a lease on the file and is asked to give it up: wait for that
        return os.open(path, flags & ~os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ENXIO and flags & os.O_WRONLY and stat.S_ISFIFO(os.stat(path).st_mode):
            raise NoReader(*again) from None
        raise
    except ValueError:
        if (problem := nul_in(path)) is not None:
            raise problem from None
        raise


def open(  # noqa: A001 - Node's name
    path: Path, flags: str | int = "r", mode: int = 0o666, *, callback: ErrorFirst | None = None
) -> Operation[FileHandle]:
    """Open a file: `async with fs.open("a.txt") as file: ...`, or `file = await fs.open(...)` and `await file.close()`.

    Args:
        flags: Node's: r, r+, w, w+, a, a+, with x (must be new) or s (synchronous); or `os.O_*`.
        mode: permissions of a new file, less the umask.

    Raises FileNotFoundError, PermissionError, IsADirectoryError, FileExistsError, ... with `filename`. A FIFO opened
    for writing waits, without a thread, until it has a reader.
    """
    args = (path, parse_flags(flags), mode)
    return call(callback, _open, args, FileHandle._close_now, _open_at_once)  # type: ignore[no-any-return]


def _open_at_once(path: Path, flags: int, _: int) -> FileHandle | None:
    fd = None if opened is None else opened(path, flags)
    if fd is None:
        return None
    handle = FileHandle(fd, text_of(path))
    handle._closes_at_once = True
    return handle


def _open(path: Path, flags: int, mode: int) -> FileHandle:
    fd = open_fd(path, flags, mode, (_open, (path, flags, mode), FileHandle._close_now))
    return FileHandle(fd, text_of(path))


class FileHandle:
    """An open file. Made by `open`; `async with` closes it; `async for line in file` gives its lines.

    Every method starts at once, is awaited or given `callback=`, and raises ClosedError after `close()`. Two calls at a
    time without a `position` share the file's own and may change places: await one before the next.
    """

    __slots__ = (
        "__weakref__",
        "_closes_at_once",
        "_closing",
        "_condition",
        "_fd",
        "_latest",
        "_owned",
        "_users",
        "path",
    )

    def __init__(self, fd: int, path: str, *, owned: bool = True) -> None:
        self._fd = fd
        self._owned = owned  # False: dropping it says nothing and closes nothing
        self.path = path
        """What it was opened as."""
        self._closing = False
        self._closes_at_once = False  # only read from, on a local disk
        self._users = 0
        self._latest: weakref.ref[AnyOperation[Any]] | None = None  # weak: a result is the caller's alone
        self._condition = threading.Condition(threading.Lock())

    @property
    def fd(self) -> int:
        """The descriptor; -1 after `close()`."""
        return -1 if self._closing else self._fd

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closing

    def __repr__(self) -> str:
        return f"<FileHandle {self.path!r} {'closed' if self._closing else f'fd={self._fd}'}>"

    # -- on a thread -----------------------------------------------------------------------------------------------
    def _use(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._condition:
            if self._closing:
                raise self._closed_error()
            self._users += 1
        try:
            return function(self._fd, *args)
        except NotNow as later:
            raise Pending(self._fd, later.writing, self._use, (later.function, *later.args_left)) from None
        except OSError as error:
            name(error, self.path)
            raise
        finally:
            with self._condition:
                self._users -= 1
                if self.closed:  # meanwhile
                    self._condition.notify_all()

    def _close_now(self) -> None:
        """Close from any thread, once nobody uses the descriptor."""
        with self._condition:
            if self._closing:
                return
            self._closing = True
            self._condition.wait_for(lambda: not self._users)
        try:
            os.close(self._fd)
        except OSError as error:
            name(error, self.path)
            raise

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"{self.path!r} is closed: open it again")

    def _call(self, callback: ErrorFirst | None, function: Callable[..., Any], *args: Any) -> Any:
        attempt = self._use_at_once if function is read_once and part is not None else None
        op = call(callback, self._use, (function, *args), None, attempt)
        self._latest = weakref.ref(op)
        return op

    def _use_at_once(self, _: Callable[..., Any], size: int, position: int | None = None) -> bytes | None:
        # On the loop: only when no call before this one is in flight, or it would overtake that.
        if self._is_in_use():
            return None
        with self._condition:
            return None if self._closing or self._users or part is None else part(self._fd, size, position)

    # -- reading ---------------------------------------------------------------------------------------------------
    def read(
        self, size: int = -1, position: int | None = None, *, callback: ErrorFirst | None = None
    ) -> Operation[bytes]:
        """Read up to `size` bytes, everything to the end with -1; b"" at the end.

        Args:
            position: where in the file; None: from where the last such call ended.
        """
        if size >= 0:
            return self._call(callback, read_once, size, position)  # type: ignore[no-any-return]
        if position is not None:
            return self._call(callback, _read_from, position)  # type: ignore[no-any-return]
        return self._call(callback, read_to_end)  # type: ignore[no-any-return]

    def readv(
        self, buffers: Sequence[Any], position: int | None = None, *, callback: ErrorFirst | None = None
    ) -> Operation[int]:
        """Fill buffers (bytearray, memoryview, array), one after another; the number of bytes read, 0 at the end."""
        return self._call(callback, read_into, list(buffers), position)  # type: ignore[no-any-return]

    def read_into(
        self, buffer: Any, position: int | None = None, *, callback: ErrorFirst | None = None
    ) -> Operation[int]:
        """Read into one buffer; the number of bytes read, 0 at the end."""
        return self._call(callback, read_into, [buffer], position)  # type: ignore[no-any-return]

    @overload
    def read_file(
        self, encoding: None = None, *, errors: str = "strict", callback: ErrorFirst | None = None
    ) -> Operation[bytes]: ...
    @overload
    def read_file(
        self, encoding: str, *, errors: str = "strict", callback: ErrorFirst | None = None
    ) -> Operation[str]: ...
    def read_file(
        self, encoding: str | None = None, *, errors: str = "strict", callback: ErrorFirst | None = None
    ) -> Any:
        """Read everything from the current position, as bytes or, with an encoding, as text."""
        if encoding is None:
            return self._call(callback, read_to_end)
        return self._call(callback, _read_text, encoding, errors)

    async def read_lines(self, encoding: str = "utf-8", errors: str = "strict") -> AsyncGenerator[str, None]:
        """Yield the lines from the current position on, without their ends.

        A chunk is one hop to a thread, a line is none; the next chunk is read while its lines are taken.
        """
        splitter = LineSplitter(encoding, errors)
        ahead = self.read(LINE_CHUNK_BYTES)
        try:
            while chunk := await ahead:
                ahead = self.read(LINE_CHUNK_BYTES)
                for line in splitter.feed(chunk):
                    yield line
            for line in splitter.finish():
                yield line
        finally:
            ahead.cancel()

    def __aiter__(self) -> AsyncGenerator[str, None]:
        return self.read_lines()

    def create_read_stream(self, **options: Any) -> ReadStream:
        """Make a read stream on this file (see `fs.create_read_stream`); its end closes the file (`auto_close`)."""
        from ._streams import ReadStream

        return ReadStream(self.path, fd=self, **options)

    # -- writing ---------------------------------------------------------------------------------------------------
    def write(
        self,
        data: Data,
        position: int | None = None,
        *,
        encoding: str = "utf-8",
        callback: ErrorFirst | None = None,
    ) -> Operation[int]:
        """Write all of `data`; the number of bytes. At `position`, or where the last such call ended."""
        return self._call(callback, write_all, as_views([as_data(data, encoding)]), position)  # type: ignore[no-any-return]

    def writev(
        self, buffers: Sequence[Any], position: int | None = None, *, callback: ErrorFirst | None = None
    ) -> Operation[int]:
        """Write several buffers, one after another, in one go; the number of bytes."""
        return self._call(callback, write_all, as_views(buffers), position)  # type: ignore[no-any-return]

    def write_file(self, data: Data, *, encoding: str = "utf-8", callback: ErrorFirst | None = None) -> Operation[None]:
        """Write all of `data` from the current position on; does not truncate, as in Node."""
        return self._call(callback, _write_from_here, as_views([as_data(data, encoding)]))  # type: ignore[no-any-return]

    append_file = write_file

    def create_write_stream(self, **options: Any) -> WriteStream:
        """Make a write stream on this file (see `fs.create_write_stream`); its end closes the file (`auto_close`)."""
        from ._streams import WriteStream

        return WriteStream(self.path, fd=self, **options)

    # -- the rest --------------------------------------------------------------------------------------------------
    def stat(self, *, callback: ErrorFirst | None = None) -> Operation[Stats]:
        """What the system knows of the file."""
        return self._call(callback, _stat)  # type: ignore[no-any-return]

    def sync(self, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Wait until everything written is on the disk, with its metadata (fsync)."""
        return self._call(callback, os.fsync)  # type: ignore[no-any-return]

    def datasync(self, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Wait until everything written is on the disk (fdatasync)."""
        return self._call(callback, getattr(os, "fdatasync", os.fsync))  # type: ignore[no-any-return]

    def truncate(self, length: int = 0, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Cut the file, or fill it with zeros, to `length` bytes."""
        return self._call(callback, os.ftruncate, max(0, length))  # type: ignore[no-any-return]

    def chmod(self, mode: int, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Set the permissions."""
        return self._call(callback, os.fchmod, mode)  # type: ignore[no-any-return]

    def chown(self, uid: int, gid: int, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Set owner and group; -1 leaves one as it is."""
        return self._call(callback, os.fchown, uid, gid)  # type: ignore[no-any-return]

    def utimes(self, atime: Time, mtime: Time, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Set the times of access and change: seconds since 1970, or a datetime."""
        return self._call(callback, _utimes, times_ns(atime, mtime))  # type: ignore[no-any-return]

    def close(self, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Close it, after the calls in flight; those that wait for a FIFO's other end fail. Twice is fine.

        Cancelling only stops waiting: it is closed all the same.
        """
        if not self._closing:
            abandon(hub().loop, self._fd, self._closed_error())
        attempt = self._close_at_once if self._closes_at_once else None
        return call_always(callback, self._close_now, (), attempt)  # type: ignore[no-any-return]

    def _close_at_once(self) -> bool | None:
        # Nothing is left to be written, and no call is in flight. Closing a file without a name may free it: that waits.
        try:
            if self._is_in_use() or (not self._closing and not os.fstat(self._fd).st_nlink):
                return None
        except OSError:  # somebody closed the descriptor itself: the thread tells
            return None
        self._close_now()
        return True

    def _is_in_use(self) -> bool:
        latest = None if self._latest is None else self._latest()
        return self._users > 0 or (latest is not None and not latest.done())

    async def __aenter__(self) -> FileHandle:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._owned and not self._closing:
            warnings.warn(
                f"file {self.path!r} was never closed: `async with`, or await close()", ResourceWarning, 2, self
            )
            self._close_now()


def checked_range(start: int | None, end: int | None) -> None:
    """Raise UsageError for a range of bytes (both inclusive) that cannot be meant."""
    if start is not None and start < 0:
        raise UsageError(f"start={start}: 0 or more")
    if end is not None and end < (start or 0):
        raise UsageError(f"end={end}: not before start={start or 0} (both are included)")


def _read_from(fd: int, position: int) -> bytes:
    parts: list[bytes] = []
    while chunk := os.pread(fd, LINE_CHUNK_BYTES * 16, position):
        parts.append(chunk)
        position += len(chunk)
    return b"".join(parts)


def _read_text(fd: int, encoding: str, errors: str, *state: Any) -> str:
    try:
        return read_to_end(fd, *state).decode(encoding, errors)
    except NotNow as later:
        raise NotNow(False, _read_text, (encoding, errors, *later.args_left)) from None


def _write_from_here(fd: int, *state: Any) -> None:
    try:
        write_all(fd, *state)
    except NotNow as later:
        raise NotNow(True, _write_from_here, later.args_left) from None


def _stat(fd: int) -> Stats:
    return Stats(os.fstat(fd))


def _utimes(fd: int, ns: tuple[int, int]) -> None:
    os.utime(fd, ns=ns)

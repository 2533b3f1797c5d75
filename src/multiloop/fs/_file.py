"""Whole files: read_file, write_file, append_file, copy_file, truncate.

What lives here: each function as one call on a thread, from open to close, and its public face. What must not: handles
and streams, which keep a file open (`_handle`, `_streams`).

The flow: read_file → loop.call, which tries `_ready.whole` on the loop first ║ a thread: _read (open, read, read, close)
║ the operation. A file that is not ready (a FIFO) raises `Pending` on the thread, with the descriptor in it; cancelling
then closes it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, overload

from .._limits import FILE_CHUNK_BYTES, FILE_FIRST_READ_BYTES
from ..errors import UsageError
from ..loop import ErrorFirst, Operation, call, launch
from ._calls import NotNow, Unwanted, as_views, copy_all, read_to_end, write_all
from ._handle import FileHandle, open_fd
from ._handle import open as open_file
from ._paths import ALWAYS, Data, Path, as_data, name, named, parse_flags
from ._ready import whole as _whole
from ._wait import Pending

COPYFILE_EXCL = 1
"""`copy_file`, `cp`: fail when the destination exists."""
COPYFILE_FICLONE = 2
"""Share the blocks where the file system can (the kernel tries anyway)."""
COPYFILE_FICLONE_FORCE = 4
"""Share the blocks, or fail."""

_READ = os.O_RDONLY | ALWAYS
# Looked up once: together they are a tenth of what reading a small file costs.
_os_open, _os_read, _os_close = os.open, os.read, os.close


# --- reading ----------------------------------------------------------------------------------------------------------
@overload
def read_file(
    path: Path | FileHandle,
    encoding: None = None,
    *,
    flag: str | int = "r",
    errors: str = "strict",
    callback: ErrorFirst | None = None,
) -> Operation[bytes]: ...
@overload
def read_file(
    path: Path | FileHandle,
    encoding: str,
    *,
    flag: str | int = "r",
    errors: str = "strict",
    callback: ErrorFirst | None = None,
) -> Operation[str]: ...
def read_file(
    path: Path | FileHandle,
    encoding: str | None = None,
    *,
    flag: str | int = "r",
    errors: str = "strict",
    callback: ErrorFirst | None = None,
) -> Any:
    """Read a whole file: bytes or, with an encoding, text.

    Reads to the end whatever the size says: files of /proc, files that grow, files over 2 GiB, and FIFOs, which wait for
    their writer without a thread. From a FileHandle it reads on from the current position.

    Args:
        errors: what to do with bytes that are no text, as in `bytes.decode`.

    Raises FileNotFoundError, IsADirectoryError, PermissionError, ... with `filename`; UnicodeDecodeError.
    """
    if isinstance(path, FileHandle):
        return path.read_file(encoding, errors=errors, callback=callback)
    if encoding is None and flag == "r":
        return call(callback, _read, (path,), None, _whole)
    return call(callback, _read_as, (path, parse_flags(flag), encoding, errors))


def _read(path: Path, flags: int = _READ, then: Callable[[bytes], Any] | None = None) -> bytes:
    # `then` turns what was read into the result when the operation has to wait and goes on elsewhere.
    try:
        fd = _os_open(path, flags)
    except (BlockingIOError, ValueError):
        fd = open_fd(path, flags, 0o666, (_read, (path, flags, then), None))  # waits, or says what is wrong
    data = b""
    try:
        # Small files need no fstat: a second, empty read tells the end.
        data = _os_read(fd, FILE_FIRST_READ_BYTES)
        if not data or (more := _os_read(fd, 1)):
            data = _read_more(fd, data + more if data else data)
    except BlockingIOError:
        raise _pending(fd, path, NotNow(False, read_to_end, (data,)), then) from None
    except NotNow as later:
        raise _pending(fd, path, later, then) from None
    except OSError as error:
        _os_close(fd)
        name(error, path)
        raise
    except BaseException:
        _os_close(fd)
        raise
    _os_close(fd)
    return data


def _read_more(fd: int, first: bytes) -> bytes:
    info = os.fstat(fd)
    if first and stat.S_ISREG(info.st_mode) and info.st_size <= FILE_CHUNK_BYTES:
        # Once more from the beginning, in one piece, is cheaper than joining two.
        data = os.pread(fd, info.st_size + 1, 0)
        if len(data) == info.st_size:
            return data
    return read_to_end(fd, first)


def _pending(fd: int, path: Path, later: NotNow, then: Callable[[Any], Any] | None) -> Pending:
    """The descriptor goes with the operation: read or written on when it is ready, closed at the end or on cancel."""
    owned = [fd]  # whoever pops it closes it: the thread that goes on, or the cancel that comes before
    args = (owned, path, later.function, later.args_left, then)
    return Pending(fd, later.writing, _go_on, args, release=lambda: _close_owned(owned))


def _close_owned(owned: list[int]) -> None:
    try:
        fd = owned.pop()
    except IndexError:  # a thread has it
        return
    os.close(fd)


def _go_on(
    owned: list[int],
    path: Path,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    then: Callable[[Any], Any] | None,
) -> Any:
    try:
        fd = owned.pop()
    except IndexError:
        raise Unwanted from None
    try:
        result = function(fd, *args)
    except NotNow as later:
        raise _pending(fd, path, later, then) from None
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            name(error, path)
        raise
    os.close(fd)
    return result if then is None else then(result)


def _read_as(path: Path, flags: int, encoding: str | None, errors: str) -> bytes | str:
    def decode(data: bytes) -> bytes | str:
        return data if encoding is None else data.decode(encoding, errors)

    return decode(_read(path, flags, decode))


# --- writing ----------------------------------------------------------------------------------------------------------
def write_file(
    path: Path | FileHandle,
    data: Data | Iterable[Any] | AsyncIterable[Any],
    encoding: str = "utf-8",
    *,
    mode: int = 0o666,
    flag: str | int = "w",
    flush: bool = False,
    callback: ErrorFirst | None = None,
) -> Operation[None]:
    """Write a whole file, in place of what was there.

    Args:
        data: bytes, text, or something to iterate over, sync or async, that gives either (written as it comes).
        mode: permissions of a new file, less the umask.
        flag: "w"; "wx" fails when the file exists.
        flush: wait until it is on the disk.

    Cancelled, it stops between two chunks: the file then has a part of the data.
    """
    if isinstance(path, FileHandle):
        if _is_data(data):
            return path.write_file(data, encoding=encoding, callback=callback)  # type: ignore[arg-type]
        return launch(_write_chunks(path, data, encoding), callback)  # type: ignore[no-any-return]
    flags = parse_flags(flag)
    if not _is_data(data):
        return launch(_write_parts(path, data, encoding, flags, mode, flush), callback)  # type: ignore[no-any-return]
    return call(callback, _write, (path, as_data(data, encoding), flags, mode, flush))  # type: ignore[no-any-return]


def append_file(
    path: Path | FileHandle,
    data: Data | Iterable[Any] | AsyncIterable[Any],
    encoding: str = "utf-8",
    *,
    mode: int = 0o666,
    flag: str | int = "a",
    flush: bool = False,
    callback: ErrorFirst | None = None,
) -> Operation[None]:
    """Write at the end of a file, which is made if it does not exist. Arguments as `write_file`."""
    return write_file(path, data, encoding, mode=mode, flag=flag, flush=flush, callback=callback)


def _is_data(data: Any) -> bool:
    if isinstance(data, str | bytes | bytearray | memoryview):
        return True
    return not hasattr(data, "__aiter__") and (not hasattr(data, "__iter__") or _is_buffer(data))


def _is_buffer(data: Any) -> bool:
    try:
        memoryview(data)
    except TypeError:
        return False
    return True


def _write(path: Path, data: Any, flags: int, mode: int, flush: bool) -> None:
    fd = open_fd(path, flags, mode, (_write, (path, data, flags, mode, flush), None))
    _go_on([fd], path, _write_and_flush, (as_views([data]), flush), None)


def _write_and_flush(fd: int, views: list[memoryview], flush: bool, position: None = None, written: int = 0) -> None:
    try:
        write_all(fd, views, position, written)
    except NotNow as later:
        raise NotNow(True, _write_and_flush, (later.args_left[0], flush, *later.args_left[1:])) from None
    if flush:
        os.fsync(fd)


async def _write_parts(path: Path, data: Any, encoding: str, flags: int, mode: int, flush: bool) -> None:
    async with open_file(path, flags, mode) as file:
        await _write_chunks(file, data, encoding)
        if flush:
            await file.sync()


async def _write_chunks(file: FileHandle, data: Any, encoding: str) -> None:
    if hasattr(data, "__aiter__"):
        async for chunk in data:
            await file.write(chunk, encoding=encoding)
    else:
        for chunk in data:
            await file.write(chunk, encoding=encoding)


# --- the rest ---------------------------------------------------------------------------------------------------------
def truncate(path: Path, length: int = 0, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Cut a file, or fill it with zeros, to `length` bytes."""
    return call(callback, _truncate, (path, max(0, length)))  # type: ignore[no-any-return]


_truncate = named(os.truncate)


def copy_file(source: Path, destination: Path, mode: int = 0, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Copy one file, contents and permissions, in place of what was there; inside the kernel where it can.

    Args:
        mode: COPYFILE_EXCL: fail when the destination exists.

    Cancelled, it stops between two chunks and removes what it made.
    """
    if mode & ~7:
        raise UsageError(f"copy_file(mode={mode}): COPYFILE_EXCL, COPYFILE_FICLONE, COPYFILE_FICLONE_FORCE or 0")
    return call(callback, copy_blocking, (source, destination, mode))  # type: ignore[no-any-return]


@named
def copy_blocking(source: Path, destination: Path, mode: int) -> None:
    """Copy one file, on a thread."""
    source_fd = os.open(source, os.O_RDONLY | ALWAYS)
    try:
        info = os.fstat(source_fd)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is not copied as a file (cp copies trees)", source)
        if stat.S_ISFIFO(info.st_mode):
            raise OSError(errno.EINVAL, "a FIFO is not copied as a file", source)
        _copy_from(source_fd, info, destination, mode)
    finally:
        os.close(source_fd)


def _copy_from(source_fd: int, info: os.stat_result, destination: Path, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | ALWAYS | (os.O_EXCL if mode & COPYFILE_EXCL else 0)
    existed = os.path.lexists(destination)
    fd = os.open(destination, flags, stat.S_IMODE(info.st_mode))
    done = False
    try:
        there = os.fstat(fd)
        if (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino):
            done = True  # onto itself: nothing to do, and truncating would lose it
            return
        os.ftruncate(fd, 0)
        if mode & COPYFILE_FICLONE_FORCE:
            _clone(source_fd, fd)
        else:
            copy_all(source_fd, fd, info.st_size)
        os.fchmod(fd, stat.S_IMODE(info.st_mode))
        done = True
    except OSError as error:
        name(error, destination)
        raise
    finally:
        os.close(fd)
        if not done and not existed:
            os.unlink(destination)


def _clone(source_fd: int, fd: int) -> None:
    import fcntl

    ficlone = 0x40049409
    fcntl.ioctl(fd, ficlone, source_fd)

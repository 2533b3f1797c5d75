"""Blocking calls on an open descriptor, as they run on a thread.

What lives here: reading and writing to the end of what was asked for, however the kernel cuts it. What must not: paths,
handles, the loop.

Each call may raise `NotNow` (the kernel says EAGAIN: a FIFO, a terminal): go on with what it holds when the descriptor
is ready. Long ones stop between two chunks when nobody waits any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from .._limits import FILE_CHUNK_BYTES, FILE_FIRST_READ_BYTES
from ..loop import wanted
from ._wait import has_no_writer_yet

_ROUNDS_AFTER_GROWING = 20
_MAX_BUFFERS = min(os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 1024, 1024)
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM})


class NotNow(Exception):
    """Call `function(fd, *args)` once the descriptor is ready for `writing`, or for reading."""

    def __init__(self, writing: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        self.writing = writing
        self.function = function
        self.args_left = args


class Unwanted(Exception):
    """Nobody waits for this call any more; nobody gets this exception."""


def check_wanted() -> None:
    """Stop here if the operation was cancelled."""
    if not wanted():
        raise Unwanted


def read_once(fd: int, size: int, position: int | None = None) -> bytes:
    """Read up to `size` bytes; b"" at the end of the file."""
    try:
        data = os.read(fd, size) if position is None else os.pread(fd, size, position)
    except BlockingIOError:
        raise NotNow(False, read_once, (size, position)) from None
    if not data and size and position is None and has_no_writer_yet(fd):
        raise NotNow(False, read_once, (size, position))
    return data


def read_into(fd: int, buffers: Sequence[Any], position: int | None = None) -> int:
    """Fill buffers, in order, with one call of the kernel; returns how many bytes were read."""
    try:
        got = os.readv(fd, buffers) if position is None else os.preadv(fd, buffers, position)
    except BlockingIOError:
        raise NotNow(False, read_into, (buffers, position)) from None
    if not got and position is None and any(len(buffer) for buffer in buffers) and has_no_writer_yet(fd):
        raise NotNow(False, read_into, (buffers, position))
    return got


def read_to_end(fd: int, first: bytes = b"", gathered: BytesIO | None = None) -> bytes:
    """Read everything that is left, also of files that grow, that say they are empty (/proc), or of a FIFO.

    `first` was read before. One part is returned as it came; more are gathered without a second copy of all. A regular
    file that grows faster than it is read ends after some rounds, each up to the end that it then had.
    """
    left = 0
    rounds = _ROUNDS_AFTER_GROWING
    if gathered is None:
        left = _bytes_left(fd)
        if left > FILE_CHUNK_BYTES:
            gathered = _gather(fd, first, left)
            first, left = b"", 0
    part = first
    while True:
        try:
            more = os.read(fd, max(FILE_FIRST_READ_BYTES, left + 1))
        except BlockingIOError:
            raise NotNow(False, read_to_end, (part, gathered)) from None
        if not more:
            break
        if part:
            gathered = gathered or BytesIO()
            gathered.write(part)
        part = more
        check_wanted()
        left = min(_bytes_left(fd), FILE_CHUNK_BYTES)
        if left:
            rounds -= 1
            if not rounds:
                break
    if gathered is None:
        if not part and has_no_writer_yet(fd):
            raise NotNow(False, read_to_end, ())
        return part
    gathered.write(part)
    return gathered.getvalue()  # the buffer itself: nothing is written to it any more


def _bytes_left(fd: int) -> int:
    info = os.fstat(fd)
    return max(0, info.st_size - os.lseek(fd, 0, os.SEEK_CUR)) if stat.S_ISREG(info.st_mode) else 0


def _gather(fd: int, first: bytes, left: int) -> BytesIO:
    # A large file: the kernel fills the memory that is returned in the end, chunk by chunk.
    gathered = BytesIO()
    gathered.write(first)
    end = len(first) + left
    try:
        gathered.seek(end - 1)
        gathered.write(b"\0")
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None
    position = len(first)
    with gathered.getbuffer() as view:
        while position < end and (got := os.readv(fd, [view[position : position + FILE_CHUNK_BYTES]])):
            position += got
            check_wanted()
    gathered.truncate(position)
    gathered.seek(position)
    return gathered


def write_all(fd: int, views: list[memoryview], position: int | None = None, written: int = 0) -> int:
    """Write all of these bytes; returns how many there were."""
    while views:
        batch = views[:_MAX_BUFFERS]
        if batch[0].nbytes > FILE_CHUNK_BYTES:
            batch = [batch[0][:FILE_CHUNK_BYTES]]
        try:
            if len(batch) > 1:
                taken = os.writev(fd, batch) if position is None else os.pwritev(fd, batch, position)
            else:
                taken = os.write(fd, batch[0]) if position is None else os.pwrite(fd, batch[0], position)
        except BlockingIOError:
            raise NotNow(True, write_all, (views, position, written)) from None
        written += taken
        if position is not None:
            position += taken
        views = _without(views, taken)
        if views:
            check_wanted()
    return written


def _without(views: list[memoryview], taken: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if taken < view.nbytes:
            return [view[taken:], *views[index + 1 :]]
        taken -= view.nbytes
    return []


def as_views(chunks: Sequence[Any]) -> list[memoryview]:
    """Chunks of bytes as what `write_all` takes; empty ones left out."""
    views = [memoryview(chunk) for chunk in chunks]
    return [view if view.itemsize == 1 and view.ndim == 1 else view.cast("B") for view in views if view.nbytes]


def copy_all(source: int, destination: int, size: int) -> None:
    """Copy from the current position to the end; inside the kernel where it can, sharing the blocks where it does."""
    copied = 0
    try:
        while count := os.copy_file_range(source, destination, FILE_CHUNK_BYTES * 4):
            copied += count
            check_wanted()
    except AttributeError:  # not on this system
        pass
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY or copied:
            raise
    if copied and copied >= size:
        return
    while chunk := os.read(source, FILE_CHUNK_BYTES // 16):  # files of /proc copy as empty in the kernel
        write_all(destination, [memoryview(chunk)])
        check_wanted()

"""Memory without a name, passed on by its descriptor.

What lives here: making, sealing, filling and mapping it. What must not: what it means (`_shared`, `_message`).

Nothing of it has an entry in /dev/shm or anywhere else, so nothing is left when everybody is killed; where memfd is
missing, a file is used that is unlinked before anything is written to it. Mode 0600 either way.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Any

Buffer = bytes | bytearray | memoryview

# Linux's numbers; Python names them from 3.13 on.
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4
_FIXED_SIZE = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW
# For mmap: use the given descriptor without a duplicate that lives as long as the map. Before 3.13 it always makes one.
NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_MAX_WRITE_BYTES = 1 << 30  # write(2) takes less than 2 GiB at once


def create(size_bytes: int, name: str) -> int:
    """Return the descriptor of new, zeroed memory whose size can never change (so a map of it can never fault).

    Raises OSError when there is no memory or no descriptor left.
    """
    fd = _anonymous(name)
    try:
        os.ftruncate(fd, size_bytes)
        os.fchmod(fd, 0o600)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_filled(parts: Sequence[Buffer], size_bytes: int, name: str) -> int:
    """Return the descriptor of memory that holds `parts` one after the other: the one copy of a large message."""
    fd = _anonymous(name)
    try:
        os.fchmod(fd, 0o600)
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(fd, view[:_MAX_WRITE_BYTES]) :]
        assert os.fstat(fd).st_size == size_bytes
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _anonymous(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"multiloop-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    import tempfile

    fd, path = tempfile.mkstemp(prefix=f"multiloop-{name}-")
    os.unlink(path)
    return fd


def seal(fd: int) -> None:
    """Fix the size for ever, where the platform can: nobody can make a map of it fault by truncating."""
    if hasattr(os, "memfd_create"):
        fcntl.fcntl(fd, _F_ADD_SEALS, _FIXED_SIZE)


def is_sealed(fd: int) -> bool:
    """Whether the size is fixed. Always true where there are no seals."""
    if not hasattr(os, "memfd_create"):
        return True
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS) & _FIXED_SIZE == _FIXED_SIZE
    except OSError:
        return False


def map_message(fd: int, start: int, end: int, *, is_own: bool) -> mmap.mmap:
    """Map a part of what `create_filled` made, writable. `start` is at the beginning of a page.

    Not one's own, because others map it too: pages that are written become one's own (copy on write).

    Raises ValueError when the memory is smaller than announced.
    """
    flags = mmap.MAP_SHARED if is_own else mmap.MAP_PRIVATE
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(fd, end - start, flags=flags, prot=protection, offset=start, **NO_DESCRIPTOR)


class Reader(io.RawIOBase):
    """Reads memory from its beginning. The position is its own: the descriptor's is shared with all who have it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        count = os.preadv(self._fd, [into], self._at)
        self._at += count
        return count

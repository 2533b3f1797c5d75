"""What the system knows of a file: `Stats`, `StatFs`, and the kinds of files.

What lives here: the result types. What must not: asking for them.
"""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple


class Kind:
    """The questions that `Stats` and `Dirent` answer, from the type bits of a mode."""

    __slots__ = ()

    def _type(self) -> int:
        raise NotImplementedError

    def is_file(self) -> bool:
        """A regular file."""
        return self._type() == stat.S_IFREG

    def is_directory(self) -> bool:
        """A directory."""
        return self._type() == stat.S_IFDIR

    def is_symbolic_link(self) -> bool:
        """A symbolic link (only from `lstat` and directory entries)."""
        return self._type() == stat.S_IFLNK

    def is_fifo(self) -> bool:
        """A named pipe."""
        return self._type() == stat.S_IFIFO

    def is_socket(self) -> bool:
        """A Unix socket."""
        return self._type() == stat.S_IFSOCK

    def is_block_device(self) -> bool:
        """A block device."""
        return self._type() == stat.S_IFBLK

    def is_character_device(self) -> bool:
        """A character device."""
        return self._type() == stat.S_IFCHR


class Stats(Kind):
    """What `stat` gives: Node's fields (`size`, `mode`, `mtime`, ... times in seconds), and Python's as `st_size` etc."""

    __slots__ = ("result",)

    def __init__(self, result: os.stat_result) -> None:
        self.result = result
        """The same as `os.stat` gives it."""

    def _type(self) -> int:
        return stat.S_IFMT(self.result.st_mode)

    def __getattr__(self, name: str) -> Any:
        # `size` → st_size, `mtime_ns` → st_mtime_ns; st_* as they are.
        try:
            return getattr(self.result, name if name.startswith("st_") else f"st_{name}")
        except AttributeError:
            raise AttributeError(f"Stats has no {name!r}") from None

    size: int
    mode: int
    uid: int
    gid: int
    ino: int
    dev: int
    nlink: int
    blocks: int
    blksize: int
    rdev: int
    atime: float
    mtime: float
    ctime: float
    atime_ns: int
    mtime_ns: int
    ctime_ns: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stats) and self.result == other.result

    def __hash__(self) -> int:
        return hash(self.result)

    def __repr__(self) -> str:
        return f"<Stats mode={self.result.st_mode:o} size={self.result.st_size}>"


class StatFs(NamedTuple):
    """What `statfs` gives: sizes in blocks of `bsize` bytes."""

    bsize: int
    blocks: int
    bfree: int
    """Free blocks."""
    bavail: int
    """Free blocks for users who are not root."""
    files: int
    """Inodes, used and free."""
    ffree: int
    """Free inodes."""

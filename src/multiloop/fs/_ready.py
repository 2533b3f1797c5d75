"""What can be looked at, opened and read without waiting, because the kernel has it in memory: then no thread is needed.

What lives here: the attempts that `loop.call` makes first, and the one place that knows whether this system can promise
it (`_cached.c` says what the promise is made of). What must not: anything that may wait.

Each gives None where it would have to wait, where the file is large, or where something is wrong: a thread makes the
call then, and finds the error. In the pure form, elsewhere than on Linux 5.12+, and on file systems other than ext4, xfs,
btrfs, f2fs and tmpfs (without swap) that is always.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from .._limits import FILE_CACHED_READ_BYTES
from ._paths import Path


def _extension() -> Any:
    if os.environ.get("MULTILOOP_PURE", "") not in ("", "0"):
        return None
    try:
        module = importlib.import_module("multiloop.fs._cached")
    except ImportError:
        return None
    return module if module.HAVE_NOWAIT else None


_cached = _extension()


def _whole(path: Path) -> bytes | None:
    return _cached.read_file(path, FILE_CACHED_READ_BYTES)  # type: ignore[no-any-return]


def _part(fd: int, size: int, position: int | None) -> bytes | None:
    return _cached.read(fd, size, position) if size <= FILE_CACHED_READ_BYTES else None


def _status(path: Path, follow: bool = True) -> os.stat_result | None:
    fd = _cached.look(path, follow)
    if fd is None:
        return None
    try:
        return os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def _opened(path: Path, flags: int) -> int | None:
    return _cached.open_file(path, flags)  # type: ignore[no-any-return]


def _below(root: Path, path: bytes) -> int | None:
    return _cached.open_below(root, path)  # type: ignore[no-any-return]


Whole = Callable[[Path], bytes | None]
Part = Callable[[int, int, int | None], bytes | None]
Status = Callable[..., os.stat_result | None]
Opened = Callable[[Path, int], int | None]
Below = Callable[[Path, bytes], int | None]
BelowWhole = Callable[[Path, bytes, int], tuple[bytes, int] | None]

whole: Whole | None = None if _cached is None else _whole
"""All of a small file."""
part: Part | None = None if _cached is None else _part
"""Up to `size` bytes of an open file at a position, or at its own; fewer only at its end."""
status: Status | None = None if _cached is None else _status
"""What the system knows of a file that is there."""
opened: Opened | None = None if _cached is None else _opened
"""A descriptor of a regular file, for reading."""
below: Below | None = None if _cached is None else _below
"""The same of a file below a directory, reached without a link."""
below_whole: BelowWhole | None = None if _cached is None else _cached.read_below
"""All of such a file, if it is not empty and has up to so many bytes, and when it was modified (ns)."""

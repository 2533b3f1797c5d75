"""Opening a file below a root, and none that is not. Runs on a thread, but for `open_at_once`.

What lives here: `split_path` (pure), `open_below`, and `open_at_once` for what cannot wait. What must not: HTTP.

How the root is never left: a path is cut into names first, and nothing that is not a plain name survives that. The names
are then opened one inside the other by descriptor without following links, so that nothing can be exchanged between a
check and its use. A link is resolved by its own path, which must lie below the real root, and that path is walked in
the same way. Only regular files are opened: what is not one is not touched, since opening a device can do something.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from ..fs._ready import below

_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_MAX_NAMES: Final = 64

SUPPORTED: Final = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd


class OpenFile:
    """An open regular file, closed when nobody holds it any more."""

    __slots__ = ("descriptor", "modified_ns", "name", "size_bytes")

    def __init__(self, descriptor: int, name: str, status: os.stat_result) -> None:
        self.descriptor = descriptor
        self.name = name
        self.size_bytes = status.st_size
        self.modified_ns = status.st_mtime_ns

    def close(self) -> None:
        """Close it; closing twice is fine."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class IsDirectory(Exception):
    """The path leads to a directory that has an index, and does not end in a slash."""


class _IsLink(Exception):
    pass


def split_path(path: bytes, *, hidden: bool) -> list[bytes] | None:
    """Cut a decoded path into names; None when it is not one that a file below the root can have.

    Refused are `.` and `..`, empty names, NUL and other control characters, backslashes, and (unless `hidden`) names that
    begin with a dot, but for `.well-known` (RFC 8615). A trailing slash gives an empty last name.
    """
    if path[:1] != b"/" or b"\\" in path or any(byte < 32 or byte == 127 for byte in path):
        return None
    names = path[1:].split(b"/")
    if len(names) > _MAX_NAMES:
        return None
    for name in names[:-1]:
        if not name:
            return None
    for name in names:
        if name in (b".", b"..") or len(name) > 255:
            return None
        if name[:1] == b"." and not hidden and name != b".well-known":
            return None
    return names


def open_at_once(root: str, names: list[bytes], index: str | None) -> OpenFile | None:
    """Open the file here and now, where nothing can wait and no link is on the way; None where a thread has to look.

    The kernel itself keeps the path below the root, and takes it from what it has in memory (`fs/_ready.py`).
    """
    if below is None:
        return None
    if not names[-1]:
        if index is None:
            return None
        names = [*names[:-1], os.fsencode(index)]
    descriptor = below(root, b"/".join(names))
    return None if descriptor is None else OpenFile(descriptor, os.fsdecode(names[-1]), os.fstat(descriptor))


def open_below(root: str, names: list[bytes], index: str | None) -> OpenFile | None:
    """Open the file; None when there is none (or it may not be read). An empty last name is the directory's index.

    Raises IsDirectory, or OSError when the system cannot open anything (too many open files).
    """
    try:
        return _walk(root, names, index)
    except _IsLink:
        pass
    except OSError as error:
        _raise_if_ours(error)
        return None
    real_root = os.path.realpath(os.fsencode(root))
    real = os.path.realpath(os.path.join(real_root, *names))
    if not real.startswith(real_root.rstrip(b"/") + b"/"):
        return None
    below = real[len(real_root.rstrip(b"/")) + 1 :].split(b"/")
    if not names[-1]:
        below.append(b"")
    try:
        return _walk(root, below, index)
    except _IsLink:
        return None  # exchanged while we looked
    except OSError as error:
        _raise_if_ours(error)
        return None


def _raise_if_ours(error: OSError) -> None:
    """For a client there is no such file, unless the trouble is our own."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
        raise error


def _walk(root: str, names: list[bytes], index: str | None) -> OpenFile | None:
    at = os.open(root, _DIRECTORY)
    try:
        for name in names[:-1]:
            at = _enter(at, name)
        name = names[-1]
        if not name:
            if index is None:
                return None
            name = os.fsencode(index)
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and names[-1] and index is not None:
            at = _enter(at, name)
            status = os.stat(index, dir_fd=at, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                raise IsDirectory
            return None
        return _open_file(at, name, status)
    finally:
        os.close(at)


def _enter(at: int, name: bytes) -> int:
    """Go into a directory; takes the descriptor of the one it is in only when that succeeds."""
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise _IsLink
    inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    os.close(at)
    return inner


def _open_file(at: int, name: bytes, status: os.stat_result) -> OpenFile | None:
    if stat.S_ISLNK(status.st_mode):
        raise _IsLink
    if not stat.S_ISREG(status.st_mode):
        return None
    descriptor = os.open(name, _FILE, dir_fd=at)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return OpenFile(descriptor, os.fsdecode(name), status)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None

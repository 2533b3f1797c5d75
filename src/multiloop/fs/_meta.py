"""Names and metadata: stat, access, rename, links, permissions, times.

What lives here: one call of the kernel each, on a thread, and its public face. What must not: contents (`_file`), trees
(`_tree`).
"""

from __future__ import annotations

import errno
import os
from typing import Any

from ..loop import ErrorFirst, Operation, call
from ._paths import Path, named
from ._ready import status
from ._stats import StatFs, Stats
from ._times import Time, times_ns

F_OK, R_OK, W_OK, X_OK = os.F_OK, os.R_OK, os.W_OK, os.X_OK


# --- looking ----------------------------------------------------------------------------------------------------------
def stat(path: Path, *, callback: ErrorFirst | None = None) -> Operation[Stats]:
    """What the system knows of a file; links are followed."""
    return call(callback, stat_blocking, (path, True), None, _stat_at_once)  # type: ignore[no-any-return]


def lstat(path: Path, *, callback: ErrorFirst | None = None) -> Operation[Stats]:
    """The same of a link itself."""
    return call(callback, stat_blocking, (path, False), None, _stat_at_once)  # type: ignore[no-any-return]


def _look(path: Path, follow: bool) -> Stats | None:
    result = None if status is None else status(path, follow)
    return None if result is None else Stats(result)


def _find(path: Path) -> bool | None:
    return None if status is None or status(path) is None else True


_stat_at_once = None if status is None else _look
_exists_at_once = None if status is None else _find


@named
def stat_blocking(path: Path, follow: bool) -> Stats:
    """Ask the system, on a thread."""
    return Stats(os.stat(path, follow_symlinks=follow))


def exists(path: Path, *, callback: ErrorFirst | None = None) -> Operation[bool]:
    """Whether there is such a file, links followed. Only for messages: by the time you act it may have changed."""
    return call(callback, os.path.exists, (path,), None, _exists_at_once)  # type: ignore[no-any-return]


def access(path: Path, mode: int = F_OK, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Check that this user may reach (F_OK), read (R_OK), write (W_OK) or run (X_OK) a file.

    Raises FileNotFoundError, PermissionError or another OSError that says why not.
    """
    return call(callback, _access, (path, mode))  # type: ignore[no-any-return]


@named
def _access(path: Path, mode: int) -> None:
    if os.access(path, mode):
        return
    os.stat(path)  # tells why it cannot be reached
    if mode & W_OK and os.statvfs(path).f_flag & getattr(os, "ST_RDONLY", 1):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def realpath(path: Path, *, callback: ErrorFirst | None = None) -> Operation[str]:
    """The absolute path without links. Raises FileNotFoundError when there is no such file."""
    return call(callback, _realpath, (path,))  # type: ignore[no-any-return]


@named
def _realpath(path: Path) -> Any:
    return os.path.realpath(path, strict=True)


def readlink(path: Path, *, callback: ErrorFirst | None = None) -> Operation[str]:
    """Where a symbolic link points, as it was written."""
    return call(callback, _readlink, (path,))  # type: ignore[no-any-return]


_readlink = named(os.readlink)


def statfs(path: Path, *, callback: ErrorFirst | None = None) -> Operation[StatFs]:
    """How full the file system is on which a file lies."""
    return call(callback, _statfs, (path,))  # type: ignore[no-any-return]


@named
def _statfs(path: Path) -> StatFs:
    info = os.statvfs(path)
    return StatFs(info.f_frsize, info.f_blocks, info.f_bfree, info.f_bavail, info.f_files, info.f_ffree)


# --- names ------------------------------------------------------------------------------------------------------------
def rename(old: Path, new: Path, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Rename or move within one file system; a file that has the new name is replaced, at once."""
    return call(callback, _rename, (old, new))  # type: ignore[no-any-return]


_rename = named(os.replace)


def unlink(path: Path, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Remove a file or a link. Not a directory: `rm`."""
    return call(callback, _unlink, (path,))  # type: ignore[no-any-return]


_unlink = named(os.unlink)


def link(existing: Path, new: Path, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Give a file one more name (a hard link)."""
    return call(callback, _link, (existing, new))  # type: ignore[no-any-return]


_link = named(os.link)


def symlink(target: Path, path: Path, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Make `path` a symbolic link to `target`, which need not exist and counts from the link's own directory."""
    return call(callback, _symlink, (target, path))  # type: ignore[no-any-return]


_symlink = named(os.symlink)


# --- permissions and times --------------------------------------------------------------------------------------------
def chmod(path: Path, mode: int, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Set the permissions."""
    return call(callback, _chmod, (path, mode))  # type: ignore[no-any-return]


_chmod = named(os.chmod)


def chown(path: Path, uid: int, gid: int, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Set owner and group; -1 leaves one as it is. Links are followed."""
    return call(callback, _chown, (path, uid, gid))  # type: ignore[no-any-return]


def lchown(path: Path, uid: int, gid: int, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """The same for a link itself."""
    return call(callback, _lchown, (path, uid, gid))  # type: ignore[no-any-return]


_chown = named(os.chown)
_lchown = named(os.lchown)


def utimes(path: Path, atime: Time, mtime: Time, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Set the times of access and change: seconds since 1970, or a datetime. Links are followed."""
    return call(callback, _utimes, (path, times_ns(atime, mtime), True))  # type: ignore[no-any-return]


def lutimes(path: Path, atime: Time, mtime: Time, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """The same for a link itself."""
    return call(callback, _utimes, (path, times_ns(atime, mtime), False))  # type: ignore[no-any-return]


@named
def _utimes(path: Path, ns: tuple[int, int], follow: bool) -> None:
    os.utime(path, ns=ns, follow_symlinks=follow)

"""Making and removing directories: mkdir, mkdtemp, rm, rmdir.

What lives here: the walks, each one call on a thread, which stop between two entries when cancelled. What must not:
listing (`_dir`), copying (`_cp`).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import string
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..errors import UsageError
from ..loop import ErrorFirst, Operation, call
from ._calls import check_wanted
from ._paths import Path, named, text_of

_RETRIED = frozenset({errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOTEMPTY, errno.EPERM})
_LETTERS = string.ascii_letters + string.digits


# --- making -----------------------------------------------------------------------------------------------------------
def mkdir(
    path: Path, *, recursive: bool = False, mode: int = 0o777, callback: ErrorFirst | None = None
) -> Operation[str | None]:
    """Make a directory.

    Args:
        recursive: make the missing ones above it, too, and be content when it exists. The result is then the first
            directory that was made, None when there was nothing to do.
        mode: permissions, less the umask.
    """
    return call(callback, _mkdir, (path, recursive, mode))  # type: ignore[no-any-return]


@named
def _mkdir(path: Path, recursive: bool, mode: int) -> str | None:
    if not recursive:
        os.mkdir(path, mode)
        return None
    wanted = os.path.abspath(text_of(path))
    missing = [wanted]
    while True:
        try:
            os.mkdir(missing[-1], mode)
        except FileNotFoundError:
            missing.append(os.path.dirname(missing[-1]))
        except FileExistsError:
            if not os.path.isdir(missing[-1]):
                raise
            missing.pop()
            break
        else:
            break
    if not missing:
        return None
    first = missing.pop()
    if not os.path.isdir(first):  # the one below what exists is still to be made
        os.mkdir(first, mode)
    for each in reversed(missing):
        check_wanted()
        try:
            os.mkdir(each, mode)
        except FileExistsError:  # somebody else was as quick
            if not os.path.isdir(each):
                raise
    return first


def mkdtemp(prefix: Path, *, callback: ErrorFirst | None = None) -> Operation[str]:
    """Make a directory of one's own: `prefix` and six random characters, which only this user may enter."""
    return call(callback, _mkdtemp, (prefix,), os.rmdir)  # type: ignore[no-any-return]


@named
def _mkdtemp(prefix: Path) -> str:
    start = text_of(prefix)
    while True:
        path = start + "".join(secrets.choice(_LETTERS) for _ in range(6))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path


class TemporaryDirectory:
    """What `mkdtemp_disposable` gives: `path`, and `remove()`, which `async with` calls at its end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._whole_path = os.path.abspath(path)  # a later chdir must not lead it elsewhere

    def remove(self, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Remove it with all that is in it. Twice is fine."""
        return rm(self._whole_path, recursive=True, force=True, callback=callback)

    async def __aenter__(self) -> str:
        return self.path

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.remove()


def mkdtemp_disposable(prefix: Path, *, callback: ErrorFirst | None = None) -> Operation[TemporaryDirectory]:
    """Make a directory that is removed again: `async with fs.mkdtemp_disposable("/tmp/job-") as path: ...`."""
    return call(callback, _mkdtemp_disposable, (prefix,), lambda made: os.rmdir(made.path))  # type: ignore[no-any-return]


def _mkdtemp_disposable(prefix: Path) -> TemporaryDirectory:
    return TemporaryDirectory(_mkdtemp(prefix))


# --- removing ---------------------------------------------------------------------------------------------------------
def rmdir(path: Path, *, callback: ErrorFirst | None = None) -> Operation[None]:
    """Remove an empty directory."""
    return call(callback, _rmdir, (path,))  # type: ignore[no-any-return]


_rmdir = named(os.rmdir)


def rm(
    path: Path,
    *,
    recursive: bool = False,
    force: bool = False,
    max_retries: int = 0,
    retry_delay: float = 0.1,
    callback: ErrorFirst | None = None,
) -> Operation[None]:
    """Remove a file, a link (never what it points to) or, with `recursive`, a directory with all that is in it.

    Args:
        force: be content when it does not exist.
        max_retries: for what is busy or was filled meanwhile; waits `retry_delay` seconds more each time.

    Cancelled, it stops between two entries. Raises IsADirectoryError for a directory without `recursive`.
    """
    if max_retries < 0 or retry_delay < 0:
        raise UsageError("rm(): max_retries and retry_delay cannot be negative")
    return call(callback, _rm, (path, recursive, force, max_retries, retry_delay))  # type: ignore[no-any-return]


@named
def _rm(path: Path, recursive: bool, force: bool, max_retries: int, retry_delay_s: float) -> None:
    for attempt in range(max_retries + 1):
        try:
            _rm_once(path, recursive, force)
        except OSError as error:
            if error.errno not in _RETRIED or attempt == max_retries:
                raise
            time.sleep(retry_delay_s * (attempt + 1))
            check_wanted()
        else:
            return


def _rm_once(path: Path, recursive: bool, force: bool) -> None:
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(path)
        elif recursive:
            _remove_directory(path)
        else:
            raise IsADirectoryError(errno.EISDIR, "is a directory (recursive=True removes it)", path)
    except FileNotFoundError:
        if not force:
            raise


def _remove_directory(path: Path) -> None:
    if os.open not in os.supports_dir_fd:
        shutil.rmtree(path)
        return
    # Through descriptors: a directory that is swapped for a link meanwhile cannot lead us out of the tree.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    name = text_of(path)
    levels = [(fd, name, _entries(fd, name))]
    try:
        while levels:
            check_wanted()
            fd, name, entries = levels[-1]
            if not entries:
                os.close(fd)
                levels.pop()
                _at(os.rmdir, name, levels[-1][0] if levels else None)
                continue
            entry, is_directory = entries.pop()
            whole = os.path.join(name, entry)
            if is_directory:
                below = _at(_open_directory, whole, fd)
                levels.append((below, whole, _entries(below, whole)))
            else:
                _at(os.unlink, whole, fd)
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def _entries(fd: int, name: str) -> list[tuple[str, bool]]:
    try:
        with os.scandir(fd) as found:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    except OSError as error:
        error.filename = name
        raise


def _open_directory(entry: str, *, dir_fd: int) -> int:
    return os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def _at(function: Callable[..., Any], whole: str, dir_fd: int | None) -> Any:
    """Call with the last part of a path, from the directory above it; errors name the whole."""
    try:
        return function(whole) if dir_fd is None else function(os.path.basename(whole), dir_fd=dir_fd)
    except FileNotFoundError:
        if function is _open_directory:
            raise
        return None  # somebody else removed it: what we want
    except OSError as error:
        error.filename = whole
        raise

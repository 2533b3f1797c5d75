"""`cp`: copying a tree, and what it refuses.

What lives here: the rules for one entry, and two ways to walk: in one call on a thread, or, when the user's own `filter`
has to be asked, from the loop. What must not: copying contents (`_file`).
"""

from __future__ import annotations

import errno
import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from ..errors import UsageError
from ..loop import ErrorFirst, Operation, call, launch
from ._calls import check_wanted
from ._file import COPYFILE_EXCL, copy_blocking
from ._paths import Path, nul_in, text_of

Filter = Callable[[str, str], "bool | Awaitable[bool]"]


class _Options(NamedTuple):
    recursive: bool
    force: bool
    error_on_exist: bool
    dereference: bool
    preserve_timestamps: bool
    verbatim_symlinks: bool
    mode: int


def cp(
    source: Path,
    destination: Path,
    *,
    recursive: bool = False,
    force: bool = True,
    error_on_exist: bool = False,
    filter: Filter | None = None,  # noqa: A002 - Node's name
    dereference: bool = False,
    preserve_timestamps: bool = False,
    verbatim_symlinks: bool = False,
    mode: int = 0,
    callback: ErrorFirst | None = None,
) -> Operation[None]:
    """Copy a file, a link or, with `recursive`, a directory with all that is in it.

    Args:
        force: replace files that exist; False leaves them, or with `error_on_exist` raises FileExistsError.
        filter: asked with source and destination of each entry, on the loop, may be async; false leaves it out, with
            all that is in it.
        dereference: copy what links point to, not the links.
        preserve_timestamps: copy times of access and change, too.
        verbatim_symlinks: copy relative links as they are written; else they come to point to the same file as before.
        mode: as for `copy_file`.

    Refuses, with an OSError that says why: a directory without `recursive`, a directory into itself, a directory over a
    file, a file over a directory, and sockets, FIFOs and devices. Cancelled, it stops between two entries.
    """
    if error_on_exist and force:
        raise UsageError("cp(error_on_exist=True) needs force=False: with force, what exists is replaced")
    options = _Options(
        recursive, force, error_on_exist, dereference, preserve_timestamps, verbatim_symlinks, mode & ~COPYFILE_EXCL
    )
    if mode & COPYFILE_EXCL:
        options = options._replace(force=False, error_on_exist=True)
    names = text_of(source), text_of(destination)
    if filter is not None:
        return launch(_copy_asking(*names, options, filter), callback)  # type: ignore[no-any-return]
    return call(callback, _copy, (*names, options))  # type: ignore[no-any-return]


# --- the walks --------------------------------------------------------------------------------------------------------
def _copy(source: str, destination: str, options: _Options) -> None:
    _check_top(source, destination, options)
    finish = []
    waiting = [(source, destination)]
    while waiting:
        check_wanted()
        pair = waiting.pop()
        below, made = _copy_one(*pair, options)
        if made:
            finish.append(pair)
        if below:
            waiting += ((os.path.join(pair[0], name), os.path.join(pair[1], name)) for name in below)
    for pair in reversed(finish):
        _finish_directory(*pair, options)


async def _copy_asking(source: str, destination: str, options: _Options, wanted: Filter) -> None:
    if not await _ask(wanted, source, destination):
        return
    await call(None, _check_top, (source, destination, options))
    finish = []
    waiting = [(source, destination)]
    while waiting:
        pair = waiting.pop()
        below, made = await call(None, _copy_one, (*pair, options))
        if made:
            finish.append(pair)
        if below:
            pairs = ((os.path.join(pair[0], name), os.path.join(pair[1], name)) for name in below)
            waiting += [each for each in pairs if await _ask(wanted, *each)]
    for pair in reversed(finish):
        await call(None, _finish_directory, (*pair, options))


async def _ask(wanted: Filter, source: str, destination: str) -> bool:
    answer = wanted(source, destination)
    return bool(await answer if inspect.isawaitable(answer) else answer)


# --- one entry --------------------------------------------------------------------------------------------------------
def _check_top(source: str, destination: str, options: _Options) -> None:
    if (problem := nul_in(source, destination)) is not None:
        raise problem
    info = _look(source, options.dereference)
    assert info is not None
    if stat.S_ISDIR(info.st_mode):
        if not options.recursive:
            raise IsADirectoryError(errno.EISDIR, "is a directory (recursive=True copies it)", source)
        for parent in _parents(os.path.realpath(destination)):
            if _same(info, parent):
                raise OSError(errno.EINVAL, "a directory cannot be copied into itself", source, None, destination)
    there = _look(destination, options.dereference, missing_ok=True)
    if there is not None and (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino):
        raise OSError(errno.EINVAL, "source and destination are the same", source, None, destination)
    os.makedirs(os.path.dirname(os.path.abspath(destination)), exist_ok=True)


def _parents(path: str) -> Iterator[str]:
    while True:
        yield path
        above = os.path.dirname(path)
        if above == path:
            return
        path = above


def _same(info: os.stat_result, path: str) -> bool:
    try:
        other = os.stat(path)
    except FileNotFoundError:
        return False
    return (info.st_dev, info.st_ino) == (other.st_dev, other.st_ino)


def _look(path: str, follow: bool, *, missing_ok: bool = False) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise


def _copy_one(source: str, destination: str, options: _Options) -> tuple[list[str], bool]:
    """Copy one entry. Returns, for a directory, the names in it and whether it was made."""
    info = _look(source, options.dereference)
    assert info is not None
    there = _look(destination, options.dereference, missing_ok=True)
    if stat.S_ISDIR(info.st_mode):
        if there is None:
            os.mkdir(destination, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)
        elif not stat.S_ISDIR(there.st_mode):
            raise NotADirectoryError(
                errno.ENOTDIR, "a directory cannot replace what is no directory", source, None, destination
            )
        return sorted(os.listdir(source), reverse=True), there is None
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a directory cannot be replaced by a file", source, None, destination)
    if stat.S_ISLNK(info.st_mode):
        _copy_link(source, destination, there, options)
    elif stat.S_ISREG(info.st_mode):
        _copy_file(source, destination, info, there, options)
    else:
        kind = "socket" if stat.S_ISSOCK(info.st_mode) else "FIFO" if stat.S_ISFIFO(info.st_mode) else "device"
        raise OSError(errno.EINVAL, f"a {kind} cannot be copied", source, None, destination)
    return [], False


def _may_replace(destination: str, options: _Options) -> bool:
    if options.force:
        return True
    if options.error_on_exist:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), destination)
    return False


def _copy_file(
    source: str, destination: str, info: os.stat_result, there: os.stat_result | None, options: _Options
) -> None:
    if there is not None:
        if not _may_replace(destination, options):
            return
        os.unlink(destination)  # never written through: it may be a link, or another name of something else
    copy_blocking(source, destination, options.mode)
    if options.preserve_timestamps:
        os.utime(destination, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_link(source: str, destination: str, there: os.stat_result | None, options: _Options) -> None:
    target = os.readlink(source)
    if not options.verbatim_symlinks and not os.path.isabs(target):
        target = os.path.join(os.path.dirname(os.path.abspath(source)), target)
    if there is not None:
        if not _may_replace(destination, options):
            return
        os.unlink(destination)
    os.symlink(target, destination)


def _finish_directory(source: str, destination: str, options: _Options) -> None:
    # Last: a directory that may not be written to could not be filled, and filling changes its times.
    info = os.stat(source)
    os.chmod(destination, stat.S_IMODE(info.st_mode))
    if options.preserve_timestamps:
        os.utime(destination, ns=(info.st_atime_ns, info.st_mtime_ns))

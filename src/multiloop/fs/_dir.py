"""Listing directories: readdir, scandir, opendir.

What lives here: `Dirent`, `Dir`, and the walk that they share. What must not: patterns (`_glob`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, overload

from .._limits import DIR_BATCH
from ..errors import ClosedError, UsageError
from ..loop import ErrorFirst, Operation, call, call_always, launch
from ._calls import check_wanted
from ._paths import Path, named, text_of
from ._stats import Kind, Stats


class Dirent(Kind):
    """An entry of a directory: `name`, `parent_path`, its kind, and (from `scandir(stats=True)`) its `stats`."""

    __slots__ = ("_kind", "name", "parent_path", "stats")

    def __init__(self, name: str, parent_path: str, kind: int, stats: Stats | None = None) -> None:
        self.name = name
        self.parent_path = parent_path
        self._kind = kind
        self.stats = stats

    @property
    def path(self) -> str:
        """Where it is: `parent_path` and `name`."""
        return os.path.join(self.parent_path, self.name)

    def __fspath__(self) -> str:
        return self.path

    def _type(self) -> int:
        return self._kind

    def __repr__(self) -> str:
        return f"<Dirent {self.path!r}>"


def dirent_of(entry: os.DirEntry[Any], parent: str, *, stats: bool = False) -> Dirent:
    """Turn what the system gives into a Dirent; asks the system only for kinds that it did not tell."""
    known: Stats | None = None
    if stats:
        known = Stats(entry.stat(follow_symlinks=False))
        kind = stat.S_IFMT(known.result.st_mode)
    elif entry.is_file(follow_symlinks=False):
        kind = stat.S_IFREG
    elif entry.is_dir(follow_symlinks=False):
        kind = stat.S_IFDIR
    elif entry.is_symlink():
        kind = stat.S_IFLNK
    else:
        kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    return Dirent(os.fsdecode(entry.name), parent, kind, known)


# --- all at once ------------------------------------------------------------------------------------------------------
@overload
def readdir(
    path: Path,
    *,
    with_file_types: Literal[False] = False,
    recursive: bool = False,
    callback: ErrorFirst | None = None,
) -> Operation[list[str]]: ...
@overload
def readdir(
    path: Path, *, with_file_types: Literal[True], recursive: bool = False, callback: ErrorFirst | None = None
) -> Operation[list[Dirent]]: ...
def readdir(
    path: Path, *, with_file_types: bool = False, recursive: bool = False, callback: ErrorFirst | None = None
) -> Any:
    """The names in a directory, sorted, without "." and "..".

    Args:
        with_file_types: `Dirent`s in place of names.
        recursive: what is in the directories below, too (links to directories are not entered); names are then paths
            from `path` on.
    """
    return call(callback, _readdir, (path, with_file_types, recursive))


@named
def _readdir(path: Path, with_file_types: bool, recursive: bool) -> list[Any]:
    top = text_of(path)
    if not with_file_types and not recursive:
        return sorted(os.listdir(top))
    found = _walk(os.scandir(top), top, recursive)
    if with_file_types:
        return list(found)
    return [os.path.relpath(entry.path, top) for entry in found]


def scandir(path: Path, *, stats: bool = False, callback: ErrorFirst | None = None) -> Operation[list[Dirent]]:
    """The entries of a directory, sorted; with `stats`, each with what `lstat` gives, all in one hop."""
    return call(callback, scandir_blocking, (path, stats))  # type: ignore[no-any-return]


@named
def scandir_blocking(path: Path, stats: bool) -> list[Dirent]:
    """List a directory, on a thread."""
    top = text_of(path)
    found = []
    with os.scandir(top) as entries:
        for entry in entries:
            check_wanted()
            try:
                found.append(dirent_of(entry, top, stats=stats))
            except FileNotFoundError:  # removed while we look
                continue
    found.sort(key=_by_name)
    return found


def _by_name(entry: Dirent) -> str:
    return entry.name


def _walk(entries: Any, parent: str, recursive: bool) -> Iterator[Dirent]:
    """A directory's entries, sorted, each directory before what is in it."""
    with entries:
        found = sorted((dirent_of(entry, parent) for entry in entries), key=_by_name)
    for entry in found:
        check_wanted()
        yield entry
        if recursive and entry.is_directory():
            try:
                below = os.scandir(entry.path)
            except FileNotFoundError:
                continue
            yield from _walk(below, entry.path, True)


# --- one after another ------------------------------------------------------------------------------------------------
def opendir(
    path: Path, *, buffer_size: int = DIR_BATCH, recursive: bool = False, callback: ErrorFirst | None = None
) -> Operation[Dir]:
    """Open a directory that may be huge: `async for entry in await fs.opendir(path)`.

    Args:
        buffer_size: how many entries to read at a time.
        recursive: go into the directories below, too (not through links).
    """
    if buffer_size < 1:
        raise UsageError(f"buffer_size={buffer_size}: at least 1")
    return call(callback, _opendir, (path, buffer_size, recursive), Dir._close_now)  # type: ignore[no-any-return]


@named
def _opendir(path: Path, buffer_size: int, recursive: bool) -> Dir:
    top = text_of(path)
    return Dir(top, os.scandir(top), buffer_size, recursive)


class Dir:
    """An open directory. Made by `opendir`; iterating over it to the end or out of it closes it."""

    def __init__(self, path: str, entries: Any, buffer_size: int, recursive: bool) -> None:
        self.path = path
        self._buffer_size = buffer_size
        self._recursive = recursive
        # Touched by threads, with the lock: what is read now, from which directory, and those still to be read.
        self._entries: Any = entries
        self._parent = path
        self._below: list[str] = []
        self._ahead: deque[Dirent] = deque()
        self._lock = threading.Lock()
        self._turns = asyncio.Lock()
        self.closed = False

    def read(self, *, callback: ErrorFirst | None = None) -> Operation[Dirent | None]:
        """The next entry; None at the end. Raises ClosedError after `close()`."""
        return launch(self._next(), callback)  # type: ignore[no-any-return]

    async def _next(self) -> Dirent | None:
        if self.closed:
            raise self._closed_error()
        if not self._ahead:
            async with self._turns:
                if not self._ahead:
                    self._ahead.extend(await call(None, self._batch, ()))
        return self._ahead.popleft() if self._ahead else None

    def _batch(self) -> list[Dirent]:
        batch: list[Dirent] = []
        with self._lock:
            if self.closed:
                raise self._closed_error()
            try:
                while self._entries is not None and len(batch) < self._buffer_size:
                    taken = list(itertools.islice(self._entries, self._buffer_size - len(batch)))
                    found = [dirent_of(entry, self._parent) for entry in taken]
                    batch += found
                    if self._recursive:
                        self._below += [entry.path for entry in found if entry.is_directory()]
                    if not taken:
                        self._next_directory()
            except OSError as error:
                if error.filename is None:
                    error.filename = self.path
                raise
        return batch

    def _next_directory(self) -> None:
        self._entries.close()
        self._entries = None
        while self._below and self._entries is None:
            self._parent = self._below.pop()
            try:
                self._entries = os.scandir(self._parent)
            except FileNotFoundError:  # removed while we read
                continue

    def close(self, *, callback: ErrorFirst | None = None) -> Operation[None]:
        """Close it. Twice is fine. Cancelling only stops waiting: it is closed all the same."""
        return call_always(callback, self._close_now)  # type: ignore[no-any-return]

    def _close_now(self) -> None:
        with self._lock:
            self.closed = True
            if self._entries is not None:
                self._entries.close()
                self._entries = None

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"directory {self.path!r} is closed: open it again")

    def __aiter__(self) -> _Entries:
        return _Entries(self)

    async def __aenter__(self) -> Dir:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not self.closed and self._entries is not None:
            warnings.warn(
                f"directory {self.path!r} was never closed: `async with`, or await close()", ResourceWarning, 2, self
            )
            self._close_now()


class _Entries:
    """What `async for` takes from. Leaving the loop drops it, and the directory is closed."""

    __slots__ = ("_dir",)

    def __init__(self, of: Dir) -> None:
        self._dir = of

    def __aiter__(self) -> _Entries:
        return self

    async def __anext__(self) -> Dirent:
        entry = await self._dir._next()
        if entry is None:
            await self._dir.close()
            raise StopAsyncIteration
        return entry

    def __del__(self) -> None:
        self._dir._close_now()  # waits for nothing but a batch that is being read

"""Paths, flags and the names in errors.

What lives here: what every function of the package does with what users pass. What must not: I/O.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import InvalidPath, UsageError

P = ParamSpec("P")
R = TypeVar("R")

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Data = str | bytes | bytearray | memoryview

# Never a controlling terminal, never inherited; and non-blocking, which means nothing to regular files: no thread waits
# for the other end of a FIFO or for a terminal.
ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

_R, _W, _RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
_NEW, _TRUNC, _APPEND, _SYNC = os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND, os.O_SYNC
_FLAGS = {
    "r": _R,
    "rs": _R | _SYNC,
    "r+": _RW,
    "rs+": _RW | _SYNC,
    "w": _W | _TRUNC,
    "wx": _W | _TRUNC | os.O_EXCL,
    "w+": _RW | _TRUNC,
    "wx+": _RW | _TRUNC | os.O_EXCL,
    "a": _W | _APPEND,
    "as": _W | _APPEND | _SYNC,
    "ax": _W | _APPEND | os.O_EXCL,
    "a+": _RW | _APPEND,
    "as+": _RW | _APPEND | _SYNC,
    "ax+": _RW | _APPEND | os.O_EXCL,
}
_SPELLINGS = {"x": "wx", "x+": "wx+", "sr": "rs", "sr+": "rs+", "xw": "wx", "xw+": "wx+", "xa": "ax", "xa+": "ax+"}


def parse_flags(flags: str | int) -> int:
    """Turn "r", "w+", "ax", ... (Node's; Python's "rb" and "x" too) or `os.O_*` into what os.open takes.

    Raises UsageError for anything else.
    """
    if isinstance(flags, int):
        return flags | ALWAYS
    try:
        return _FLAGS[flags] | ALWAYS
    except KeyError:
        plain = "".join(sorted(flags.replace("b", "").replace("t", ""), key="rwaxs+".find))
        plain = _SPELLINGS.get(plain, plain)
        if plain not in _FLAGS:
            raise UsageError(f"flags {flags!r} are unknown: use one of {', '.join(_FLAGS)}") from None
        return _FLAGS[plain] | ALWAYS


def text_of(path: Path) -> str:
    """A path as text, whatever it was given as."""
    return os.fsdecode(path)


def nul_in(*paths: Any) -> InvalidPath | None:
    """The error for the first of these that has a NUL in it."""
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            text = os.fsdecode(path)
            if "\0" in text:
                return InvalidPath(text)
    return None


def name(error: OSError, path: Any) -> None:
    """Put the path into an error of a call that knows only a descriptor."""
    if error.filename is None and path is not None:
        error.filename = path if isinstance(path, str | bytes) else os.fspath(path)


def named(function: Callable[P, R]) -> Callable[P, R]:
    """For functions whose first argument is a path: every OSError gets its name, and NUL in a path is told clearly."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OSError as error:
            name(error, args[0])
            raise
        except ValueError:
            if (problem := nul_in(*args)) is not None:
                raise problem from None
            raise

    return call


def as_data(data: Any, encoding: str) -> bytes | bytearray | memoryview:
    """Turn what is to be written into bytes. Raises TypeError for what is neither text nor bytes."""
    if isinstance(data, str):
        return data.encode(encoding)
    if isinstance(data, bytes | bytearray):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"what is written must be bytes or text, not {type(data).__name__}") from None
    return view.cast("B") if view.contiguous else view.tobytes()

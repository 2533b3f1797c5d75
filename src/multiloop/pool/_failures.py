"""Exceptions of tasks on their way from a worker to the caller.

What lives here: `pack_error` (in the worker) and `unpack_error` (in the pool's process), side by side because they mirror
each other. What must not: deciding what a failure means for the pool.

What arrives: the same type with its arguments, attributes and notes, its causes and contexts (each by itself, so that
one that cannot travel does not spoil the others), and the traceback of the worker as text, as the cause at the end of
the chain, so that it is printed first. An exception that cannot be pickled or made again arrives as RemoteError.
"""

from __future__ import annotations

import _pickle
import marshal
import os
from typing import Any

_MAX_CHAIN = 16  # causes of causes
_MAX_TEXT_CHARS = 64 * 1024
_FOLDER = os.path.dirname(__file__)


# --- in the worker ------------------------------------------------------------------------------------------------
def pack_error(error: BaseException) -> bytes:
    """Turn an exception into bytes; never raises, whatever the exception's class does."""
    links: list[tuple[bytes | None, str, str, list[str], str]] = []
    relation = ""
    walking: BaseException | None = error
    seen: set[int] = set()
    while walking is not None and id(walking) not in seen and len(links) < _MAX_CHAIN:
        seen.add(id(walking))
        kind = type(walking)
        notes = [str(note) for note in getattr(walking, "__notes__", None) or ()]
        links.append((_try_pickle(walking), f"{kind.__module__}.{kind.__qualname__}", _text(walking), notes, relation))
        relation = "context" if walking.__cause__ is None else "cause"
        below = walking.__context__ if walking.__cause__ is None else walking.__cause__
        walking = None if relation == "context" and walking.__suppress_context__ else below
    return marshal.dumps((links, _traceback_text(error)))


def _try_pickle(error: BaseException) -> bytes | None:
    try:
        return _pickle.dumps(error, 5)
    except BaseException:
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "<its __str__ failed>"


def _traceback_text(error: BaseException) -> str:
    """Format the traceback without the frames of the pool itself."""
    try:
        import traceback

        formatted = traceback.TracebackException(type(error), error, error.__traceback__)
        _drop_own_frames(formatted, set())
        return "".join(formatted.format())[-_MAX_TEXT_CHARS:]
    except BaseException as worse:
        return f"{type(error).__qualname__}: its traceback could not be formatted ({type(worse).__qualname__})"


def _drop_own_frames(formatted: Any, seen: set[int]) -> None:
    while formatted is not None and id(formatted) not in seen:
        seen.add(id(formatted))
        while formatted.stack and os.path.dirname(formatted.stack[0].filename) == _FOLDER:
            del formatted.stack[0]
        for part in formatted.exceptions or ():
            _drop_own_frames(part, seen)
        if formatted.__context__ is not None:
            _drop_own_frames(formatted.__context__, seen)
        formatted = formatted.__cause__


# --- in the pool's process ----------------------------------------------------------------------------------------
class RemoteTraceback(Exception):
    """The traceback of a task's exception as the worker saw it: the last `__cause__` in the chain of that exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def unpack_error(body: Any) -> BaseException:
    """Make the exception that `pack_error` took apart; never raises."""
    links, text = marshal.loads(body)
    made = [_remake(pickled, name, said, notes) for pickled, name, said, notes, _ in links]
    for index in range(1, len(made)):
        if links[index][4] == "cause":
            made[index - 1].__cause__ = made[index]
        else:
            made[index - 1].__context__ = made[index]
    made[-1].__cause__ = RemoteTraceback(text)
    return made[0]


def _remake(pickled: bytes | None, name: str, said: str, notes: list[str]) -> BaseException:
    error: Any = None
    if pickled is not None:
        try:
            error = _pickle.loads(pickled)
        except BaseException:  # classes whose __init__ wants other arguments than it passes on
            error = None
    if not isinstance(error, BaseException):
        from ..errors import RemoteError

        error = RemoteError(name, said)
    if notes and not getattr(error, "__notes__", None):
        for note in notes:
            error.add_note(note)
    return error  # type: ignore[no-any-return]

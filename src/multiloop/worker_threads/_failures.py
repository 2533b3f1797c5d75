"""Exceptions on their way from one place to another: from workers, and from the tasks of a pool.

What lives here: `pack_error` and `unpack_error`, side by side because they mirror each other. What must not: what a
failure means to anybody; imports that a worker's start would feel.

What arrives: the same type with its arguments, attributes and notes, its causes and contexts (each by itself, so that
one that cannot travel does not spoil the others), and the traceback of the worker as text, as the cause at the end of
the chain, so that it is printed first. An exception that cannot be pickled or made again arrives as RemoteError.
"""

from __future__ import annotations

import _pickle
import marshal
import os
from typing import Any

_MAX_CHAIN = 32  # causes of causes
_MAX_TEXT_CHARS = 64 * 1024
_OWN = os.path.dirname(__file__)
_OWN_FOLDERS = (_OWN, os.path.join(os.path.dirname(_OWN), "pool"))  # whose frames say nothing to a user


# --- in the worker ----------------------------------------------------------------------------------------------------
def pack_error(error: BaseException) -> bytes:
    """Turn an exception into bytes; never raises, whatever the exception's class does."""
    links: list[tuple[bytes | None, str, str, list[str], bool]] = []
    is_cause = False
    walking: BaseException | None = error
    seen: set[int] = set()
    while walking is not None and id(walking) not in seen and len(links) < _MAX_CHAIN:
        seen.add(id(walking))
        kind = type(walking)
        notes = [str(note) for note in getattr(walking, "__notes__", None) or ()]
        links.append((_try_pickle(walking), f"{kind.__module__}.{kind.__qualname__}", _text(walking), notes, is_cause))
        is_cause = walking.__cause__ is not None
        walking = walking.__cause__ if is_cause or walking.__suppress_context__ else walking.__context__
    return marshal.dumps((links, _traceback_text(error)))


def _try_pickle(error: BaseException) -> bytes | None:
    try:
        return _pickle.dumps(error, 5)
    except BaseException:
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as worse:
        return f"<its __str__ failed: {type(worse).__qualname__}>"


def _traceback_text(error: BaseException) -> str:
    """Format the traceback without the frames of ours that it begins with."""
    try:
        import traceback

        formatted = traceback.TracebackException(type(error), error, error.__traceback__)
        _drop_own_frames(formatted, set())
        return "".join(formatted.format())[-_MAX_TEXT_CHARS:]
    except BaseException as worse:
        return f"{type(error).__qualname__}: its traceback could not be formatted ({type(worse).__qualname__})\n"


def _drop_own_frames(formatted: Any, seen: set[int]) -> None:
    while formatted is not None and id(formatted) not in seen:
        seen.add(id(formatted))
        while formatted.stack and os.path.dirname(formatted.stack[0].filename) in _OWN_FOLDERS:
            del formatted.stack[0]
        for part in formatted.exceptions or ():
            _drop_own_frames(part, seen)
        if formatted.__context__ is not None:
            _drop_own_frames(formatted.__context__, seen)
        formatted = formatted.__cause__


# --- where it arrives -------------------------------------------------------------------------------------------------
def unpack_error(body: Any) -> BaseException:
    """Make the exception that `pack_error` took apart; never raises for what that made."""
    from ..errors import RemoteTraceback

    links, text = marshal.loads(body)
    made = [_remake(pickled, name, said, notes) for pickled, name, said, notes, _ in links]
    for index in range(1, len(made)):
        if links[index][4]:
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
        except BaseException:  # not known here, or its __init__ wants other arguments than it passes on
            error = None
    if not isinstance(error, BaseException):
        from ..errors import RemoteError

        error = RemoteError(name, said)
    made: BaseException = error
    if notes and not getattr(made, "__notes__", None):
        for note in notes:
            made.add_note(note)
    return made

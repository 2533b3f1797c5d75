"""Exceptions on their way from one place to another.

What lives here: `pack_error` and `unpack_error`, side by side because they mirror each other. What must not: what a
failure means to anybody.

What arrives: the same type with its arguments, attributes and notes, and its causes and contexts, each by itself, so
that one that cannot travel does not spoil the others. The end of the chain gets the worker's traceback as its cause, so
that it is printed first. What cannot be pickled or made again arrives as RemoteError.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from ..errors import RemoteError

_MAX_CHAIN = 32  # causes of causes
_MAX_TEXT_CHARS = 64 * 1024


class _Packed(NamedTuple):
    """One exception of the chain."""

    pickled: bytes | None
    type_name: str
    text: str
    notes: tuple[str, ...]
    is_cause: bool  # of the one before it; else its context


class RemoteTraceback(Exception):
    """The traceback of an exception as its worker saw it: the last cause in the chain of that exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def pack_error(error: BaseException) -> bytes:
    """Turn an exception into bytes. Never raises, whatever the exception's class does."""
    chain: list[_Packed] = []
    each: BaseException | None = error
    is_cause = False
    seen: set[int] = set()
    while each is not None and id(each) not in seen and len(chain) < _MAX_CHAIN:
        seen.add(id(each))
        chain.append(_packed(each, is_cause))
        is_cause = each.__cause__ is not None
        each = each.__cause__ if is_cause or each.__suppress_context__ else each.__context__
    return pickle.dumps(([tuple(packed) for packed in chain], _traceback_text(error)), 5)


def _packed(error: BaseException, is_cause: bool) -> _Packed:
    try:
        pickled = pickle.dumps(error, 5)
    except Exception:
        pickled = None
    try:
        text = str(error)
    except Exception as worse:
        text = f"<its __str__ failed: {type(worse).__qualname__}>"
    kind = type(error)
    notes = tuple(str(note) for note in getattr(error, "__notes__", None) or ())
    return _Packed(pickled, f"{kind.__module__}.{kind.__qualname__}", text, notes, is_cause)


def _traceback_text(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(error))[-_MAX_TEXT_CHARS:]
    except Exception as worse:
        return f"{type(error).__qualname__}: its traceback could not be formatted ({type(worse).__qualname__})\n"


def unpack_error(data: bytes | bytearray | memoryview) -> BaseException:
    """Make the exception that `pack_error` took apart. Never raises for what that made."""
    chain, text = pickle.loads(data)
    packed = [_Packed(*each) for each in chain]
    errors = [_remake(each) for each in packed]
    for index in range(1, len(errors)):
        if packed[index].is_cause:
            errors[index - 1].__cause__ = errors[index]
        else:
            errors[index - 1].__context__ = errors[index]
    errors[-1].__cause__ = RemoteTraceback(text)
    return errors[0]


def _remake(packed: _Packed) -> BaseException:
    error: Any = None
    if packed.pickled is not None:
        try:
            error = pickle.loads(packed.pickled)
        except Exception:  # a class whose __init__ wants other arguments than it passes on, or that is not known here
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(packed.type_name, packed.text)
    made: BaseException = error
    if packed.notes and not getattr(made, "__notes__", None):
        for note in packed.notes:
            made.add_note(note)
    return made

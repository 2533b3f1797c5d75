"""Objects that must not travel: marked as not transferable, or as not cloneable.

What lives here: the marks, and the functions that set and ask them. What must not: pickling (`_message`), which asks.
"""

from __future__ import annotations

import weakref
from typing import Any

_Marks = dict[int, "weakref.ref[Any]"]  # by id, since what is marked need not be hashable

_untransferable: _Marks = {}
_uncloneable: _Marks = {}


def mark_as_untransferable(value: Any) -> None:
    """Let every transfer of this object be refused with TransferError, and the object be kept.

    Raises TypeError for what cannot be marked: numbers, strings, lists and others that take no weak reference.
    """
    _mark(value, _untransferable)


def is_marked_as_untransferable(value: Any) -> bool:
    """Whether `mark_as_untransferable` was called for this object."""
    return id(value) in _untransferable


def mark_as_uncloneable(value: Any) -> None:
    """Let every message with this object in it be refused with NotSendable. Raises TypeError as above."""
    _mark(value, _uncloneable)


def is_marked_as_uncloneable(value: Any) -> bool:
    """Whether `mark_as_uncloneable` was called for this object."""
    return id(value) in _uncloneable


def has_uncloneable() -> bool:
    """Whether any object is marked so: else nobody need look."""
    return bool(_uncloneable)


def _mark(value: Any, marks: _Marks) -> None:
    key = id(value)
    try:
        marks[key] = weakref.ref(value, lambda _: marks.pop(key, None))
    except TypeError:
        raise TypeError(f"a {type(value).__name__} cannot be marked: it takes no weak reference") from None

"""Finding out which part of a value cannot be pickled, and how to say so.

What lives here: `path_to_unpicklable`, called only after pickling has failed: it may take its time.
What must not: pickling for real.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

_MAX_DEPTH = 100


def path_to_unpicklable(
    value: Any, root: str = "value", can_be_pickled: Callable[[Any], bool] | None = None
) -> tuple[str, Any]:
    """Return the path to the innermost part of `value` that cannot be pickled, as `value["a"][3].lock`, and the part.

    Goes down into the first part that fails by itself, until no part of it does. `can_be_pickled` is for picklers that
    can do more than the plain one.
    """
    works = can_be_pickled or _can_be_pickled
    path, culprit = root, value
    seen: set[int] = set()
    for _ in range(_MAX_DEPTH):
        if id(culprit) in seen:
            break
        seen.add(id(culprit))
        for step, part in _parts(culprit):
            if id(part) not in seen and not works(part):
                path, culprit = path + step, part
                break
        else:
            break
    return path, culprit


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value, protocol=5, buffer_callback=lambda buffer: not buffer.raw())
    except Exception:
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts that pickle would visit, each with its step of the path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f".keys()[{_key(key)}]", key
            yield f"[{_key(key)}]", item
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", None)
        for index, item in enumerate(value):
            yield (f".{names[index]}" if names and index < len(names) else f"[{index}]"), item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield "{…}", item
    if type(value) in (dict, list, tuple, set, frozenset, str, bytes, int, float):
        return
    yield from _reduced_parts(value)


def _reduced_parts(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        reduced = value.__reduce_ex__(5)
    except Exception:
        return  # the object itself refuses
    if not isinstance(reduced, tuple) or len(reduced) < 2:
        return
    state = reduced[2] if len(reduced) > 2 else None
    for part in state if isinstance(state, tuple) else (state,):
        if isinstance(part, dict):
            for name, item in part.items():
                yield f".{name}", item
        elif part is not None:
            yield ".__getstate__()", part
    for index, item in enumerate(reduced[1] if isinstance(reduced[1], tuple) else ()):
        if not isinstance(item, type):
            yield f".__reduce__()[1][{index}]", item


def _key(key: Any) -> str:
    import json  # only when something has gone wrong

    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else f"{key!r:.40}"

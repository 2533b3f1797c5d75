"""`pool.put`: a value that is sent once and used by many tasks.

What lives here: `Shared`, what it becomes in a worker, and the store of a process that runs far tasks. What must not:
how an engine moves it.

    value = await pool.put(array)          once: into shared memory here, or into the engine's object store
    await pool.run(function, value, 1)     each task gets the array itself, not a copy of it, read-only
"""

from __future__ import annotations

import itertools
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import NotSendable, UsageError

_keys = itertools.count(1)
_packing = threading.local()  # .found: the Shared that the pickle in hand has met

_store: dict[Any, Any] = {}  # in a worker: values by key


class Shared:
    """A value that `pool.put` has made ready; give it to tasks of that pool as (a part of) an argument.

    It is held as long as this object lives. `size` is its pickle's and buffers' size in bytes.
    """

    __slots__ = ("__weakref__", "_far", "_local", "key", "size")

    def __init__(self, size: int, *, local: Any = None, far: Any = None) -> None:
        self.key = next(_keys)
        self.size = size
        self._local = local  # what its pickle is, in a pool of this machine
        self._far = far  # what the engine calls it

    def when_dropped(self, function: Callable[[int], Any]) -> None:
        """Call with the key once nobody holds this any more."""
        weakref.finalize(self, function, self.key).atexit = False

    def __reduce__(self) -> Any:
        if self._local is not None:
            return _open, self._local
        found = getattr(_packing, "found", None)
        if found is None:
            raise UsageError("a value that was put into an engine can only be given to tasks of that pool")
        found[self.key] = self
        return use, (self.key,)

    def __repr__(self) -> str:
        return f"<Shared {self.key}: {self.size} bytes>"


def put_local(value: Any) -> Shared:
    """Copy a value into shared memory, once. Raises NotSendable."""
    from ..worker_threads import SharedBuffer

    buffers: list[pickle.PickleBuffer] = []
    if isinstance(value, bytes | bytearray):
        value = _Raw(value)
    try:
        head = pickle.dumps(value, 5, buffer_callback=buffers.append)
    except Exception as error:
        raise NotSendable("value", value, error) from error
    raws = [buffer.raw() for buffer in buffers]
    sizes = [raw.nbytes for raw in raws]
    whole = SharedBuffer(max(1, sum(sizes)), format="B")
    at = 0
    with memoryview(whole) as view:
        for raw, size in zip(raws, sizes, strict=True):
            view[at : at + size] = raw
            at += size
    made = Shared(len(head) + at)
    made._local = (head, tuple(sizes), whole)
    return made


class _Raw:
    """Lets bytes be one buffer of a pickle."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce_ex__(self, version: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self._value),)


class _Last:
    """The value of this process that was opened last: the next task will most likely want the same."""

    buffer: Any = None
    value: Any = None


def _open(head: bytes, sizes: tuple[int, ...], whole: Any) -> Any:
    """In a worker: make the value; its arrays are views of the shared memory."""
    if _Last.buffer is not whole:
        view = memoryview(whole).toreadonly()
        parts, at = [], 0
        for size in sizes:
            parts.append(view[at : at + size])
            at += size
        _Last.value = pickle.loads(head, buffers=parts)
        _Last.buffer = whole
    return _Last.value


class Collecting:
    """Gathers the `Shared` that a pickle meets: `with Collecting() as found: dumps(...)`."""

    def __enter__(self) -> dict[int, Shared]:
        found: dict[int, Shared] = {}
        _packing.found = found
        return found

    def __exit__(self, *_: Any) -> None:
        _packing.found = None


# --- in a process that runs far tasks -----------------------------------------------------------------------------
def remember(key: int, value: Any) -> None:
    """Keep a value for the tasks that will name it."""
    _store[key] = value


def forget(keys: Iterable[int]) -> None:
    """Nobody will name these again."""
    for key in keys:
        _store.pop(key, None)


def use(key: int) -> Any:
    """What a far task gets for a `Shared`."""
    return _store[key]

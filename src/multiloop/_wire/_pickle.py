"""Values to bodies and buffers, and back.

What lives here: `dumps` and `loads`. What must not: frames.

Pickle protocol 5 leaves the memory of arrays out of the pickle, but copies bytes and bytearrays into it. Large ones are
lifted out as well when a glance at the value shows one: a Pickler that is asked about every object is five times
slower, so values without them go the usual way. A body that begins with `_LIFTED` was written by that Pickler.

Pickles come only from our own processes (inherited socket pairs), never from a client.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from .._limits import OUT_OF_BAND_MIN_BYTES
from ..errors import NotSendable
from ._explain import path_to_unpicklable

_LIFTED = 0x4C  # every pickle of protocol 5 begins with 0x80
_KEEP_OUT_BYTES = 4 * 1024  # memory of arrays from this size stays out of the pickle; below, a further piece costs more
_GLANCE_ITEMS = 100
_GLANCE_DEPTH = 3

Buffer = bytes | bytearray | memoryview


def dumps(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle `value` (protocol 5); returns the pickle and the large buffers that stayed out of it, in order.

    The buffers are the value's own memory: take a `snapshot` of each before the value can change.
    Raises NotSendable, which names the path to what cannot be pickled, with the reason as its cause.
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _KEEP_OUT_BYTES:
            return True  # in band
        buffers.append(raw)
        return False

    try:
        if _holds_large_bytes(value, _GLANCE_DEPTH):
            return _dumps_lifting(value, buffers, keep), buffers
        return pickle.dumps(value, protocol=5, buffer_callback=keep), buffers
    except Exception as error:
        path, culprit = path_to_unpicklable(value)
        raise NotSendable(path, culprit, error) from error


def loads(body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Turn back what `dumps` gave. Raises whatever the classes in the pickle raise."""
    if not body or body[0] != _LIFTED:
        return pickle.loads(body, buffers=buffers)
    # Lifted objects are named by their place among the buffers; the others follow each other.
    file = io.BytesIO(memoryview(body)[1:])
    places = pickle.load(file)
    return _Lowering(file, places, buffers).load()


def snapshot(buffer: memoryview) -> Buffer:
    """Return this memory as it is now: itself where nobody can change it, else a copy, as writable as it is."""
    if type(buffer.obj) is bytes:
        return buffer
    return bytes(buffer) if buffer.readonly else bytearray(buffer)


def _holds_large_bytes(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return len(value) >= OUT_OF_BAND_MIN_BYTES
    if (kind is dict or kind is list or kind is tuple) and depth and 0 < len(value) <= _GLANCE_ITEMS:
        for item in value.values() if kind is dict else value:
            if type(item) not in _PLAIN and _holds_large_bytes(item, depth - 1):
                return True
    return False


_PLAIN = frozenset({int, str, float, bool, type(None)})


class _Lifting(pickle.Pickler):
    """Leaves large bytes and bytearrays out of the pickle."""

    def __init__(
        self, file: io.BytesIO, buffers: list[memoryview], keep: Callable[[pickle.PickleBuffer], bool]
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self._buffers = buffers
        self.places: dict[int, int] = {}  # id of the object → its place among the buffers

    def persistent_id(self, value: Any) -> int | None:
        if (type(value) is bytes or type(value) is bytearray) and len(value) >= OUT_OF_BAND_MIN_BYTES:
            place = self.places.get(id(value))
            if place is None:
                place = self.places[id(value)] = len(self._buffers)
                self._buffers.append(memoryview(value))
            return place
        return None


class _Lowering(pickle.Unpickler):
    """Puts back what `_Lifting` left out."""

    def __init__(self, file: io.BytesIO, lifted: frozenset[int], buffers: Sequence[Buffer]) -> None:
        self._lifted = buffers
        others = [buffer for place, buffer in enumerate(buffers) if place not in lifted]
        super().__init__(file, buffers=others)

    def persistent_load(self, place: Any) -> Any:
        return self._lifted[place]


def _dumps_lifting(value: Any, buffers: list[memoryview], keep: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    file = io.BytesIO()
    pickler = _Lifting(file, buffers, keep)
    pickler.dump(value)
    places = pickle.dumps(frozenset(pickler.places.values()), protocol=5)
    return bytes((_LIFTED,)) + places + file.getvalue()

"""Values on their way between the pool and a worker.

What lives here: `pack` and `unpack`, the same on both ends. What must not: sockets; imports that a worker's start would
feel.

Small values are plain pickles. Those with large memory (64 KiB and more: numpy arrays, bytes, bytearrays), shared
buffers and ports are parcels of `worker_threads`, the one place that knows how these cross: large memory is copied once,
into memory that the other end maps; a SharedBuffer is not copied at all. Their descriptors go along.
"""

from __future__ import annotations

import _pickle
from collections.abc import Iterable
from typing import Any

PLAIN_PICKLE = 0  # the kind of a body that is no parcel
LARGE_BYTES = 64 * 1024  # as _limits.OUT_OF_BAND_MIN_BYTES, which costs a worker's start too much to import
_GLANCE_ITEMS = 16
_NO_LIMIT = 1 << 62  # a task is asked for; what is too large for the machine fails by itself

Packed = tuple[int, bytes, list[int]]  # the kind, the body, and descriptors that now belong to the caller


def pack(value: Any, *, for_many: bool = False) -> Packed:
    """Pickle a value. With `for_many` several may unpack it, and none sees what another has changed.

    Raises:
        NotSendable: a part cannot be pickled; names the path to it. It is a PicklingError.
        OSError: no memory or descriptor is left.
    """
    if not _shows_large_bytes(value):
        large: list[int] = []

        def keep(buffer: Any) -> bool:
            size = buffer.raw().nbytes
            if size < LARGE_BYTES:
                return True  # in band
            large.append(size)
            return False

        try:
            body = _pickle.dumps(value, 5, buffer_callback=keep)
        except Exception:
            pass  # once more, with what knows more kinds of values, and can say what it was
        else:
            if not large:
                return PLAIN_PICKLE, body, []
    from ..worker_threads._message import pack as pack_parcel

    parcel = pack_parcel(value, for_many=for_many, max_bytes=_NO_LIMIT)
    return parcel.kind, parcel.body, parcel.fds


def unpack(kind: int, body: Any, descriptors: Iterable[int]) -> Any:
    """Make the value again. The descriptors belong to this call."""
    if kind == PLAIN_PICKLE:
        return _pickle.loads(body)
    from ..worker_threads._message import unpack as unpack_parcel

    return unpack_parcel(kind, body, descriptors)


def _shows_large_bytes(value: Any) -> bool:
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return len(value) >= LARGE_BYTES
    if (kind is tuple or kind is list) and len(value) <= _GLANCE_ITEMS:
        for item in value:
            kind = type(item)
            if (kind is bytes or kind is bytearray) and len(item) >= LARGE_BYTES:
                return True
    return False

"""Values as pickles, with large memory beside them in a memfd.

What lives here: `pack` and `unpack`, the same on both ends. What must not: sockets; imports that a worker's start would
feel (the thorough pickler is loaded when a value needs it).

Memory of 64 KiB and more (numpy arrays, bytes, bytearrays) is copied once, into a file in memory that the other end
maps. Arrays then live in that mapping without a further copy; bytes and bytearrays must own their memory in CPython, so
they are copied out of it.
"""

from __future__ import annotations

import _pickle
import mmap
import os
from collections.abc import Sequence
from typing import Any

from ._page import shared_file

LARGE_BYTES = 64 * 1024  # the same as _limits.OUT_OF_BAND_MIN_BYTES, which costs a worker's start too much to import
_LIFTED = 0x4C  # the first byte of a body whose bytes and bytearrays were lifted out (_wire._pickle)
_GLANCE_ITEMS = 16
_ALIGN = 64  # what numpy likes for vector instructions

Sizes = list[tuple[int, bool]]  # of each buffer: bytes, read-only


def pack(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value; returns the pickle and the large memory that stayed out of it, which is the value's own.

    Raises NotSendable (a PicklingError) that names the path to what cannot be pickled.
    """
    if not _shows_large_bytes(value):
        buffers: list[memoryview] = []

        def keep(buffer: Any) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE_BYTES:
                return True  # in band
            buffers.append(raw)
            return False

        try:
            body = _pickle.dumps(value, 5, buffer_callback=keep)
        except Exception:
            pass  # once more, to find out what it was
        else:
            if buffers or len(body) < LARGE_BYTES:
                return body, buffers
    from .._wire._pickle import dumps

    return dumps(value)


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


def write_out(buffers: Sequence[memoryview]) -> tuple[int, Sizes]:
    """Copy buffers into a new memfd; returns it and their sizes."""
    descriptor = shared_file("multiloop-pool-buffers")
    try:
        position = 0
        sizes: Sizes = []
        for buffer in buffers:
            rest = buffer.cast("B") if buffer.nbytes else buffer
            sizes.append((buffer.nbytes, buffer.readonly))
            at = position
            while rest:
                written = os.pwrite(descriptor, rest, at)  # the kernel takes at most 2 GiB at a time
                rest = rest[written:]
                at += written
            position += _aligned(buffer.nbytes)
        os.ftruncate(descriptor, max(position, 1))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, sizes


def unpack(body: Any, descriptor: int, sizes: Sizes) -> Any:
    """Make the value of a pickle whose buffers are in a memfd. Closes the descriptor."""
    try:
        memory = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    whole = memoryview(memory)
    views: list[Any] = []
    position = 0
    for size, is_read_only in sizes:
        view = whole[position : position + size]
        views.append(view.toreadonly() if is_read_only else view)
        position += _aligned(size)
    if body[0] != _LIFTED:
        return _pickle.loads(body, buffers=views)
    from .._wire._pickle import loads

    return loads(body, [bytes(view) if view.readonly else bytearray(view) for view in views])


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN

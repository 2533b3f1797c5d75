"""Memory for large parts of a message: taken once, filled by the socket, then a bytes or bytearray without a copy.

What lives here: `take_block`. What must not: who fills it.

`bytearray(n)` writes n zeros first and `bytes(view)` copies: for 1 GiB each stops the loop for half a second and takes
the memory a second time. CPython's C functions hand out either without contents, to be filled by whoever made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_UNINITIALISED_FROM_BYTES = 256 * 1024  # below, the zeros cost less than the detour


class Block:
    """Memory that is being filled through `view`; `done()` gives the object and ends the filling."""

    __slots__ = ("_target", "view")

    def __init__(self, target: bytes | bytearray, view: memoryview) -> None:
        self._target = target
        self.view = view

    def done(self) -> bytes | bytearray:
        """Return the filled object. The view must not be used any more."""
        del self.view
        return self._target


class _CopiedBlock(Block):
    """Filled as a bytearray, copied once into bytes: for small ones, and where there is no ctypes."""

    __slots__ = ()

    def done(self) -> bytes:
        return bytes(self._target)


def take_block(length: int, read_only: bool) -> Block:
    """Take memory that becomes bytes (`read_only`) or a bytearray of this length."""
    if length >= _UNINITIALISED_FROM_BYTES:
        make = _makers()
        if make is not None:
            return make(length, read_only)
    target = bytearray(length)
    return (_CopiedBlock if read_only else Block)(target, memoryview(target))


@functools.cache
def _makers() -> Callable[[int, bool], Block] | None:
    try:
        import ctypes

        make_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
        make_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
        address_of = ctypes.pythonapi.PyBytes_AsString
    except (ImportError, AttributeError):
        return None
    for function in (make_bytes, make_bytearray):
        function.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
        function.restype = ctypes.py_object
    address_of.argtypes = (ctypes.py_object,)
    address_of.restype = ctypes.c_void_p

    def make(length: int, read_only: bool) -> Block:
        if not read_only:
            target: Any = make_bytearray(None, length)
            return Block(target, memoryview(target))
        target = make_bytes(None, length)
        # The array does not keep `target` alive: the block does, for as long as it gives out views.
        memory = (ctypes.c_char * length).from_address(address_of(target))
        return Block(target, memoryview(memory).cast("B"))

    return make

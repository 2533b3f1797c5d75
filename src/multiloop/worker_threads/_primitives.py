"""Which atomic operations there are: the compiled ones, or the slow ones that lock.

What lives here: the choice, and the type of both. What must not: the operations (`_atomics.c`, `_locked.py`).

`MULTILOOP_PURE=1` switches the compiled form off. A buffer remembers in its head which form its maker used: the two do
not exclude each other, so everybody who opens the buffer uses that one.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

View = memoryview


class Primitives(Protocol):
    """Atomic operations on a view of the format i, I, q or Q. All but `load` return the value before, or `value`."""

    def load(self, view: View, index: int, /) -> int: ...
    def store(self, view: View, index: int, value: int, /) -> int: ...
    def add(self, view: View, index: int, value: int, /) -> int: ...
    def sub(self, view: View, index: int, value: int, /) -> int: ...
    def and_(self, view: View, index: int, value: int, /) -> int: ...
    def or_(self, view: View, index: int, value: int, /) -> int: ...
    def xor(self, view: View, index: int, value: int, /) -> int: ...
    def exchange(self, view: View, index: int, value: int, /) -> int: ...
    def compare_exchange(self, view: View, index: int, expected: int, value: int, /) -> int: ...
    def sleep_while(self, view: View, index: int, value: int, timeout_s: float, /) -> None:
        """Sleep while a 32-bit element has this value, at most `timeout_s`; may return early."""

    def rouse(self, view: View, index: int, /) -> None:
        """Wake all who sleep on the element."""


def native() -> Primitives | None:
    """Return the compiled operations; None where they were not built, are switched off, or cannot sleep."""
    module = _extension()
    return cast(Primitives, module) if module is not None and module.HAVE_FUTEX else None


def interrupt(thread_id: int, exception: type[BaseException] | None) -> bool:
    """Raise `exception` in a thread of this interpreter, before its next bytecode. False: there is no such thread.

    C code is not interrupted: the exception waits until it returns. None takes back one that waits.
    """
    return bool(_interrupter()(thread_id, exception))


@functools.cache
def _interrupter() -> Callable[[int, type[BaseException] | None], int]:
    module = _extension()
    if module is not None:
        return cast(Callable[[int, type[BaseException] | None], int], module.interrupt)
    import ctypes

    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def interrupt_by_ctypes(thread_id: int, exception: type[BaseException] | None) -> int:
        raised = ctypes.py_object() if exception is None else ctypes.py_object(exception)
        return int(set_exception(ctypes.c_ulong(thread_id), raised))

    return interrupt_by_ctypes


def _extension() -> Any:
    if os.environ.get("MULTILOOP_PURE", "") not in ("", "0"):
        return None
    try:
        return importlib.import_module("multiloop.worker_threads._atomics")
    except ImportError:
        return None

"""Atomic operations without the compiled extension: one lock for each buffer, and sleeping in steps of a millisecond.

What lives here: the slow twin of `_atomics.c`, with the same functions. What must not: anything the twin does not have.

The lock must exclude threads, interpreters and processes, and must not outlive its holder. A file lock of the kernel
does that when each holder has an open file description of its own: passed descriptors share one, so the memory is
opened anew through /proc. Where there is no /proc, interpreters of one process are not excluded from each other (they
exist on CPython 3.14 only).
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

_POLL_S = 0.001


class _FileLock:
    """Excludes every other holder: threads by a thread lock, everybody else by a lock on the file."""

    def __init__(self, fd: int) -> None:
        self._threads = threading.Lock()
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
            self._operation = fcntl.flock
        except OSError:
            self._fd = os.dup(fd)
            self._operation = fcntl.lockf

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            self._operation(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._operation(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class LockedAtomics:
    """The functions of `_atomics` for the memory behind one descriptor. Correct, some 20 times slower, and it polls."""

    def __init__(self, fd: int) -> None:
        self._lock = _FileLock(fd)

    def close(self) -> None:
        """Let go of the lock. Safe to call twice."""
        self._lock.close()

    def _change(self, view: memoryview, index: int, value: int, new: Callable[[int, int], int]) -> int:
        at = _checked_index(view, index)
        operand = _checked_value(view, value)
        with self._lock:
            before: int = view[at]
            view[at] = _wrapped(view, new(before, operand))
        return before

    def load(self, view: memoryview, index: int) -> int:
        at = _checked_index(view, index)
        with self._lock:
            value: int = view[at]
        return value

    def store(self, view: memoryview, index: int, value: int) -> int:
        self._change(view, index, value, lambda _, new: new)
        return value

    def add(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, int.__add__)

    def sub(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, int.__sub__)

    def and_(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, int.__and__)

    def or_(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, int.__or__)

    def xor(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, int.__xor__)

    def exchange(self, view: memoryview, index: int, value: int) -> int:
        return self._change(view, index, value, lambda _, new: new)

    def compare_exchange(self, view: memoryview, index: int, expected: int, value: int) -> int:
        wanted = _checked_value(view, expected)
        return self._change(view, index, value, lambda before, new: new if before == wanted else before)

    def sleep_while(self, view: memoryview, index: int, value: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while view[index] == value and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL_S, left))

    def rouse(self, view: memoryview, index: int) -> None:
        """Nobody to wake: sleepers look by themselves."""


def _checked_index(view: memoryview, index: int) -> int:
    if view.format not in ("i", "I", "q", "Q"):
        raise TypeError(f"atomic operations need the format i, I, q or Q, not {view.format}")
    if not 0 <= index < len(view):
        raise IndexError(f"index {index} is outside of the buffer's {len(view)} elements")
    return index


def _checked_value(view: memoryview, value: int) -> int:
    try:
        struct.pack(view.format, value)
    except struct.error:
        if not hasattr(value, "__index__"):
            raise TypeError(f"{type(value).__name__!r} object cannot be interpreted as an integer") from None
        raise OverflowError(f"{value!r} does not fit the buffer's format {view.format}") from None
    return value.__index__()


def _wrapped(view: memoryview, value: int) -> int:
    bits = 8 * view.itemsize
    value &= (1 << bits) - 1
    if view.format in ("i", "q") and value >> (bits - 1):
        value -= 1 << bits
    return value

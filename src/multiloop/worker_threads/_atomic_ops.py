"""`Atomics`: operations on a SharedBuffer that no other worker can come between.

What lives here: the functions as users see them, and waiting without blocking the loop. What must not: the operations
themselves (`_atomics.c`, `_locked.py`), the waiting list (`_waiters`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..loop import AnyOperation, ErrorFirst, begin
from ._place import current
from ._shared import SharedBuffer
from ._waiters import Outcome, notify, wait


def _open(buffer: Any) -> memoryview:
    """The elements. Released by who asked: an exception would hold on to them, and so to the buffer, by its traceback."""
    if not isinstance(buffer, SharedBuffer):
        raise TypeError(f"Atomics work on a SharedBuffer, not on {type(buffer).__name__}")
    return buffer._open_cells()


class Atomics:
    """Atomic operations on the elements of a SharedBuffer of the format i, I, q or Q; `index` counts elements.

    All are sequentially consistent, across threads, interpreters and processes. Arithmetic wraps at the format's size.

    Every one raises IndexError for an index outside of the buffer, OverflowError for an argument that the format cannot
    hold, TypeError for the format "B", and ClosedError for a buffer that was closed or transferred.
    """

    __slots__ = ()

    @staticmethod
    def load(buffer: SharedBuffer, index: int) -> int:
        """Return the value."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.load(cells, index))

    @staticmethod
    def store(buffer: SharedBuffer, index: int, value: int) -> int:
        """Set the value, and return it."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.store(cells, index, value))

    @staticmethod
    def add(buffer: SharedBuffer, index: int, value: int) -> int:
        """Add to the value; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.add(cells, index, value))

    @staticmethod
    def sub(buffer: SharedBuffer, index: int, value: int) -> int:
        """Subtract from the value; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.sub(cells, index, value))

    @staticmethod
    def and_(buffer: SharedBuffer, index: int, value: int) -> int:
        """Combine with the value, bit by bit, as `&` does; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.and_(cells, index, value))

    @staticmethod
    def or_(buffer: SharedBuffer, index: int, value: int) -> int:
        """Combine with the value, bit by bit, as `|` does; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.or_(cells, index, value))

    @staticmethod
    def xor(buffer: SharedBuffer, index: int, value: int) -> int:
        """Combine with the value, bit by bit, as `^` does; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.xor(cells, index, value))

    @staticmethod
    def exchange(buffer: SharedBuffer, index: int, value: int) -> int:
        """Set the value; return what it was before."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.exchange(cells, index, value))

    @staticmethod
    def compare_exchange(buffer: SharedBuffer, index: int, expected: int, value: int) -> int:
        """Set the value if it is `expected`; return what it was before: `expected`, if it was set."""
        with _open(buffer) as cells:
            return int(buffer._attachment.head.ops.compare_exchange(cells, index, expected, value))

    @staticmethod
    def wait(buffer: SharedBuffer, index: int, value: int, timeout: float | None = None) -> Outcome:
        """Block this thread until `notify` on the element, if it has this value now. On a loop use `wait_async`.

        Without the compiled extension it looks once a millisecond.

        Args:
            timeout: seconds; None waits for ever.

        Returns: "ok" when notified, "not-equal" when the value was another, "timed-out".

        Raises:
            PeerDied: a worker that had the buffer open has died, and nobody else has it open: within a second.
            LimitError: 256 threads wait on this buffer already.
        """
        _check_waitable(buffer)
        return _wait(buffer, index, value, timeout)

    @staticmethod
    def wait_async(
        buffer: SharedBuffer,
        index: int,
        value: int,
        timeout: float | None = None,
        *,
        callback: ErrorFirst | None = None,
    ) -> Any:
        """As `wait`, without blocking the loop: an operation that gives the same outcomes. It keeps the loop running.

        Each waits on a thread of its own; a cancelled one ends within a quarter of a second.
        """
        _check_waitable(buffer)
        op: AnyOperation[Outcome] = begin(callback)
        _WaitingThread(op, buffer, index, value, timeout)
        return op

    @staticmethod
    def notify(buffer: SharedBuffer, index: int, count: int | None = None) -> int:
        """Wake at most `count` who wait on the element (None: all), the longest waiting first; return how many."""
        _check_waitable(buffer)
        if not 0 <= index < len(buffer):
            raise IndexError(f"index {index} is outside of the buffer's {len(buffer)} elements")
        if count is not None and count < 0:
            raise UsageError(f"Atomics.notify(count={count}): 0 or more, None for all")
        return notify(buffer._attachment.head, index, count)


def _check_waitable(buffer: SharedBuffer) -> None:
    _open(buffer).release()
    if buffer.format == "B":
        raise TypeError("waiting needs a SharedBuffer of the format i, I, q or Q, not B")


def _wait(
    buffer: SharedBuffer,
    index: int,
    value: int,
    timeout: float | None,
    is_stopped: Callable[[], bool] | None = None,
) -> Outcome:
    with _open(buffer) as own:  # so that the buffer cannot be closed meanwhile
        return wait(buffer._attachment.head, buffer._attachment.member, own, index, value, timeout, is_stopped)


class _WaitingThread:
    """One `wait_async`."""

    def __init__(
        self, op: AnyOperation[Outcome], buffer: SharedBuffer, index: int, value: int, timeout: float | None
    ) -> None:
        self._op = op
        self._is_stopped = False
        self._arguments = (buffer, index, value, timeout)
        op._stop = self._stop
        self._place = current()
        self._place.at_end.append(self._stop)  # an interpreter cannot end before its threads have
        try:
            thread = threading.Thread(target=self._run, name="multiloop-wait", daemon=True)
        except RuntimeError:  # an interpreter, which allows none
            thread = threading.Thread(target=self._run, name="multiloop-wait")
        thread.start()

    def _stop(self) -> None:
        self._is_stopped = True

    def _run(self) -> None:
        buffer, index, value, timeout = self._arguments
        op = self._op
        try:
            outcome = _wait(buffer, index, value, timeout, lambda: self._is_stopped)
        except BaseException as error:
            self._settle(op._fail, error)
        else:
            self._settle(op._succeed, outcome)

    def _settle(self, function: Any, value: Any) -> None:
        if self._stop in self._place.at_end:
            self._place.at_end.remove(self._stop)
        try:
            self._op._hub.loop.call_soon_threadsafe(function, value)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

"""What is known while one message is pickled or unpickled: its descriptors, its receiver, its transfer list.

What lives here: the two contexts, found by `__reduce_ex__` of what can travel. What must not: what travels.

Ports and shared buffers are no plain values: they are pickled only inside a message of ours, where their descriptors
go along. Everywhere else `sending()` raises, and so does `pickle.dumps(port)`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._limits import MAX_MESSAGE_DESCRIPTORS
from ..errors import FrameError, LimitError

if TYPE_CHECKING:
    from ._head import Member
    from ._shared import SharedBuffer


class Receiver:
    """A worker as the receiver of shared buffers: it becomes a member of each before it has opened it.

    So a waiter learns of its death also when it died with the message unread.
    """

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self.started = started
        self._members: weakref.WeakKeyDictionary[SharedBuffer, Member] = weakref.WeakKeyDictionary()

    def reserve(self, buffer: SharedBuffer) -> Member | None:
        """Return an entry for the receiver; None when it has had one already, or the list is full."""
        if buffer in self._members:
            return None
        try:
            member = buffer._attachment.head.join(self.pid, self.started)
        except LimitError:
            return None
        self._members[buffer] = member
        return member

    def forget(self, buffer: SharedBuffer) -> None:
        """The message was not sent after all: give the entry up."""
        member = self._members.pop(buffer, None)
        if member is not None:
            buffer._attachment.head.leave(member)

    def settle(self, pid: int, started: int) -> None:
        """The receiver's process is known now; it has not read anything yet."""
        self.pid, self.started = pid, started
        for buffer, member in self._members.items():
            buffer._attachment.head.assign(member, pid, started)

    def gone(self) -> None:
        """The receiver has ended: give up the entries that it has not made its own."""
        for buffer, member in list(self._members.items()):
            buffer._give_up(member)
        self._members.clear()


class Sending:
    """One message on its way out."""

    __slots__ = ("_before", "accepts_everything", "fds", "receiver", "transferred", "undo")

    def __init__(self, receiver: Receiver | None = None, transferred: Iterable[Any] = ()) -> None:
        self.receiver = receiver
        self.transferred = {id(each) for each in transferred}  # not found in the value yet
        self.accepts_everything = False  # only trying out: ports need not be in the transfer list
        self.fds: list[int] = []  # ours, to be closed when they were sent
        self.undo: list[Callable[[], None]] = []
        self._before: Sending | None = None

    def attach(self, fd: int) -> int:
        """Take a duplicate of `fd` along; returns its position in the message."""
        if len(self.fds) >= MAX_MESSAGE_DESCRIPTORS:
            raise LimitError(f"one message carries at most {MAX_MESSAGE_DESCRIPTORS} ports and shared buffers")
        self.fds.append(os.dup(fd))
        return len(self.fds) - 1

    def found(self, value: Any) -> bool:
        """Whether the value is to be transferred. Called when it is met in the message, which happens once."""
        if id(value) in self.transferred:
            self.transferred.discard(id(value))
            return True
        return self.accepts_everything

    def roll_back(self) -> None:
        """The message is not sent: undo what pickling it did."""
        for undo in reversed(self.undo):
            undo()
        close_all(self.fds)
        self.fds.clear()

    def __enter__(self) -> Sending:
        self._before, _of_thread.sending = _of_thread.sending, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _of_thread.sending = self._before


class Receiving:
    """One message on its way in: what is not taken is closed at the end."""

    __slots__ = ("_before", "fds")

    def __init__(self, fds: Iterable[int]) -> None:
        self.fds = list(fds)
        self._before: Receiving | None = None

    def take(self, position: int) -> int:
        """Return the descriptor; it belongs to the caller from now on."""
        if not 0 <= position < len(self.fds) or self.fds[position] < 0:
            raise FrameError("a message names a descriptor that did not come with it")
        fd, self.fds[position] = self.fds[position], -1
        return fd

    def __enter__(self) -> Receiving:
        self._before, _of_thread.receiving = _of_thread.receiving, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _of_thread.receiving = self._before
        close_all(self.fds)
        self.fds.clear()


class _OfThread(threading.local):
    sending: Sending | None = None
    receiving: Receiving | None = None


_of_thread = _OfThread()


def sending(what: str) -> Sending:
    """The message that is being pickled in this thread. Raises TypeError outside of one."""
    if _of_thread.sending is None:
        raise TypeError(f"{what} can only travel in a message: post_message(...), worker_data, a task of the pool")
    return _of_thread.sending


def receiving() -> Receiving:
    """The message that is being unpickled in this thread. Raises FrameError outside of one."""
    if _of_thread.receiving is None:
        raise FrameError("a port or shared buffer was unpickled outside of a message")
    return _of_thread.receiving


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors; negative ones are none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)

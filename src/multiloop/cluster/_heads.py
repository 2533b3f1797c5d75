"""Reading the head of a request in the primary, for policies that choose by what stands in it.

What lives here: `Heads`. What must not: choosing (`_policy`, `_sticky`), dealing (`_dealer`).

What is read is never lost: it travels to the worker in front of the connection, and is kept for a second dealing. A head
is complete at its empty line; one that is longer than `MAX_PREFIX_BYTES` is handed on as far as it came, and so is one
that is not complete in time, for the worker has its own deadlines and answers. A connection that said nothing in time is
closed, as a worker would.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import _limits as limits
from .._wire.messages import MAX_PREFIX_BYTES
from ._sticky import END_OF_HEAD

_DRAIN_BYTES = 64 * 1024

Done = Callable[[int, int, Any, bytes], None]  # descriptor, listener, peer, what was read


class _Reading(NamedTuple):
    sock: socket.socket
    listener: int
    peer: Any
    head: bytearray
    deadline: float


class Heads:
    """Connections whose head is being read.

    Args:
        done: takes each connection over when its head is there.
        gone: called when one was closed instead.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Done, gone: Callable[[int], None]) -> None:
        self._loop = loop
        self._done = done
        self._gone = gone
        self._reading: dict[int, _Reading] = {}  # by descriptor, oldest first

    @property
    def count(self) -> int:
        """How many are being read."""
        return len(self._reading)

    def begin(self, descriptor: int, listener: int, peer: Any, family: int) -> None:
        """Read the head of a connection, which is ours from now on."""
        sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        deadline = time.monotonic() + limits.HEADER_TIMEOUT_S
        self._reading[descriptor] = _Reading(sock, listener, peer, bytearray(), deadline)
        self._loop.add_reader(descriptor, self._readable, descriptor)

    def _readable(self, descriptor: int) -> None:
        reading = self._reading[descriptor]
        head = reading.head
        try:
            data = reading.sock.recv(MAX_PREFIX_BYTES - len(head))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:  # it left before its request was whole
            self._close(descriptor)
            return
        start = max(0, len(head) - len(END_OF_HEAD) + 1)
        head += data
        if head.find(END_OF_HEAD, start) >= 0 or len(head) >= MAX_PREFIX_BYTES:
            self._hand_on(descriptor)

    def _hand_on(self, descriptor: int) -> None:
        reading = self._take(descriptor)
        reading.sock.detach()
        self._done(descriptor, reading.listener, reading.peer, bytes(reading.head))

    def _take(self, descriptor: int) -> _Reading:
        self._loop.remove_reader(descriptor)
        return self._reading.pop(descriptor)

    def _close(self, descriptor: int) -> None:
        reading = self._take(descriptor)
        reading.sock.close()
        self._gone(reading.listener)

    def look(self, now: float) -> None:
        """Time has passed: hand on or close those that took too long."""
        for descriptor, reading in list(self._reading.items()):
            if reading.deadline > now:
                break
            if reading.head:
                self._hand_on(descriptor)
            else:
                self._close(descriptor)

    def hand_on_all(self) -> None:
        """Hand on everything as far as it came, because the sockets are closed."""
        for descriptor in list(self._reading):
            self._hand_on(descriptor)

    def shut(self) -> None:
        """Close everything."""
        for descriptor in list(self._reading):
            self._take(descriptor).sock.close()


def refuse(descriptor: int, reply: bytes) -> None:
    """Answer a connection whose request nobody can take, and close it."""
    sock = socket.socket(fileno=descriptor)
    try:
        sock.setblocking(False)
        sock.recv(_DRAIN_BYTES)  # closing with bytes unread would be a reset, which destroys the reply
    except OSError:
        pass
    try:
        sock.send(reply)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        sock.close()

"""Reading the head of a request in the primary, for policies that choose by what stands in it.

What lives here: `Heads`. What must not: choosing (`_policy`, `_sticky`), dealing (`_dealer`).

What is read is never lost: it travels to the worker in front of the connection, and is kept for a second dealing. A head
is complete at its empty line; one that is longer than `MAX_PREFIX_BYTES` is handed on as far as it came. A connection
that said nothing in time is closed, and one whose head is not complete in time gets a 408, as of a worker; where the
workers' deadlines are not known here, they get it as far as it came.
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


class Patience(NamedTuple):
    """How long a client may take, in seconds."""

    first_byte_s: float = limits.FIRST_BYTE_TIMEOUT_S
    head_s: float = limits.HEADER_TIMEOUT_S
    refuses: bool = False  # a head that is late is answered here; else it is a worker's, whose deadline may be later


class _Reading(NamedTuple):
    sock: socket.socket
    listener: int
    peer: Any
    head: bytearray
    began: float


class Heads:
    """Connections whose head is being read.

    Args:
        done: takes each connection over when its head is there.
        gone: called when one was closed instead.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        done: Done,
        gone: Callable[[int], None],
        patience: Patience | None = None,
    ) -> None:
        self._loop = loop
        self._done = done
        self._gone = gone
        self._patience = Patience() if patience is None else patience
        self._reading: dict[int, _Reading] = {}  # by descriptor

    @property
    def count(self) -> int:
        """How many are being read."""
        return len(self._reading)

    def begin(self, descriptor: int, listener: int, peer: Any, family: int) -> None:
        """Read the head of a connection, which is ours from now on."""
        sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        self._reading[descriptor] = _Reading(sock, listener, peer, bytearray(), time.monotonic())
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
        """Time has passed: close, answer or hand on those that took too long."""
        first_byte_s, head_s, refuses = self._patience
        for descriptor, reading in list(self._reading.items()):
            took_s = now - reading.began
            if not reading.head:
                if took_s >= first_byte_s:
                    self._close(descriptor)
            elif took_s >= head_s:
                if refuses:
                    self._take(descriptor).sock.detach()
                    refuse(descriptor, 408)
                    self._gone(reading.listener)
                else:
                    self._hand_on(descriptor)

    def hand_on_all(self) -> None:
        """Hand on everything as far as it came, because the sockets are closed."""
        for descriptor in list(self._reading):
            self._hand_on(descriptor)

    def shut(self) -> None:
        """Close everything."""
        for descriptor in list(self._reading):
            self._take(descriptor).sock.close()


def refuse(descriptor: int, status: int, *, retry_after_s: int = 0) -> None:
    """Answer a connection whose request nobody takes, and close it."""
    from .._wire.http1 import error_reply

    reply = error_reply(status, b"", retry_after_s=retry_after_s)
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

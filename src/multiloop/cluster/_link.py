"""The primary's end of one worker's handoff: its account, its socket, and the connections of which a duplicate is kept.

What lives here: `Link`, and what the kernel knows of a connection (`was_read`, `peer_of`). What must not: choosing a
worker (`_dealing`), accepting (`_dealer`).

Besides the two counts of its account, a connection that was dealt is *held*: the primary keeps its duplicate until the
worker says RELEASED (first byte read, or closed), or drops it because of the cap.

When a worker dies, what lay unreceived in its socket is pulled back, and of the held ones those from which nothing was
read are dealt again. For TCP the kernel knows exactly; for Unix sockets the worker says so at once (no gathering).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket
from ._dealing import Account
from ._page import Page

_TCP_INFO_SIZE = 136  # up to and with tcpi_bytes_received
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
_CLOSED_BY_PEER = (6, 8, 9, 11)  # TCP states after the FIN of the peer, which counts as one received byte


# A connection of which the primary has a descriptor: that, the listener's index, flags, and what was read of it.
# A plain tuple: one is made for each connection, and a named one costs eight times as much.
Waiting = tuple[int, int, int, bytes]


class Kernel(NamedTuple):
    """What dealing asks the kernel beyond sockets; a simulation puts another in its place."""

    close: Callable[[int], None]
    was_read: Callable[[int, int], bool]  # of a connection from which so many bytes had been read before
    bytes_read: Callable[[int], int]


class Link(Account):
    """One worker, as the dealer sees it.

    Args:
        theirs: a copy of the worker's end, for pulling back.
        page: what it says of its requests; without one, its connections count as requests.
    """

    __slots__ = (
        "_kernel",
        "batch",
        "batch_bytes",
        "batch_descriptors",
        "end",
        "held",
        "page",
        "queue",
        "theirs",
        "unsent",
    )

    def __init__(
        self,
        number: int,
        end: HandoffSocket,
        theirs: HandoffSocket,
        credit: int,
        seat: int = 0,
        page: Page | None = None,
        *,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__(number, credit, seat)
        self._kernel = KERNEL if kernel is None else kernel
        self.end = end
        self.theirs = theirs
        self.page = page
        self.held: dict[int, Waiting] = {}  # by id, oldest first
        self.batch: list[wire.Entry] = []
        self.batch_descriptors: list[int] = []
        self.batch_bytes = 0  # of prefixes
        self.queue: deque[Waiting] = deque()  # they wait for this worker and no other
        self.unsent: list[bytes] = []  # TAKEN records that found no room

    @property
    def requests(self) -> int:
        """Requests in progress, as of a moment ago, and connections that have not said anything yet."""
        return self.page.requests() + len(self.held) if self.page is not None else self.connections

    @property
    def typical_s(self) -> float:
        """How long a request takes there as a rule, in seconds; 0.0 where that is not known."""
        return self.page.typical_s() if self.page is not None else 0.0

    def send_taken(self, record: bytes) -> None:
        """Acknowledge connections that came back; kept for later when there is no room."""
        try:
            if not self.unsent and self.end.send(record):
                return
        except OSError:
            return  # it is dead: its end is handled elsewhere
        self.unsent.append(record)

    def retry(self) -> None:
        """Time has passed: send what found no room, and try again where a descriptor found none."""
        unsent, self.unsent = self.unsent, []
        for record in unsent:
            self.send_taken(record)
        self.congested = False

    def pull_back(self) -> list[Waiting]:
        """Receive what the worker has not received. The kernel makes it ours alone."""
        pulled: list[Waiting] = []
        again: list[bytes] = []
        while True:
            try:
                got = self.theirs.receive()
            except (EOFError, OSError):
                break
            if got is None:
                break
            record, descriptors = got
            if wire.kind_of(record) != wire.CONNECTIONS:
                again.append(bytes(record))
                continue
            pulled += self._pulled(wire.unpack_entries(record), descriptors)
        for record_again in again:
            self.send_taken(record_again)
        return pulled

    def _pulled(self, entries: list[wire.Entry], descriptors: list[int]) -> Iterator[Waiting]:
        for index, (number, listener, flags, prefix) in enumerate(entries):
            self.undone()
            held = self.held.pop(number, None)
            arrived = descriptors[index] if index < len(descriptors) else -1
            if held is not None:
                if arrived >= 0:
                    self._kernel.close(arrived)
                yield held
            elif arrived >= 0:
                yield arrived, listener, flags, prefix

    def close(self) -> None:
        """Close the sockets; safe to call twice."""
        self.end.close()
        self.theirs.close()


def was_read(descriptor: int, before: int = 0) -> bool:
    """Say whether the worker has read from a connection. In doubt True: then it is closed, not dealt again.

    Args:
        before: how many bytes others have read: the primary itself, the worker that gave it back.
    """
    try:
        return bytes_read(descriptor) > before
    except OSError:
        return True


def bytes_read(descriptor: int) -> int:
    """Return how many bytes anybody has read from a connection; 0 for a Unix socket, whose worker says so at once.

    Raises OSError when the connection is gone.
    """
    import fcntl
    import termios

    waiting = bytearray(4)
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    left = int.from_bytes(waiting, sys.byteorder)
    sock = socket.socket(fileno=descriptor)
    try:
        if sock.family == getattr(socket, "AF_UNIX", None):
            return 0  # the worker said nothing, and it speaks before it reads on
        info = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", 11), _TCP_INFO_SIZE)
    finally:
        sock.detach()
    if len(info) < _TCP_INFO_SIZE:  # an old kernel, or not Linux: what waits is all that is known
        return 0 if left else sys.maxsize
    received: int = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0]
    return received - left - (info[0] in _CLOSED_BY_PEER)


def peer_of(descriptor: int) -> Any:
    """Return the client's address as accept() would give it; None when it is gone."""
    try:
        sock = socket.socket(fileno=descriptor)
        try:
            return sock.getpeername()
        finally:
            sock.detach()
    except OSError:
        return None


KERNEL = Kernel(os.close, was_read, bytes_read)

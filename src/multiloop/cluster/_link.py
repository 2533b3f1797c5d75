"""The primary's end of one worker's handoff: its credit, and the connections of which the primary keeps a duplicate.

What lives here: `Link` (accounts and records), `was_read` (what the kernel knows of a connection). What must not:
choosing a worker, accepting (`_dealer`).

Each connection that was dealt is in three accounts until the worker says otherwise:

    credit        taken by the deal, given back by ADOPTED (or when it never arrived, or was pulled back)
    connections   counted by the deal, until CLOSED
    held          the primary's duplicate, until RELEASED (first byte read, or closed), or dropped because of the cap

When a worker dies, what lay unreceived in its socket is pulled back, and of the held ones those from which nothing was
read are dealt again. For TCP the kernel knows exactly; for Unix sockets the worker says so at once (no gathering).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket

_TCP_INFO_SIZE = 136  # up to and with tcpi_bytes_received
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
_CLOSED_BY_PEER = (6, 8, 9, 11)  # TCP states after the FIN of the peer, which counts as one received byte


# A connection of which the primary has a descriptor: that, the listener's index, flags, and what was read of it.
# A plain tuple: one is made for each connection, and a named one costs eight times as much.
Waiting = tuple[int, int, int, bytes]


class Link:
    """One worker, as the dealer sees it; also what a policy sees (number, connections, requests)."""

    __slots__ = (
        "batch",
        "batch_descriptors",
        "capacity",
        "congested",
        "connections",
        "end",
        "free",
        "held",
        "is_open",
        "listed",
        "number",
        "requests",
        "theirs",
        "unsent",
    )

    def __init__(self, number: int, end: HandoffSocket, theirs: HandoffSocket, credit: int) -> None:
        self.number = number
        self.end = end
        self.theirs = theirs  # a copy of the worker's end, for pulling back
        self.free = credit
        self.capacity = sys.maxsize
        self.connections = 0
        self.requests = 0
        self.held: dict[int, Waiting] = {}  # by id, oldest first
        self.batch: list[wire.Entry] = []
        self.batch_descriptors: list[int] = []
        self.unsent: list[bytes] = []  # TAKEN records that found no room
        self.is_open = False  # the supervisor lets it have connections
        self.congested = False  # its socket or its table of descriptors is full: try again later
        self.listed = False  # the dealer's: among those that may be picked

    @property
    def may_be_picked(self) -> bool:
        """Whether the next connection may go to this worker."""
        return self.is_open and self.free > 0 and self.connections < self.capacity and not self.congested

    def send_taken(self, record: bytes) -> None:
        """Acknowledge connections that came back; kept for later when there is no room."""
        try:
            if not self.unsent and self.end.send(record):
                return
        except OSError:
            return  # it is dead: its end is handled elsewhere
        self.unsent.append(record)

    def retry(self) -> None:
        """Time has passed: send what found no room, and let the worker have connections again."""
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
            self.free += 1
            self.connections -= 1
            held = self.held.pop(number, None)
            arrived = descriptors[index] if index < len(descriptors) else -1
            if held is not None:
                if arrived >= 0:
                    os.close(arrived)
                yield held
            elif arrived >= 0:
                yield arrived, listener, flags, prefix

    def close(self) -> None:
        """Close the sockets; safe to call twice."""
        self.end.close()
        self.theirs.close()


def was_read(descriptor: int) -> bool:
    """Say whether anybody has read from a connection. In doubt True: then it is closed, not dealt again."""
    import fcntl
    import termios

    waiting = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
        sock = socket.socket(fileno=descriptor)
        try:
            if sock.family == getattr(socket, "AF_UNIX", None):
                return False  # the worker said nothing, and it speaks before it reads on
            info = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", 11), _TCP_INFO_SIZE)
        finally:
            sock.detach()
    except OSError:
        return True
    if len(info) < _TCP_INFO_SIZE:
        return int.from_bytes(waiting, sys.byteorder) == 0  # an old kernel, or not Linux
    received = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0]
    if info[0] in _CLOSED_BY_PEER:
        received -= 1
    return bool(received > int.from_bytes(waiting, sys.byteorder))

"""Sockets that hand connections from one process to another: one record, up to 64 descriptors, nothing lost silently.

What lives here: `HandoffSocket`, the two ends of a pair and the copy of a receiving end with which the sender pulls
back what was not received. What must not: who gets a connection, what a record means (`_wire.messages`).

Rules
* No transport and no Channel in between: one sendmsg for a batch of connections is what a hand-over costs.
* The kernel gives each record to exactly one receiver. So while the receiver is stopped or dead the sender may receive
  from a copy of the receiver's own socket: a connection never has two owners.
* A receiver at its limit of descriptors gets fewer than were sent, the first ones: it tells the sender which came.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import sys

from .._wire.messages import MAX_ENTRIES, MAX_PREFIX_BYTES

_RECORDS = socket.SOCK_SEQPACKET if sys.platform.startswith("linux") else socket.SOCK_DGRAM
_RECORD_BYTES = 16 * 1024  # a batch of entries without prefixes, or one with the longest prefix
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_ENTRIES * 4)
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE)
_INT_BYTES = 4
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # descriptors that arrive must not leak into the receiver's children

assert MAX_PREFIX_BYTES < _RECORD_BYTES


class HandoffSocket:
    """One end of a handoff pair, non-blocking."""

    __slots__ = ("_buffer", "_view", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._buffer = bytearray(_RECORD_BYTES)
        self._view = memoryview(self._buffer)

    @classmethod
    def from_fd(cls, descriptor: int) -> HandoffSocket:
        """Take over an inherited descriptor; it is not inherited further."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(socket.AF_UNIX, _RECORDS, 0, descriptor))

    def fileno(self) -> int:
        """Return the descriptor, for pass_fds and add_reader; -1 when closed."""
        return self.sock.fileno()

    @property
    def inode(self) -> int:
        """What tells this end from any other socket."""
        return os.fstat(self.sock.fileno()).st_ino

    def send(self, record: bytes, descriptors: list[int] | None = None) -> bool:
        """Send one record. False: there is no room now (buffer or descriptors in flight), try again later.

        Raises BrokenPipeError or ConnectionError when the other end is gone.
        """
        try:
            if descriptors:
                rights = array.array("i", descriptors)
                self.sock.sendmsg((record,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))
            else:
                self.sock.send(record)
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True

    def receive(self) -> tuple[memoryview, list[int]] | None:
        """Return the next record and its descriptors (perhaps fewer than were sent); None when there is none now.

        The record is valid until the next call. Raises EOFError when the other end is gone and everything was read.
        """
        try:
            size, ancillary, _flags, _ = self.sock.recvmsg_into((self._buffer,), _ANCILLARY_BYTES, _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError as error:
            raise EOFError("the other end of a handoff socket is gone") from error
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % _INT_BYTES])
                descriptors += received
        if not _CLOEXEC:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        if not size:
            raise EOFError("the other end of a handoff socket is gone")
        return self._view[:size], descriptors

    def copy(self) -> HandoffSocket:
        """Return a second descriptor of the same end, for pulling back."""
        return HandoffSocket(self.sock.dup())

    def close(self) -> None:
        """Close; safe to call twice."""
        self.sock.close()


def handoff_pair() -> tuple[HandoffSocket, HandoffSocket]:
    """Make both ends of a new handoff pair, non-inheritable."""
    here, there = socket.socketpair(socket.AF_UNIX, _RECORDS)
    return HandoffSocket(here), HandoffSocket(there)

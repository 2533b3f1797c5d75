"""The two sockets at each end of a channel, and how they get into a child.

What lives here: making them and passing them on. What must not: reading or writing them.
"""

from __future__ import annotations

import socket
import sys
from typing import NamedTuple

# Records keep their borders on both. SEQPACKET also tells when the other end is gone; macOS does not have it.
_RECORDS = socket.SOCK_SEQPACKET if sys.platform.startswith("linux") else socket.SOCK_DGRAM


class ChannelEnds(NamedTuple):
    """One end: a byte stream for frames, and a socket of records for descriptors (transports drop descriptors)."""

    stream: socket.socket
    descriptors: socket.socket

    def pass_fds(self) -> tuple[int, int]:
        """Return the descriptors for subprocess.Popen(pass_fds=...) and for the child's `from_fds`."""
        return self.stream.fileno(), self.descriptors.fileno()

    @classmethod
    def from_fds(cls, stream: int, descriptors: int) -> ChannelEnds:
        """Take over two inherited descriptors; they are not inherited further."""
        ends = cls(socket.socket(fileno=stream), socket.socket(fileno=descriptors))
        for end in ends:
            end.set_inheritable(False)
        return ends

    def close(self) -> None:
        """Close both sockets of this end; safe to call twice."""
        self.stream.close()
        self.descriptors.close()


def pair() -> tuple[ChannelEnds, ChannelEnds]:
    """Make both ends of a new channel. The four sockets are not inheritable (PEP 446)."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        here_records, there_records = socket.socketpair(socket.AF_UNIX, _RECORDS)
    except OSError:
        here.close()
        there.close()
        raise
    return ChannelEnds(here, here_records), ChannelEnds(there, there_records)

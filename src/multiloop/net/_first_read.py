"""A connection that somebody else keeps a copy of: telling him when its first byte was read.

What lives here: `FirstRead`, which stands before a connection's protocol until then, and steps aside. What must not: who
wants to know, and why (a cluster's primary, which deals a connection again as long as nobody has read from it).
"""

from __future__ import annotations

from typing import Any

from ._provider import Handed


class FirstRead:
    """The transport's protocol until the first byte; from then on the transport talks to the protocol itself."""

    __slots__ = ("__weakref__", "_handed", "_protocol", "_transport")

    def __init__(self, protocol: Any, handed: Handed) -> None:
        self._protocol = protocol
        self._handed = handed
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Pass it on, and what was read before behind it."""
        self._transport = transport
        self._protocol.connection_made(transport)
        if self._handed.prefix:
            self.data_received(self._handed.prefix)

    def data_received(self, data: bytes) -> None:
        """The first bytes: say so, then step aside."""
        self._handed.first_byte()
        protocol, transport = self._protocol, self._transport
        if transport.get_protocol() is self:  # else the protocol has put another one in its place
            transport.set_protocol(protocol)
        if hasattr(protocol, "data_received"):
            protocol.data_received(data)
        else:
            _fill(protocol, data)

    def eof_received(self) -> Any:
        """Pass it on."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

    def connection_lost(self, error: BaseException | None) -> None:
        """Pass it on."""
        self._protocol.connection_lost(error)


def _fill(protocol: Any, data: bytes) -> None:
    """Give bytes to a protocol that has buffers of its own."""
    view = memoryview(data)
    while view:
        room = memoryview(protocol.get_buffer(len(view)))
        taken = min(len(room), len(view))
        room[:taken] = view[:taken]
        protocol.buffer_updated(taken)
        view = view[taken:]

"""What the transport calls: the hot path of every socket.

What lives here: `Protocol`, one for each connection, between asyncio's transport and `Socket`. What must not: decisions;
`_incoming` has those of reading, `_outgoing` those of writing.

It has no base class (uvloop and asyncio need none) and no task or future per message: `data_received` calls the one
'data' listener or the one reader directly, under the rules of `Hub.call`, written out here because a message costs about
5 µs in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ._incoming import Incoming

if TYPE_CHECKING:
    from ..loop import Hub
    from ._connection import Connection
    from ._idle import IdleTimer
    from ._reading import Reading


class Protocol:
    """The transport's side of one `Socket`."""

    __slots__ = ("__weakref__", "bytes_read", "deliver", "hub", "idle", "incoming", "socket")

    def __init__(self, socket: Connection, of: Hub, mark_bytes: int) -> None:
        self.socket = socket
        self.hub = of
        self.incoming = Incoming(socket, self, mark_bytes)
        # The 'data' listener, if the next chunk goes to it as it comes. Set by `incoming` alone, as its `reading`.
        self.deliver: Callable[[bytes], Any] | None = None
        self.idle: IdleTimer | None = None  # told when something moves
        self.bytes_read = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called once, before anything else."""
        self.socket._made(transport)

    def data_received(self, data: bytes) -> None:
        """Called for each read of the kernel's."""
        self.bytes_read += len(data)
        if self.idle is not None:
            self.idle.touch()
        incoming = self.incoming
        reading: Reading | None = incoming.reading
        deliver = self.deliver
        if reading is None and deliver is None:
            incoming.keep(data)
            return
        hub = self.hub
        result = None
        try:
            if reading is not None:
                reading.deliver(data)
            else:
                result = deliver(data)  # type: ignore[misc]  # one of the two is there
        except (SystemExit, KeyboardInterrupt) as error:
            hub.leave(error)
        except BaseException as error:
            hub.uncaught(error)
        else:
            if result is not None and result is not True and result is not False and isinstance(result, Coroutine):
                self.socket._adopt("data", (data,), result)
        if hub.ticks:
            hub.drain_ticks()

    def eof_received(self) -> bool:
        """Called when the peer has ended its side. The transport stays open: `_socket` closes it by the half-open rule."""
        self.incoming.end_seen()
        return not self.socket.encrypted  # TLS transports close themselves, and warn when asked not to

    def pause_writing(self) -> None:
        """Called when what waits in the transport is over the mark."""
        self.socket._outgoing.over_the_mark()

    def resume_writing(self) -> None:
        """Called when what waited in the transport has been written."""
        self.socket._outgoing.written()

    def connection_lost(self, error: BaseException | None) -> None:
        """Called once, after everything else."""
        self.socket._lost(error)

"""A connection that came from the primary, which keeps a copy of it until it was read from.

What lives here: `HandedSocket`. What must not: who serves it.

That it is closed is seen by the socket object itself, whatever became of it: asyncio's transports close it, uvloop's
close the descriptor and then detach it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable


class HandedSocket(socket.socket):
    """A connected socket. `prefix` is what the primary has read of it."""

    __slots__ = ("_on_closed", "_on_first_byte", "kept", "prefix", "watchers")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        super().__init__(family, type, proto, fileno)  # as ever: dup() makes one, which nobody waits for
        self.prefix = b""
        self.watchers: tuple[Callable[[HandedSocket], None], ...] = ()  # called when it is closed
        self.kept = False  # it comes from another worker and had requests there
        self._on_first_byte: Callable[[], None] | None = None
        self._on_closed: Callable[[], None] | None = None

    @classmethod
    def take_over(
        cls,
        family: int,
        descriptor: int,
        on_first_byte: Callable[[], None] | None,
        on_closed: Callable[[], None] | None,
    ) -> HandedSocket:
        """Make one of a connection's descriptor."""
        made = cls(family, socket.SOCK_STREAM, 0, descriptor)
        made.setblocking(False)
        made._on_first_byte = on_first_byte
        made._on_closed = on_closed
        return made

    def first_byte(self) -> None:
        """Something was read of it."""
        tell, self._on_first_byte = self._on_first_byte, None
        if tell is not None:
            tell()

    def close(self) -> None:
        """Close it, and say so."""
        super().close()
        self._tell_closed()

    def detach(self) -> int:
        """Give the descriptor away (or: it is closed already), and say that it is gone."""
        descriptor = super().detach()
        self._tell_closed()
        return descriptor

    def give_up(self) -> int:
        """Give the descriptor back to who handed it in, as if nothing had been."""
        self._on_first_byte = self._on_closed = None
        self.watchers = ()
        return super().detach()

    def _tell_closed(self) -> None:
        tell, self._on_closed = self._on_closed, None
        if tell is not None:
            tell()
        watchers, self.watchers = self.watchers, ()
        for watcher in watchers:
            watcher(self)

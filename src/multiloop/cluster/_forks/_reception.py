"""A worker's listeners, and the connections that come for them from the primary.

What lives here: `Reception` (the service that the intake and the acceptors hand connections to) and `Entrance`, one of
its listeners. What must not: asking the primary for one (`_member`), serving a connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from ..._wire import messages
from ..._wire.forks import Load, Wanted
from ...net._address import Address
from ...net._provider import ServerSide
from .._acceptor import Acceptor
from .._intake import Intake
from ._handed import HandedSocket


class Entrance:
    """An open listener, as its server sees it: `address`, `close()`."""

    def __init__(self, reception: Reception, listener: int, address: Address, family: int, server: ServerSide) -> None:
        self.address = address
        self.listener = listener
        self.family = family
        self.server = server
        self._reception = reception
        self.acceptor: Acceptor | None = None
        self.wanted: Wanted | None = None
        self.open_connections = 0  # where the server does not count requests
        self.is_foreign = False  # an asyncio server that is not ours

    def left(self, _: HandedSocket) -> None:
        """A connection has ended."""
        self.open_connections -= 1

    def close(self) -> None:
        """Accept nothing more, at once. Safe to call twice."""
        self._reception.closed(self)

    def give_back(self, sock: socket.socket, _: int) -> bool:
        """Give an idle kept connection to another worker; `sock` is a duplicate. False: nobody takes it."""
        return self._reception.give_back(sock, self.listener)


class Reception:
    """Takes connections in for the servers of this worker.

    Args:
        leave: tells the primary that a listener is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[Entrance], None]) -> None:
        self._loop = loop
        self._leave = leave
        self._entrances: dict[int, Entrance] = {}
        self.intake: Intake | None = None
        self.gives_back = False  # there is somebody else for idle connections

    @property
    def entrances(self) -> list[Entrance]:
        """The open ones."""
        return list(self._entrances.values())

    def open(self, entrance: Entrance) -> None:
        """From now on connections may come for it."""
        self._entrances[entrance.listener] = entrance

    def closed(self, entrance: Entrance) -> None:
        """Its server is closed."""
        if self._entrances.get(entrance.listener) is entrance:
            del self._entrances[entrance.listener]
            if entrance.acceptor is not None:
                entrance.acceptor.close()
            self._leave(entrance)

    def family_of(self, listener: int) -> int:
        """Return the address family of a listener's connections; for one that is closed, what does no harm."""
        entrance = self._entrances.get(listener)
        return entrance.family if entrance is not None else int(socket.AF_INET)

    def accept_from(self, message: messages.Listen, descriptors: tuple[int, ...]) -> None:
        """Accept from listening sockets here (policies reuse_port and shared)."""
        for listener, descriptor in zip(message.indices, descriptors, strict=True):
            entrance = self._entrances.get(listener)
            if entrance is None or descriptor < 0:
                if descriptor >= 0:
                    socket.socket(fileno=descriptor).close()
                continue
            if entrance.acceptor is not None:
                entrance.acceptor.close()
            entrance.acceptor = Acceptor(self._loop, self, message.batch)
            entrance.acceptor.listen(descriptor, listener, entrance.family)

    def adopt(
        self,
        sock: Any,
        *,
        listener: int,
        prefix: bytes,
        kept: bool = False,
        on_first_byte: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> bool:
        """Give a connection to its server. False: that is closed or full, and the connection is the caller's again."""
        entrance = self._entrances.get(listener)
        if entrance is None:
            return False
        descriptor = sock.detach() if isinstance(sock, socket.socket) else sock.fileno()
        handed = HandedSocket.take_over(entrance.family, descriptor, on_first_byte, on_closed)
        handed.prefix, handed.kept = prefix, kept
        if entrance.server.statistics is None:
            handed.watchers = (entrance.left,)
            entrance.open_connections += 1
        if entrance.server.accepted(handed):
            return True
        if on_closed is None:  # it was accepted here: there is nobody to give it back to
            entrance.server.refused(handed)
            handed.close()
            return True
        handed.give_up()
        if entrance.server.statistics is None:
            entrance.open_connections -= 1
        return False

    def load(self) -> Load:
        """Return what there is to do here. Where requests are not counted, connections are."""
        requests = active = connections = 0
        for entrance in self._entrances.values():
            if entrance.server.statistics is None:
                active += entrance.open_connections
                connections += entrance.open_connections
            elif (found := entrance.server.statistics()) is not None:
                requests += found.requests
                active += found.active_requests
                connections += found.connections
        return Load(requests, active, connections)

    def give_back(self, sock: socket.socket, listener: int) -> bool:
        """Give an idle kept connection to the primary, for somebody else."""
        return self.gives_back and self.intake is not None and self.intake.give_back(sock, listener)

"""Which listening socket is accepted from by whom, for each policy.

What lives here: `SlotSockets`. What must not: accepting itself (`_dealer` in the primary, `_acceptor` in a worker).

    round_robin, least_connections   the primary accepts from every listener
    shared                           every ready worker accepts from every listener; the primary never does, and deals
                                     only what a draining worker gives back
    reuse_port                       each slot has sockets of its own on the same addresses (SO_REUSEPORT), made and kept
                                     here and handed to whichever worker fills the slot. While nobody does, or its
                                     worker hangs, the primary accepts from them and deals: no connection is lost with
                                     a worker. A socket is never closed while serving (the kernel would reset its queue).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

from .._wire import messages as wire
from ..errors import ConfigError
from ._dealer import Dealer
from ._door import Door

_OWN_BATCH = 16  # connections a worker accepts in one turn from a socket that is its own
_SHARED_BATCH = 1  # from one at which others wait: taking more would leave them idle


class Source(Protocol):
    """A listening socket that may have twins."""

    sock: socket.socket
    name: str

    @property
    def can_be_shared(self) -> bool:
        """Whether `twin` can be called: a TCP socket that was opened for it."""

    def twin(self) -> socket.socket:
        """Make another socket on the same address."""


class Worker(Protocol):
    """Somebody who accepts."""

    @property
    def number(self) -> int:
        """Who."""

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Tell him."""


class SlotSockets:
    """The listening sockets of a cluster, by slot.

    Args:
        door: whose sockets they are, where there are several.
        first: the index of the first one in records.

    Raises ConfigError when the policy cannot be kept for one of the listeners.
    """

    def __init__(
        self, policy: Any, listeners: Sequence[Source], dealer: Dealer, *, door: Door | None = None, first: int = 0
    ) -> None:
        self._policy = policy
        self._listeners = listeners
        self._dealer = dealer
        self._door = door
        self._first = first
        self._slots: dict[int, list[socket.socket]] = {}
        self._owners: dict[int, int] = {}
        if policy == "reuse_port":
            for listener in listeners:
                if not listener.can_be_shared:
                    raise ConfigError(
                        f"--policy reuse_port: {listener.name} cannot be shared between slots, use another policy"
                    )
            self._slots[0] = [listener.sock for listener in listeners]
        for index, listener in enumerate(listeners, first):
            if policy == "shared":
                dealer.expect(listener.sock, index, door)  # a worker that drains gives back what it accepted
            else:
                dealer.listen(listener.sock, index, door)

    def open(self, slot: int, process: Worker) -> None:
        """A worker fills a slot: it accepts itself, if that is the policy."""
        if self._policy == "shared":
            self._give(process, [listener.sock for listener in self._listeners], _SHARED_BATCH)
        elif self._policy == "reuse_port":
            sockets = self._slots.get(slot)
            if sockets is None:
                sockets = self._slots[slot] = [listener.twin() for listener in self._listeners]
            for sock in sockets:
                self._dealer.unlisten(sock)
            self._owners[slot] = process.number
            self._give(process, sockets, _OWN_BATCH)

    def close_for(self, number: int) -> None:
        """A worker hangs, drains or is dead: the primary accepts from its slot's sockets."""
        for slot, owner in list(self._owners.items()):
            if owner == number:
                del self._owners[slot]
                for index, sock in enumerate(self._slots[slot], self._first):
                    if sock.fileno() >= 0:
                        self._dealer.listen(sock, index, self._door)

    def close(self) -> None:
        """Accept no more, and close what was made here. Safe to call twice."""
        for listener in self._listeners:
            if listener.sock.fileno() >= 0:
                self._dealer.unlisten(listener.sock)
        for sockets in self._slots.values():
            for sock in sockets:
                if sock.fileno() >= 0:
                    self._dealer.unlisten(sock)
                    sock.close()

    def _give(self, process: Worker, sockets: list[socket.socket], batch: int) -> None:
        message = wire.Listen(tuple(range(self._first, self._first + len(sockets))), batch)
        process.send(message, tuple(sock.fileno() for sock in sockets))

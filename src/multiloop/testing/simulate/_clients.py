"""Simulated clients: they connect, ask once or several times, and know what may happen to them.

What lives here: `Client`. What must not: the server's side.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ._invariants import demand
from ._kernel import Connection

if TYPE_CHECKING:
    from ._host import SimHost


class Client:
    """One client with one connection."""

    def __init__(self, host: SimHost, number: int) -> None:
        self.host = host
        self.number = number
        self.chance = random.Random(f"{host.seed} client {number}")
        self.owner: Any = None  # what a worker has of its connection
        self.left = self.chance.choice((1, 1, 2, 3, 5))
        self.waits_for: int | None = None
        self.began = 0.0
        self.outcome = ""  # answered | lost | refused | closed
        self.connection: Connection | None = None

    def begin(self) -> None:
        """Connect; ask at once, or be silent for a while."""
        self.began = self.host.world.now
        self.connection = Connection(self.number, self)
        if not self.host.listener.connect(self.connection):
            demand(self.host.is_stopping, f"client {self.number} was refused")
            self.outcome = "refused"
            return
        self.host.world.at(self.chance.choice((0.0, 0.0, 0.2, 3.0)), None, self.ask)

    def ask(self) -> None:
        """Send a request."""
        connection = self.connection
        if self.outcome or connection is None:
            return
        self.left -= 1
        self.waits_for = self.host.next_request()
        connection.unread.append(self.waits_for)
        if self.owner is not None:
            self.owner.look()

    def answered(self, connection: Connection, request: int) -> None:
        """A reply came: it must be the one that is waited for."""
        if self.outcome:
            return
        demand(
            request == self.waits_for, f"client {self.number} waits for {self.waits_for} and got the reply to {request}"
        )
        self.waits_for = None
        self.host.answered += 1
        if self.left:
            self.host.world.at(self.chance.choice((0.0, 0.1, 2.0)), None, self.ask)
        else:
            self.outcome = "answered"
            connection.has_eof = True
            if self.owner is not None:
                self.owner.look()

    def closed(self, connection: Connection) -> None:
        """The server ended the connection. That is allowed for few reasons."""
        if self.outcome:
            return
        host = self.host
        reasons = [
            host.is_stopping,
            connection in host.excused,
            any(reader in host.died for reader in connection.readers),
            # A primary without descriptors gives up its duplicates: then a worker takes down what it had not read, too.
            any(begin <= host.world.now and end >= self.began for begin, end in host.full),
        ]
        what = "its request was lost" if self.waits_for is not None else "nothing was going on"
        demand(
            any(reasons), f"client {self.number}: {connection} was closed, {what}, and nobody who read from it had died"
        )
        self.outcome = "lost" if self.waits_for is not None else "closed"
        host.lost += self.waits_for is not None

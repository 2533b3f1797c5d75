"""A door: listening sockets whose connections the same workers serve, and the connections that wait behind it.

What lives here: `Door`. What must not: accepting, dealing (`_dealer`), who is picked (`_dealing`).

`multiloop serve` has one door for all its addresses; a program that forks itself has one for each address at which its
workers listen.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from ._dealing import Group
from ._link import Waiting
from ._policy import Policy


class Door(Group):
    """Listening sockets, those who serve them, and what waits."""

    __slots__ = ("locals", "nobody_since", "pending", "queued", "reading", "sources")

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.sources: dict[int, tuple[socket.socket, int]] = {}  # by descriptor: the socket and its listener's index
        self.locals: dict[int, Any] = {}  # by listener: its address
        self.pending: deque[Waiting] = deque()  # nobody can take them now
        self.queued = 0  # connections that wait for a certain worker, in its queue
        self.reading = False  # whether its sockets are accepted from
        self.nobody_since: float | None = None  # since when nobody serves, and requests that were read wait

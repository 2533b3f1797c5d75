"""A door: listening sockets whose connections the same workers serve, and the connections that wait behind it.

What lives here: `Door`. What must not: accepting, dealing (`_dealer`), who is picked (`_dealing`).

`multiloop serve` has one door for all its addresses; a program that forks itself has one for each address at which its
workers listen.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from .. import _limits as limits
from ._dealing import Group
from ._link import Waiting
from ._policy import Policy


class Door(Group):
    """Listening sockets, those who serve them, and what waits."""

    __slots__ = ("_had_somebody", "_nobody_since", "gives_up", "locals", "pending", "queued", "reading", "sources")

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.sources: dict[int, tuple[socket.socket, int]] = {}  # by descriptor: the socket and its listener's index
        self.locals: dict[int, Any] = {}  # by listener: its address
        self.pending: deque[Waiting] = deque()  # nobody can take them now
        self.queued = 0  # connections that wait for a certain worker, in its queue
        self.reading = False  # whether its sockets are accepted from
        self.gives_up = False  # nobody has served for so long that requests are answered by the primary
        self._nobody_since: float | None = None
        self._had_somebody = False  # before that, a server that starts is worth waiting for

    def seek(self, now: float) -> None:
        """Time has passed: look whether somebody serves, and give up when nobody has for `NOBODY_READY_S`."""
        if any(account.has_room for account in self.members):
            self._nobody_since, self._had_somebody, self.gives_up = None, True, False
        elif self._nobody_since is None:
            self._nobody_since = now if self._had_somebody or self.pending else None
        else:
            self.gives_up = now - self._nobody_since >= limits.NOBODY_READY_S

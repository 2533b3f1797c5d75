"""What to do when there is no descriptor left to accept a connection with. Pure: time and counts are arguments.

What lives here: `FullTable`, what accept() says then (`NO_ROOM`), and what it says of a client that is gone
(`CLIENT_GONE`). What must not: accepting, timers, logs (`_listen`, and the cluster's).

Accepting pauses, the kernel's backlog waits, and somebody looks again. How soon is a matter of whether the last pause
helped: when a table is full for good, looking ten times a second is enough; when it is not, each gulp of a long backlog
fills it for the few milliseconds in which connections are handed on or closed, and longer pauses would keep everybody
behind them waiting.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from .._limits import ACCEPT_RETRY_FIRST_S, ACCEPT_RETRY_S, FULL_TABLE_SAID_S

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
CLIENT_GONE = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM, errno.ECONNRESET})


class Pause(NamedTuple):
    """For how long nothing is accepted."""

    seconds: float
    helped: bool  # something was accepted since the last one: whoever had to let go of something need not do so yet
    is_said: bool  # a line in the log is due


class FullTable:
    """How long accepting pauses, each time it finds no room."""

    __slots__ = ("_accepted", "_said_at", "_seconds")

    def __init__(self) -> None:
        self._accepted = -1  # by the time of the last pause
        self._seconds = ACCEPT_RETRY_FIRST_S
        self._said_at = float("-inf")

    def pause(self, now_s: float, accepted: int) -> Pause:
        """Say how long to pause.

        Args:
            accepted: how many connections have been accepted in all, by now.
        """
        helped = accepted != self._accepted
        self._seconds = ACCEPT_RETRY_FIRST_S if helped else min(2 * self._seconds, ACCEPT_RETRY_S)
        self._accepted = accepted
        is_said = now_s - self._said_at >= FULL_TABLE_SAID_S
        if is_said:
            self._said_at = now_s
        return Pause(self._seconds, helped, is_said)

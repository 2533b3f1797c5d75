"""A worker's side of `multiloop logs`: its lines go to the primary while somebody follows.

What lives here: `LogSender`. What must not: the primary's side (`_log_desk`), writing logs (`logs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import _limits as limits
from .. import logs
from .._wire import messages as wire


class LogSender:
    """A worker's side: sends its log's lines to the primary while that follows.

    Args:
        say: sends a message to the primary.
        buffered_bytes: how much of what was sent waits in this process.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        say: Callable[[wire.LogLines], object],
        buffered_bytes: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._say = say
        self._buffered_bytes = buffered_bytes
        self._dropped = 0

    def asked(self, message: wire.FollowLogs) -> None:
        """The primary wants lines, or no more."""
        if message.last:
            self._say(wire.LogLines(tuple(logs.last(message.last)), 0, True))
        follow: Callable[[list[str]], None] | None = self._written if message.follow else None
        logs.follow(follow)

    def _written(self, lines: list[str]) -> None:
        """Lines were written; called on the thread that writes them."""
        try:
            self._loop.call_soon_threadsafe(self._send, lines)
        except RuntimeError:  # the loop is closed
            pass

    def _send(self, lines: list[str]) -> None:
        if self._buffered_bytes() > limits.LOG_FOLLOW_BYTES:
            self._dropped += len(lines)
            return
        dropped, self._dropped = self._dropped, 0
        self._say(wire.LogLines(tuple(lines), dropped, False))

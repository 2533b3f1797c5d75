"""Server-sent events: one message for every page that is open, and none of them can hold up the others.

What lives here: `Streams`. What must not: what the messages say.

A page that takes nothing for a while is let go: it comes back by itself and gets everything anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from ..http._messages import encode_json

_MAX_WAITING = 16  # messages that a page did not take


def message(kind: str, value: Any) -> bytes:
    """Return one event as it goes over the wire."""
    return b"event: " + kind.encode() + b"\ndata: " + encode_json(value) + b"\n\n"


class _Stream:
    __slots__ = ("is_over", "waiter", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.is_over = False

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Streams:
    """All pages that are open."""

    def __init__(self) -> None:
        self._open: set[_Stream] = set()

    def __len__(self) -> int:
        return len(self._open)

    def send(self, data: bytes) -> None:
        """Send a message to every page."""
        for stream in self._open:
            if len(stream.waiting) >= _MAX_WAITING:
                stream.is_over = True
            else:
                stream.waiting.append(data)
            stream.wake()

    def close(self) -> None:
        """End every stream."""
        for stream in self._open:
            stream.is_over = True
            stream.wake()

    async def follow(self, first: bytes) -> AsyncIterator[bytes]:
        """Give `first`, then every message from now on."""
        stream = _Stream()
        stream.waiting.append(first)
        self._open.add(stream)
        try:
            while not stream.is_over:
                if not stream.waiting:
                    stream.waiter = asyncio.get_running_loop().create_future()
                    await stream.waiter
                    continue
                data = b"".join(stream.waiting)
                stream.waiting.clear()
                yield data
        finally:
            self._open.discard(stream)

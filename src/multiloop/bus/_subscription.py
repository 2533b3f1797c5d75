"""What comes on one topic, and who takes it.

What lives here: `Message`, `Gap`, `Subscription`. What must not: how it came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from .. import _limits as limits
from ..errors import UsageError
from ..events import EventEmitter
from ..loop import Handle, Hub


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `value`, and where it came from: `sender` is random for each end of a bus, `own` tells this one."""

    topic: str
    value: Any
    sender: str
    own: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that did not come.

    `missed` of `sender` to `topic`, known exactly from their numbers; or, right after an outage of `seconds`, None: there
    may be some. `where` says who lost them: "network", "queue" (a subscription did not keep up), "outbox" (this end could
    not send).
    """

    topic: str | None
    missed: int | None
    where: str
    sender: str = ""
    seconds: float = 0.0


class Subscription(EventEmitter, Handle):
    """Messages of one topic: `on("message", listener)`, or `async for message in subscription`.

    Events: 'message' (Message), 'gap' (Gap), 'close'. It keeps the program running (`unref()`). What waits for `async for`
    is bounded: beyond it the oldest go, which is a gap.
    """

    def __init__(self, of: Hub, topic: str, leave: Callable[[Subscription], None]) -> None:
        Handle.__init__(self)
        self.topic = topic
        self._leave = leave
        self._waiting: deque[Message] = deque()
        self._taker: asyncio.Future[None] | None = None
        self._iterates = False
        self._missed = 0
        self._opened(of)

    def take(self, message: Message) -> None:
        """A message has come."""
        if not self._alive:
            return
        if self._events is not None and "message" in self._events:
            self._hub.call(self.emit, "message", message)
            return
        self._waiting.append(message)
        if len(self._waiting) > limits.BUS_QUEUE_MESSAGES:
            self._waiting.popleft()
            self._missed += 1
            if self._missed == 1:  # one announcement for as many as go in this turn
                self._hub.loop.call_soon(self._tell_missed)
        self._wake()

    def _tell_missed(self) -> None:
        missed, self._missed = self._missed, 0
        self.tell(Gap(self.topic, missed, "queue"))

    def tell(self, gap: Gap) -> None:
        """Something did not come."""
        if self._alive:
            self._hub.call(self.emit, "gap", gap)

    def __aiter__(self) -> AsyncIterator[Message]:
        if self._events is not None and "message" in self._events:
            raise UsageError("there is a 'message' listener: the messages go there, not to `async for`")
        return self._messages()

    async def _messages(self) -> AsyncIterator[Message]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if not self._alive:
                return
            self._taker = self._hub.loop.create_future()
            try:
                await self._taker
            finally:
                self._taker = None

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def close(self) -> None:
        """Leave the topic. Safe to call twice."""
        if self._alive:
            self._leave(self)
            self._ended()
            self._wake()
            self._hub.call(self.emit, "close")

    def _shutdown(self) -> None:
        self.close()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()

"""Another worker, as a worker has it.

What lives here: `Peer`. What must not: the way, which leads through the primary (`_relay`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..._wire import forks as wire
from ..._wire.frames import MESSAGE, Buffer, dumps, snapshot
from ...child_process._handles import give
from ...child_process._messaging import WITH_HANDLE
from ...loop import ErrorFirst, launch
from ._talk import Talk

if TYPE_CHECKING:
    from ._member import Member


class Peer(Talk):
    """Another worker of the same cluster: `id`, `send`, `request`. Events: 'message' (value, handle) · 'request' (value).

    What it sends comes to `cluster.worker` and to `cluster` (with this in front) as well.
    """

    def __init__(self, member: Member, number: int) -> None:
        self.cluster = member
        self.id = number
        self._member = member
        self.is_gone = False
        self.is_congested = False
        self._room: asyncio.Event | None = None

    def send(self, message: Any, handle: Any = None, *, keep_open: bool = False) -> bool:
        """Send a value, and with it a socket, a server or a descriptor. False: `await drain()`, or it is gone."""
        if not self._is_there():
            return False
        if handle is None:
            body, buffers = dumps(message)
            sent = self._send(MESSAGE, body, [snapshot(buffer) for buffer in buffers])
        else:
            with give(handle, keep_open) as (kind, descriptor):
                body, buffers = dumps((kind, message))
                sent = self._send(WITH_HANDLE, body, [snapshot(buffer) for buffer in buffers], [descriptor])
        return sent and not self.is_congested

    post_message = send

    def drain(self, *, callback: ErrorFirst | None = None) -> Any:
        """Wait until there is room to send to it again. The result: True to go on, False when it is gone."""
        return launch(self._drain(), callback)

    async def _drain(self) -> bool:
        channel = self._member.parent.channel
        if channel is not None:
            await channel.drain()
        while self.is_congested and self._is_there():
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()
        return self._is_there()

    def congested(self, is_congested: bool) -> None:
        """The primary says whether it takes what is sent."""
        self.is_congested = is_congested
        if not is_congested and self._room is not None:
            room, self._room = self._room, None
            room.set()

    def gone(self, error: BaseException) -> None:
        """It has ended."""
        self.is_gone = True
        self.congested(False)
        self._fail_requests(error)

    def _send(self, kind: int, body: bytes, buffers: Sequence[Buffer] = (), descriptors: Sequence[int] = ()) -> bool:
        relayed = wire.pack_relay(self._member.id, self.id, kind, body)
        return self._member.parent.send_frame(wire.RELAY, relayed, buffers, descriptors)

    def _send_frame(self, kind: int, body: bytes, buffers: Sequence[Buffer] = ()) -> bool:
        return self._send(kind, body, buffers)

    def _is_there(self) -> bool:
        return not self.is_gone and self._member.parent.connected

    def _who(self) -> str:
        return f"worker {self.id}"

    def _answerer(self) -> Callable[[Any], Any] | None:
        if not self.listener_count("request") and (listeners := self._member.worker.listeners("request")):
            return listeners[0]
        return super()._answerer()

    def _listeners_changed(self, name: Any, count: int) -> None:
        self._member.listeners_changed()

    def __repr__(self) -> str:
        return f"<Peer {self.id}{' gone' if self.is_gone else ''}>"

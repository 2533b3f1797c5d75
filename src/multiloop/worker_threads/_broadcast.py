"""`BroadcastChannel`: one name, every worker of the tree.

What lives here: the channel as users see it. What must not: the way from worker to worker (`_exchange`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from .._limits import MAX_MESSAGE_BYTES
from ..errors import ClosedError
from ..loop import Hub
from ._crossing import exchange_of
from ._inbox import Inbox
from ._link import Packet
from ._message import pack

_FROM_BUS = -1  # the kind of a packet whose body is the value itself


class BroadcastChannel(Inbox):
    """Send to, and hear from, every other open channel of the same name: in the program, its workers, and theirs.

    Events: 'message' (value), 'messageerror' (error), 'close'. Or `async for value in channel`. Messages of one sender
    come in order; the sender itself does not get them. What arrives while nobody listens or iterates is dropped.
    An open channel keeps the program running (`unref()`).

    Args:
        name: turned into a string.
        url: None: this program and its workers, and all workers of its cluster. "redis://host:port/0":
            all programs that use the same Redis or Valkey, on whatever machines.
        max_message_size: of one message, in bytes; with a `url` at most 1 MiB unless it is given.

    With a `url` messages travel as JSON (and bytes), nothing is unpickled; it needs a running loop, and there is one more
    event: 'gap' (`bus.Gap`): messages did not come, because the server was away or this end did not keep up.

    Without one, the tree passes messages on through the parents' loops. It does not span machines or unrelated programs.
    """

    def __init__(self, name: Any, url: str | None = None, *, max_message_size: int | None = None) -> None:
        super().__init__()
        self._counted = True
        self.name = str(name)
        self._max_bytes = MAX_MESSAGE_BYTES if max_message_size is None else max_message_size
        self._exchange = exchange_of(self._place)
        self._close_emitted = False
        self._iterators = 0
        self._bus: Any = None
        self._leaving: Any = None
        if url is None:
            self._exchange.open(self.name, self)
            self._exchange.use()
        else:
            self._join_bus(url, max_message_size)
        self.start()

    def _join_bus(self, url: str, max_message_size: int | None) -> None:
        from .. import bus

        size = {} if max_message_size is None else {"max_message_size": max_message_size}
        self._bus = bus.connect(url, prefix="multiloop-channel", **size)
        subscription = self._bus.subscribe(self.name).unref()
        subscription.on("message", self._take_from_bus)
        subscription.on("gap", lambda gap: self.emit("gap", gap))

    def _take_from_bus(self, message: Any) -> None:
        if not message.own:
            self.take_broadcast(Packet(_FROM_BUS, message.value, []))

    def _unpack(self, packet: Packet) -> Any:
        return packet.body if packet.kind == _FROM_BUS else super()._unpack(packet)

    async def ready(self) -> None:
        """Wait until messages are heard: with a `url`, for the first connection; without one, not at all."""
        if self._bus is not None:
            await self._bus.ready()

    def post_message(self, value: Any) -> None:
        """Send a copy of `value` to all others. A SharedBuffer in it is shared; ports cannot be broadcast.

        Raises:
            ClosedError: the channel is closed.
            NotSendable: a part cannot be pickled. FrameTooLarge: it is larger than `max_message_size`.
        """
        if self._is_closing:
            raise ClosedError(f"the BroadcastChannel {self.name!r} is closed")
        if self._bus is not None:
            self._bus.publish(self.name, value)
            return
        kind, body, fds, _ = pack(value, for_many=True, max_bytes=self._max_bytes)
        self._exchange.publish(self.name, kind, body, fds, self)

    def take_broadcast(self, packet: Packet) -> None:
        """Somebody else sent it. Called on any thread."""
        self._queue.append(packet)
        if not self._is_attached:
            return
        if asyncio._get_running_loop() is self._hub.loop:
            self._hub.loop.call_soon(self._deliver_or_drop)
            return
        try:
            self._hub.loop.call_soon_threadsafe(self._deliver_or_drop)
        except RuntimeError:  # that loop is closed
            self._drop_queue()

    def _deliver_or_drop(self) -> None:
        self._deliver()
        if not self._iterators and not self._has_listener():
            self._drop_queue()

    def _join_loop(self, here: Hub) -> None:
        if self._queue:
            here.loop.call_soon(self._deliver_or_drop)

    def _read_now(self) -> bool:
        return self._exchange.read_parent_now()

    def __aiter__(self) -> Any:
        self._iterators += 1
        return super().__aiter__()

    def close(self) -> None:
        """Leave. Safe to call twice."""
        if self._is_closing:
            return
        self._is_closing = True
        self._leave()
        self._place.ports.discard(self)
        self._drop_queue()
        self._wake_takers()
        if self._is_attached:
            self._hub.loop.call_soon(self._finish)

    def _leave(self) -> None:
        if self._bus is None:
            self._exchange.close(self.name, self)
        elif self._bus.is_connected and self._is_attached:
            leaving = self._hub.loop.create_task(self._bus.__aexit__())  # what was posted is sent first
            self._leaving = leaving
        else:
            self._bus.close()

    def _finish(self) -> None:
        if self._is_closing and not self._close_emitted and not self._is_delivering:
            self._close_emitted = True
            self._drop_queue()
            self._hub.call(self.emit, "close")
            self._ended()

    def _end_with_place(self, timeout_s: float | None) -> None:
        """The worker that has this channel ends."""
        self._is_closing = self._close_emitted = True
        if self._bus is None:
            self._exchange.close(self.name, self)
        else:
            self._bus.close()
        self._drop_queue()

    def _shutdown(self) -> None:
        """The program on this loop ends."""
        self._end_with_place(None)
        self._place.ports.discard(self)
        self._ended()

    def __repr__(self) -> str:
        return f"<BroadcastChannel {self.name!r} {'closed' if self._is_closing else 'open'}>"

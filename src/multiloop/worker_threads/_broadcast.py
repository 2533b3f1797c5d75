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


class BroadcastChannel(Inbox):
    """Send to, and hear from, every other open channel of the same name: in the program, its workers, and theirs.

    Events: 'message' (value), 'messageerror' (error), 'close'. Or `async for value in channel`. Messages of one sender
    come in order; the sender itself does not get them. What arrives while nobody listens or iterates is dropped.
    An open channel keeps the program running (`unref()`).

    Args:
        name: turned into a string.
        max_message_size: of one message, in bytes.

    The tree passes messages on through the parents' loops. It does not span machines or unrelated programs.
    """

    def __init__(self, name: Any, *, max_message_size: int = MAX_MESSAGE_BYTES) -> None:
        super().__init__()
        self._counted = True
        self.name = str(name)
        self._max_bytes = max_message_size
        self._exchange = exchange_of(self._place)
        self._close_emitted = False
        self._iterators = 0
        self._exchange.open(self.name, self)
        self._exchange.use()
        self.start()

    def post_message(self, value: Any) -> None:
        """Send a copy of `value` to all others. A SharedBuffer in it is shared; ports cannot be broadcast.

        Raises:
            ClosedError: the channel is closed.
            NotSendable: a part cannot be pickled. FrameTooLarge: it is larger than `max_message_size`.
        """
        if self._is_closing:
            raise ClosedError(f"the BroadcastChannel {self.name!r} is closed")
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
        self._exchange.close(self.name, self)
        self._place.ports.discard(self)
        self._drop_queue()
        self._wake_takers()
        if self._is_attached:
            self._hub.loop.call_soon(self._finish)

    def _finish(self) -> None:
        if self._is_closing and not self._close_emitted and not self._is_delivering:
            self._close_emitted = True
            self._drop_queue()
            self._hub.call(self.emit, "close")
            self._ended()

    def _end_with_place(self, timeout_s: float | None) -> None:
        """The worker that has this channel ends."""
        self._is_closing = self._close_emitted = True
        self._exchange.close(self.name, self)
        self._drop_queue()

    def _shutdown(self) -> None:
        """The program on this loop ends."""
        self._end_with_place(None)
        self._place.ports.discard(self)
        self._ended()

    def __repr__(self) -> str:
        return f"<BroadcastChannel {self.name!r} {'closed' if self._is_closing else 'open'}>"

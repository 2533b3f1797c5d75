"""What ports and broadcast channels have in common: messages that wait, and the ways in which they are taken.

What lives here: `Inbox`. What must not: where messages come from, how they are sent.

    queue ─ unpack ─▶ 'message' listeners | async for | receive_message_on_port
"""

from __future__ import annotations

import asyncio
import pickle
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from ..errors import FrameError, UsageError
from ..events import EventEmitter
from ..loop import Handle, Hub, hub, on_new_hub
from ._link import Packet
from ._message import INLINE, unpack
from ._place import current
from ._transit import close_all


class Received(NamedTuple):
    """What `receive_message_on_port` found."""

    message: Any


class Inbox(EventEmitter, Handle):
    """Packets that arrived, and who takes them. Belongs to one loop once it is attached."""

    def __init__(self, emitter: EventEmitter | None = None) -> None:
        Handle.__init__(self)
        self._counted = False
        self._emitter = emitter  # a Worker emits what comes on its port; None: the inbox itself, without a cycle
        self._queue: deque[Packet] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()  # of `async for`
        self._is_attached = False
        self._is_started = False
        self._is_delivering = False
        self._is_closing = False  # close() was called, or there is nobody at the other end
        self._place = current()
        self._place.ports.add(self)

    # -- for subclasses --------------------------------------------------------------------------------------------
    def _join_loop(self, here: Hub) -> None:
        """Begin to read and write on this loop. Called once."""
        raise NotImplementedError

    def _queue_changed(self) -> None:
        """Messages were taken, or wait: read more, or less."""

    def _is_at_end(self) -> bool:
        """Whether nothing can come behind what is queued."""
        return self._is_closing

    def _finish(self) -> None:
        """Everything is delivered: close for good, if it is time."""

    def _unpacked(self, packet: Packet) -> None:
        """A message was taken out of its packet, or could not be."""

    # -- starting --------------------------------------------------------------------------------------------------
    def start(self) -> Any:
        """Begin to deliver. The first 'message' listener does it, too. Returns itself."""
        self._is_started = True
        if asyncio._get_running_loop() is not None:
            self._attach()
            if self._is_attached:
                self._queue_changed()
                if self._queue:
                    self._opened(self._hub)  # it may have left the loop when its peer did
                    self._hub.loop.call_soon(self._deliver)
        elif not self._is_closing and self._attach not in self._place.waiting_for_loop:
            self._place.waiting_for_loop.append(self._attach)
        return self

    def _attach(self) -> None:
        """Join the running loop."""
        if self._is_attached or self._is_closing:
            return
        here = hub()
        self._is_attached = True
        self._opened(here)
        self._join_loop(here)
        if self._queue:
            here.loop.call_soon(self._deliver)

    # -- taking ----------------------------------------------------------------------------------------------------
    def _has_listener(self) -> bool:
        events = (self if self._emitter is None else self._emitter)._events
        return events is not None and "message" in events

    def _deliver(self) -> None:
        """Hand what is queued to the listeners, or wake who iterates."""
        if self._is_delivering:
            return
        self._is_delivering = True
        queue = self._queue
        try:
            while queue and self._is_started and self._has_listener():
                self._hand_over(queue.popleft())
        finally:
            self._is_delivering = False
        self._wake_takers()
        self._queue_changed()
        if self._is_at_end():
            self._finish()

    def _hand_over(self, packet: Packet) -> None:
        try:
            value = self._unpack(packet)
        except Exception as error:
            self._message_error(error)
        else:
            self._hub.call((self if self._emitter is None else self._emitter).emit, "message", value)

    def _unpack(self, packet: Packet) -> Any:
        if packet.kind == INLINE and not packet.fds and not packet.lost:
            return pickle.loads(packet.body)  # most messages
        try:
            if packet.lost:
                raise FrameError(
                    "the ports or buffers of a message were lost: this process is at its limit of open files"
                )
            return unpack(packet.kind, packet.body, packet.fds)
        finally:
            self._unpacked(packet)

    def _message_error(self, error: Exception) -> None:
        emitter = self if self._emitter is None else self._emitter
        if emitter._events is not None and "messageerror" in emitter._events:
            self._hub.call(emitter.emit, "messageerror", error)
        else:
            self._hub.uncaught(error)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._has_listener():
            raise UsageError("there is a 'message' listener: the messages go there, not to `async for`")
        self.start()
        return _Messages(self)

    async def _next(self) -> Any:
        while not self._queue:
            if self._is_at_end():
                self._finish()
                raise StopAsyncIteration
            taker: asyncio.Future[None] = self._hub.loop.create_future()
            self._takers.append(taker)
            try:
                await taker
            finally:
                self._takers.remove(taker)
        packet = self._queue.popleft()
        self._queue_changed()
        return self._unpack(packet)

    def _wake_takers(self) -> None:
        for taker in self._takers:
            if not taker.done():
                taker.set_result(None)

    def _read_now(self) -> bool:
        """Read without waiting; whether anything came."""
        raise NotImplementedError

    def _receive_now(self) -> Received | None:
        while not self._queue:
            if not self._read_now():
                return None
        received = Received(self._unpack(self._queue.popleft()))
        if self._is_attached:
            self._queue_changed()
            if not self._queue and self._is_at_end():
                self._hub.loop.call_soon(self._finish)
        return received

    # -- the end ---------------------------------------------------------------------------------------------------
    def _drop_queue(self) -> None:
        for packet in self._queue:
            close_all(packet.fds)
        self._queue.clear()

    def __del__(self) -> None:
        if hasattr(self, "_queue"):
            self._drop_queue()


class _Messages(AsyncIterator[Any]):
    """`async for value in port`. After an error of one message the next may be asked for."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def __anext__(self) -> Any:
        return await self._inbox._next()


def receive_message_on_port(port: Any) -> Received | None:
    """Take the next message off a port or BroadcastChannel now, without waiting and without an event.

    Returns `Received(message)`, or None when there is none. Raises what unpacking the message raises, and TypeError for
    anything else than a port or channel.
    """
    if not isinstance(port, Inbox):
        raise TypeError(f"receive_message_on_port() takes a MessagePort or BroadcastChannel, not {type(port).__name__}")
    return port._receive_now()


def _loop_runs(here: Hub) -> None:
    """A loop has started in this place: let those join it that were started before."""
    place = current()
    place.hub = weakref.ref(here)  # a loop that `run` did not make ends with the last reference to it
    waiting, place.waiting_for_loop = place.waiting_for_loop, []
    for attach in waiting:
        attach()
    if place.is_stopping:  # it was asked to before there was a loop to end
        from ._leash import stop_loop

        stop_loop(here.loop)


on_new_hub(_loop_runs)

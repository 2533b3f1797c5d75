"""The message channel between a program and its child, with the same face on both sides.

What lives here: `Messaging`, which `ChildProcess` and the child's `parent` share. What must not: processes.

Rules (Node's child_process)
* 'message' (value, handle) in the order of the sends, also when a handle waits for its descriptor. What comes while
  nobody listens is kept for the first listener.
* `disconnect()` sends what was sent, then closes. 'disconnect' comes once on each side; `connected` is False before it.
* A socket that was sent is closed here, unless `keep_open=True`: it has one owner.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable
from typing import Any, Protocol

from .._limits import CHILD_PENDING_MESSAGES
from .._wire.frames import Frame, dumps, loads, snapshot
from ..events import EventEmitter
from ..ipc import Channel, ChannelEnds
from ..loop import AnyOperation, ErrorFirst, launch
from ._handles import discard, give, take

log = logging.getLogger("multiloop.child_process")

WITH_HANDLE = 1  # the frame's kind: (what the handle is, value), and its descriptor


class Mirror(Protocol):
    """Somebody who shows the same messages under another face (a cluster's worker)."""

    def listens(self) -> bool:
        """Whether anybody there listens for 'message'."""

    def message(self, value: Any, handle: Any) -> None:
        """Emit it there, too."""

    def keeps_running(self) -> bool:
        """Whether the channel keeps a child's program going, whoever listens here."""

    def channel_closed(self) -> None:
        """The channel is closed."""


class Messaging(EventEmitter):
    """`send`, 'message', `disconnect`, 'disconnect', `connected`."""

    mirror: Mirror | None = None  # its channel carries other things as well and is never paused
    channel: Channel | None = None
    connected: bool = False
    _pending: deque[tuple[Any, Any]] | None = None
    _flush_queued: bool = False

    def _open_channel(self, ends: ChannelEnds, max_message_bytes: int, name: str) -> Channel:
        self.channel = Channel(
            ends,
            self._plain_arrived,
            self._channel_closed,
            on_error=self._channel_failed,
            max_message_bytes=max_message_bytes,
            name=name,
        )
        self.channel.handlers[WITH_HANDLE] = self._handle_arrived
        self.connected = True
        return self.channel

    # -- sending ---------------------------------------------------------------------------------------------------
    def send(self, message: Any, handle: Any = None, *, keep_open: bool = False) -> bool:
        """Send a value, and with it a socket, server or descriptor. False: wait for `drain()`, or nobody is there.

        The value is taken as it is now (pickled). Never raises for a peer that is gone.

        Args:
            handle: a `net.Socket`, `net.Server`, `socket.socket`, a file, or a descriptor as int. The other side gets
                the same kind of thing as second argument of 'message'; a file arrives as a descriptor, and None is what
                got lost on the way.
            keep_open: do not close a connection here after it was sent.

        Raises:
            NotSendable: a part of the value cannot be pickled; the message names the path to it. Nothing was sent.
            FrameTooLarge: it is larger than `max_message_size`. Nothing was sent.
        """
        channel = self.channel
        if channel is None or not self.connected:
            return False
        if handle is None:
            return channel.send(message)
        with give(handle, keep_open) as (kind, descriptor):
            body, buffers = dumps((kind, message))
            return channel.send_frame(WITH_HANDLE, body, [snapshot(buffer) for buffer in buffers], [descriptor])

    def post_message(self, message: Any) -> bool:
        """The same as `send`, under the name that workers have for it."""
        return self.send(message)

    def drain(self, *, callback: ErrorFirst | None = None) -> AnyOperation[bool]:
        """Wait until there is room to send again. The result: True to go on, False when the channel is closed."""
        return launch(self._drain(), callback)  # type: ignore[no-any-return]

    async def _drain(self) -> bool:
        return self.channel is not None and await self.channel.drain()

    def disconnect(self) -> None:
        """Close the channel, after what was sent has left; 'disconnect' follows. Calling it again changes nothing."""
        if self.connected and self.channel is not None:
            self.connected = False
            self.channel.close()

    # -- receiving -------------------------------------------------------------------------------------------------
    def _plain_arrived(self, value: Any, descriptors: tuple[int, ...]) -> None:
        self._arrived(value, None)

    def _handle_arrived(self, frame: Frame) -> None:
        kind, value = loads(frame.body, frame.buffers)
        self._arrived(value, take(kind, frame.descriptors[0]))

    def _is_heard(self) -> bool:
        return self.listener_count("message") > 0 or (self.mirror is not None and self.mirror.listens())

    def _arrived(self, value: Any, handle: Any) -> None:
        if self._pending is None and self._is_heard():
            self._tell(value, handle)
            return
        if self._pending is None:
            self._pending = deque()
        if self.mirror is not None and len(self._pending) >= CHILD_PENDING_MESSAGES:
            log.warning("%r: a message was dropped: %d wait already, and nobody listens", self, len(self._pending))
            discard(handle)
            return
        self._pending.append((value, handle))
        if len(self._pending) >= CHILD_PENDING_MESSAGES and self.channel is not None and self.mirror is None:
            self.channel.pause_reading()

    def _tell(self, value: Any, handle: Any) -> None:
        if self.mirror is None:
            self.emit("message", value, handle)  # the channel calls us through the hub
        elif self.channel is not None:
            self.channel._hub.call(self.emit, "message", value, handle)
            self.mirror.message(value, handle)

    def _listeners_changed(self, name: Hashable, count: int) -> None:
        if name == "message" and count:
            self.heard_now()

    def heard_now(self) -> None:
        """Somebody listens now: deliver what was kept, in a moment."""
        if self._pending is not None and not self._flush_queued:
            self._flush_queued = True
            if self.channel is not None:
                self.channel._hub.loop.call_soon(self._flush_pending)

    def _flush_pending(self) -> None:
        self._flush_queued = False
        channel, pending = self.channel, self._pending
        while pending and self._is_heard() and channel is not None:
            value, handle = pending.popleft()
            channel._hub.call(self._tell, value, handle)
        if not pending:
            self._pending = None
            if channel is not None:
                channel.resume_reading()

    def _channel_failed(self, error: BaseException) -> None:
        """A message could not be unpickled, or the stream is broken."""
        self.emit("error", error)

    def _channel_closed(self) -> None:
        self.connected = False
        if self.mirror is not None:
            self.mirror.channel_closed()
        self.emit("disconnect")

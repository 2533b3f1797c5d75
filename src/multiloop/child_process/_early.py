"""Messages that are sent before a loop runs.

What lives here: `EarlyMessaging`, for both ends of a channel whose process starts, or is started, before its loop. What
must not: when the loop comes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from .._limits import MAX_MESSAGE_BYTES
from .._wire.frames import MESSAGE, Buffer, Frame, dumps, snapshot
from ..errors import FrameTooLarge
from ._handles import give
from ._messaging import WITH_HANDLE, Messaging


class EarlyMessaging(Messaging):
    """A channel that may be sent to before it is opened: what was sent leaves with `_send_early`."""

    _unsent: deque[Frame] | None = None  # their descriptors are ours
    _disconnect_early: bool = False
    _max_message_bytes: int = MAX_MESSAGE_BYTES

    def _send_early(self) -> None:
        """Send what was kept; called once, when the channel is open and is counted as it shall be."""
        channel, unsent = self.channel, self._unsent
        self._unsent = None
        while unsent and channel is not None:
            channel.send_frame(*unsent.popleft(), own=True)
        if self._disconnect_early:
            super().disconnect()

    def send(self, message: Any, handle: Any = None, *, keep_open: bool = False) -> bool:
        """As ever. Before the loop runs it is kept until then."""
        if self.channel is not None or not self.connected:
            return super().send(message, handle, keep_open=keep_open)
        if handle is None:
            self._keep(MESSAGE, message, ())
        else:
            with give(handle, keep_open) as (kind, descriptor):
                self._keep(WITH_HANDLE, (kind, message), (descriptor,))
        return True

    def _keep(self, kind: int, value: Any, descriptors: tuple[int, ...]) -> None:
        body, buffers = dumps(value)
        size_bytes = len(body) + sum(buffer.nbytes for buffer in buffers)
        if size_bytes > self._max_message_bytes:
            raise FrameTooLarge(size_bytes, self._max_message_bytes)
        taken = tuple(os.dup(descriptor) for descriptor in descriptors)
        if self._unsent is None:
            self._unsent = deque()
        self._unsent.append(Frame(kind, body, tuple(snapshot(buffer) for buffer in buffers), taken))

    def send_frame(
        self, kind: int, body: bytes, buffers: Sequence[Buffer] = (), descriptors: Sequence[int] = ()
    ) -> bool:
        """Send a frame of another kind, as `Channel.send_frame`; for who puts more on this channel than messages."""
        if self.channel is not None:
            return self.channel.send_frame(kind, body, buffers, descriptors)
        if self.connected:
            if self._unsent is None:
                self._unsent = deque()
            self._unsent.append(Frame(kind, body, tuple(buffers), tuple(os.dup(each) for each in descriptors)))
        return self.connected

    def disconnect(self) -> None:
        """As ever; before the loop runs: as soon as what was sent has left."""
        if self.channel is None:
            self._disconnect_early = True
        super().disconnect()

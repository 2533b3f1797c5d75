"""A worker's own end: `cluster.worker` in a worker.

What lives here: `OwnEnd`. What must not: its listeners and connections (`_member`, `_reception`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..._wire import forks as wire
from ..._wire.frames import Buffer
from ...child_process import Parent
from ...child_process._options import SignalLike, signal_number
from ._talk import Talk

if TYPE_CHECKING:
    from ._member import Member


class OwnProcess:
    """This process, with its channel: `pid`, `send`, `connected`, `disconnect`, `kill`, `on`."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self.send = parent.send
        self.on = parent.on
        self.once = parent.once
        self.off = parent.off
        self.drain = parent.drain

    @property
    def pid(self) -> int:
        """Its number."""
        return os.getpid()

    @property
    def connected(self) -> bool:
        """Whether the channel to the primary is open."""
        return self._parent.connected

    def disconnect(self) -> None:
        """Close the channel, and nothing else: a worker without one leaves at once (see `worker.disconnect`)."""
        self._parent.disconnect()

    def kill(self, number: SignalLike = "SIGTERM") -> bool:
        """Send a signal to this process."""
        os.kill(os.getpid(), signal_number(number))
        return True


class OwnEnd(Talk):
    """This worker. Events: 'message' (value, handle) · 'request' (value) · 'draining' · 'disconnect'.

    'message' and 'request' come from the primary and from other workers. While somebody listens for them, the program goes
    on; without that, and without servers, it ends when its main function has.

    Attributes: `id` · `process` · `exited_after_disconnect` (None; True once it was told to go).
    """

    def __init__(self, member: Member, number: int, parent: Parent) -> None:
        self.cluster = member
        self.id = number
        self.process = OwnProcess(parent)
        self.exited_after_disconnect: bool | None = None
        self._member = member
        self._parent = parent

    # -- talking to the primary ----------------------------------------------------------------------------------------
    def send(self, message: Any, handle: Any = None, *, keep_open: bool = False) -> bool:
        """Send a value to the primary, and with it a socket, a server or a descriptor.

        False: it takes messages too slowly (`await cluster.worker.process.drain()`), or it is gone. Never raises for that.
        """
        return self._parent.send(message, handle, keep_open=keep_open)

    post_message = send

    def _send_frame(self, kind: int, body: bytes, buffers: Sequence[Buffer] = ()) -> bool:
        return self._parent.send_frame(kind, body, buffers)

    def _is_there(self) -> bool:
        return self._parent.connected

    def _who(self) -> str:
        return "the primary"

    def listens(self) -> bool:
        """Whether anybody here wants messages of the primary's (for its channel)."""
        return self.listener_count("message") + self.cluster.listener_count("message") > 0

    def message(self, value: Any, handle: Any) -> None:
        """The primary has sent a message (for its channel)."""
        self._member.tell("message", value, handle)

    def keeps_running(self) -> bool:
        """Whether anybody here listens for anything (for its channel)."""
        return self._member.is_listened_to()

    def channel_closed(self) -> None:
        """The channel is closed (for its channel)."""
        self._member.channel_closed()

    def _listeners_changed(self, name: Any, count: int) -> None:
        self._member.listeners_changed()

    # -- ending --------------------------------------------------------------------------------------------------------
    def disconnect(self, grace: float | None = None) -> OwnEnd:
        """Go: no more connections come, servers are closed, their connections waited for; then the channel closes.

        Args:
            grace: seconds after which connections that are left are cut; None waits for all of them.
        """
        self._member.leave(wire.Leaving(grace))
        return self

    def kill(self, signal: SignalLike = "SIGTERM") -> None:
        """Go at once, with exit code 0: tell the primary, disconnect, exit."""
        self._member.leave(wire.Leaving(0.0, at_once=True))

    destroy = kill

    def is_dead(self) -> bool:
        """False: it asks."""
        return False

    def is_connected(self) -> bool:
        """Whether the channel to the primary is open."""
        return self._parent.connected

    def __repr__(self) -> str:
        return f"<worker {self.id} (this one)>"

"""Messages between the workers of one application, by way of the primary.

What lives here: `Relays` (in the primary) and `WorkerUplink` (in a worker), side by side because they mirror each other.
What must not: what the messages are: a bus's JSON, or a broadcast channel's pickles, which only this cluster writes.

    worker ─ Want ─→ primary                        who wants which name
    worker ─ Relay ─→ primary ─ Relay ─→ all others that want it
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc import Channel

if TYPE_CHECKING:
    from ._process import Process


# --- in the primary -------------------------------------------------------------------------------------------------
class Relays:
    """Which of an application's workers wants what."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[int, Process]] = {}
        self.dropped = 0  # for workers that take nothing: the numbers of a bus's messages tell those who listen there

    def want(self, process: Process, message: wire.Want) -> None:
        """A worker wants a name, or no more."""
        found = self._wanted.setdefault(message.name, {})
        if message.wanted:
            found[process.number] = process
        else:
            found.pop(process.number, None)
        if not found:
            del self._wanted[message.name]

    def pass_on(self, process: Process, message: wire.Relay) -> None:
        """Give a message to all but the one it came from."""
        for number, other in self._wanted.get(message.name, {}).items():
            if number == process.number:
                continue
            if other.channel.buffered_bytes > limits.BUS_MAX_WAITING_BYTES:
                self.dropped += 1
            else:
                other.send(message)

    def left(self, number: int) -> None:
        """A worker is gone."""
        for name in [name for name, found in self._wanted.items() if number in found]:
            del self._wanted[name][number]
            if not self._wanted[name]:
                del self._wanted[name]


# --- in a worker ----------------------------------------------------------------------------------------------------
class WorkerUplink:
    """The way to the other workers. Called on any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel) -> None:
        self._loop = loop
        self._channel = channel
        self._thread = threading.get_ident()

    def send(self, name: str, data: bytes) -> None:
        """See Uplink."""
        self._tell(wire.Relay(name, data))

    def want(self, name: str, wanted: bool) -> None:
        """See Uplink."""
        self._tell(wire.Want(name, wanted))

    def _tell(self, message: Any) -> None:
        if threading.get_ident() == self._thread:
            self._send(message)
            return
        try:
            self._loop.call_soon_threadsafe(self._send, message)
        except RuntimeError:
            pass  # the loop is over

    def _send(self, message: Any) -> None:
        if self._channel.buffered_bytes <= limits.BUS_MAX_WAITING_BYTES:  # else the primary is stopped
            self._channel.send(message)

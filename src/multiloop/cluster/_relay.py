"""Messages between the workers of one application or program, by way of the primary.

What lives here: `Relays` (in the primary) and `WorkerUplink` (in a worker), side by side because they mirror each other;
`PrimaryUplink`, for a primary that is a program of its own. What must not: what the messages are: a bus's JSON, or a
broadcast channel's pickles, which only this cluster writes.

    worker ─ Want ─→ primary                        who wants which name
    worker ─ Relay ─→ primary ─ Relay ─→ all others that want it
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc import _relay

Take = Callable[[wire.Relay], bool]  # gives a message to a worker; False: so much waits for it that it was dropped


# --- in the primary -------------------------------------------------------------------------------------------------
class Relays:
    """Which workers want what, by their numbers."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[int, Take]] = {}
        self.dropped = 0  # for workers that take nothing: the numbers of a bus's messages tell those who listen there

    def want(self, number: int, message: wire.Want, take: Take) -> None:
        """A worker wants a name, or no more."""
        found = self._wanted.setdefault(message.name, {})
        if message.wanted:
            found[number] = take
        else:
            found.pop(number, None)
        if not found:
            del self._wanted[message.name]

    def pass_on(self, number: int, message: wire.Relay) -> None:
        """Give a message to all but the one it came from."""
        for other, take in self._wanted.get(message.name, {}).items():
            if other != number and not take(message):
                self.dropped += 1

    def left(self, number: int) -> None:
        """A worker is gone."""
        for name in [name for name, found in self._wanted.items() if number in found]:
            del self._wanted[name][number]
            if not self._wanted[name]:
                del self._wanted[name]


def has_room(buffered_bytes: int) -> bool:
    """Whether more may wait for who reads a channel; else it is stopped."""
    return buffered_bytes <= limits.BUS_MAX_WAITING_BYTES


# --- at either end ----------------------------------------------------------------------------------------------------
class _Uplink:
    """What is said on any thread is sent on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()

    def send(self, name: str, data: bytes) -> None:
        """See `ipc._relay.Uplink`."""
        self._tell(wire.Relay(name, data))

    def want(self, name: str, wanted: bool) -> None:
        """See `ipc._relay.Uplink`."""
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
        raise NotImplementedError


class WorkerUplink(_Uplink):
    """The way from a worker to the others.

    Args:
        say: sends a message to the primary.
        buffered_bytes: tells how much waits to be sent there.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, say: Callable[[Any], Any], buffered_bytes: Callable[[], int]
    ) -> None:
        super().__init__(loop)
        self._say = say
        self._buffered_bytes = buffered_bytes

    def _send(self, message: Any) -> None:
        if has_room(self._buffered_bytes()):
            self._say(message)


class PrimaryUplink(_Uplink):
    """The way from a primary's own program to its workers; what they say is given to `heard`."""

    NUMBER = 0  # no worker has it

    def __init__(self, loop: asyncio.AbstractEventLoop, relays: Relays) -> None:
        super().__init__(loop)
        self._relays = relays

    def heard(self, number: int, message: wire.Relay) -> None:
        """A worker said it: to the others, and to the program here."""
        self._relays.pass_on(number, message)
        _relay.arrived(message.name, message.data)

    def _send(self, message: Any) -> None:
        if isinstance(message, wire.Relay):
            self._relays.pass_on(self.NUMBER, message)

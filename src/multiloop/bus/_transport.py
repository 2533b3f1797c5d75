"""How a bus's frames travel: the contract, and the way without any server.

What lives here: `Transport` and `LocalTransport`: this process, and through the cluster's primary all workers of the
application. What must not: frames' contents, Redis (`_redis`).
"""

from __future__ import annotations

from typing import Protocol

from ..ipc import _relay as relays
from ..loop import Hub


class Owner(Protocol):
    """What a transport tells its bus. All calls come on the bus's loop."""

    def arrived(self, channel: str, data: bytes) -> None:
        """A frame has come."""

    def connected(self, after_s: float | None) -> None:
        """It can send and hear; `after_s`: how long it could not, None at first."""

    def lost(self, reason: str) -> None:
        """It can neither send nor hear for now."""

    def dropped(self, count: int) -> None:
        """So many frames that waited were thrown away: too many for too long."""


class Transport(Protocol):
    """Carries frames to all who subscribed to a channel, on this bus, too."""

    def start(self) -> None:
        """Connect; called once, on the loop."""

    def publish(self, channel: str, data: bytes) -> None:
        """Send, or keep until that is possible."""

    def subscribe(self, channel: str) -> None:
        """Hear a channel from now on."""

    def unsubscribe(self, channel: str) -> None:
        """Hear it no more."""

    @property
    def waiting_bytes(self) -> int:
        """What waits to be sent."""

    async def drain(self) -> None:
        """Wait until nothing waits."""

    def close(self) -> None:
        """Let go of everything, at once."""


class LocalTransport:
    """This process, and the other workers of its cluster."""

    waiting_bytes = 0

    def __init__(self, of: Hub, owner: Owner) -> None:
        self._loop = of.loop
        self._owner = owner
        self._channels: set[str] = set()

    def start(self) -> None:
        """See Transport."""
        self._owner.connected(None)

    def publish(self, channel: str, data: bytes) -> None:
        """See Transport."""
        relays.publish(relays.BUS + channel, data)

    def subscribe(self, channel: str) -> None:
        """See Transport."""
        if channel not in self._channels:
            self._channels.add(channel)
            relays.subscribe(relays.BUS + channel, self._heard)

    def unsubscribe(self, channel: str) -> None:
        """See Transport."""
        if channel in self._channels:
            self._channels.discard(channel)
            relays.unsubscribe(relays.BUS + channel, self._heard)

    def _heard(self, name: str, data: bytes) -> None:
        """Called on any thread of this process."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, name.removeprefix(relays.BUS), data)
        except RuntimeError:
            pass  # that loop is over

    def _deliver(self, channel: str, data: bytes) -> None:
        if channel in self._channels:
            self._owner.arrived(channel, data)

    async def drain(self) -> None:
        """See Transport."""

    def close(self) -> None:
        """See Transport."""
        for channel in list(self._channels):
            self.unsubscribe(channel)

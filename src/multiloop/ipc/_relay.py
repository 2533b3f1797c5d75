"""Bytes by name to everybody who wants them: in this process, and through a cluster's primary in its other workers.

What lives here: who listens here, and the hook through which a cluster's worker carries on. What must not: what the bytes
are, the primary.

    publish → listeners of this process
            → uplink ║ the primary ║ the other workers that want the name → arrived → their listeners
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

BUS = "bus:"  # of names: messages of a bus, JSON
BROADCAST = "broadcast:"  # packed messages of broadcast channels

Listener = Callable[[str, bytes], None]


class Uplink(Protocol):
    """The way to the other processes of a cluster."""

    def send(self, name: str, data: bytes) -> None:
        """Send to all others that want this name. Called on any thread."""

    def want(self, name: str, wanted: bool) -> None:
        """This process wants to hear a name, or no more. Called on any thread."""


_lock = threading.RLock()
_listeners: dict[str, list[Listener]] = {}
_uplink: Uplink | None = None


def set_uplink(uplink: Uplink | None) -> None:
    """A cluster's worker lives here, or does no more."""
    global _uplink
    with _lock:
        _uplink = uplink
        names = list(_listeners)
    if uplink is not None:
        for name in names:
            uplink.want(name, True)


def has_uplink() -> bool:
    """Whether there are other processes."""
    return _uplink is not None


def subscribe(name: str, listener: Listener) -> None:
    """Call the listener with what is published under a name. It is called on the publisher's thread."""
    with _lock:
        found = _listeners.setdefault(name, [])
        is_first = not found
        found.append(listener)
        uplink = _uplink
    if is_first and uplink is not None:
        uplink.want(name, True)


def unsubscribe(name: str, listener: Listener) -> None:
    """Call it no more."""
    with _lock:
        found = _listeners.get(name, [])
        if listener in found:
            found.remove(listener)
        is_last = not found
        if is_last:
            _listeners.pop(name, None)
        uplink = _uplink
    if is_last and uplink is not None:
        uplink.want(name, False)


def publish(name: str, data: bytes) -> None:
    """Give to all listeners here, and to the other processes."""
    arrived(name, data)
    send_up(name, data)


def send_up(name: str, data: bytes) -> None:
    """Give to the other processes."""
    uplink = _uplink
    if uplink is not None:
        uplink.send(name, data)


def arrived(name: str, data: bytes) -> None:
    """Give to all listeners here."""
    with _lock:
        found = list(_listeners.get(name, ()))
    for listener in found:
        listener(name, data)

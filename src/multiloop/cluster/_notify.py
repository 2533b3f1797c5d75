"""Telling a service manager how it goes: systemd's protocol, in its few lines.

What lives here: `Notifier`. What must not: when things are said (`_primary`).

A datagram of `NAME=VALUE` lines goes to the socket that $NOTIFY_SOCKET names (a path, or `@name` in the abstract space).
The variables are taken out of the environment, so that no child speaks in this process's place.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("multiloop.cluster")


class Notifier:
    """Says to the service manager that started this process how it goes; without one it says nothing.

    Attributes:
        watchdog_s: how often `ping` must be called for the manager to believe that this process works; None: never.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self.watchdog_s: float | None = None
        self._socket: socket.socket | None = None
        self._address: str | bytes = ""
        self._status = ""
        self._next_ping = 0.0
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            return
        self._address = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if interval.isdecimal() and int(interval) > 0 and pid in ("", str(os.getpid())):
            self.watchdog_s = int(interval) / 1e6

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def say(self, *lines: str) -> None:
        """Send these lines in one message. A manager that is gone, or takes nothing, changes nothing here."""
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            log.debug("the service manager took nothing: %s", error)

    def status(self, text: str) -> None:
        """Say in one line how it goes (`systemctl status` shows it), when that is something new."""
        if text != self._status:
            self._status = text
            self.say(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload has begun; READY=1 ends it."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def ping(self, now: float) -> None:
        """Feed the watchdog, twice as often as it asks for. Call it from the loop: that is what it watches."""
        if self.watchdog_s is not None and now >= self._next_ping:
            self._next_ping = now + self.watchdog_s / 2 - 0.05
            self.say("WATCHDOG=1")

    def close(self) -> None:
        """Say nothing more. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

"""Workers of the kind `thread`: a thread of this interpreter, with a place of its own and nothing else.

What lives here: what the thread does, and how it is asked to stop. What must not: isolation; there is none.

It computes in parallel only on a free-threaded Python, or in code that releases the lock. Nothing can stop a thread:
`stop` ends the loop that runs in it, whoever made that (`run`, `asyncio.run`, uvloop); what runs without one is reported
as stuck.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

from . import _port  # noqa: F401 - tells places of new loops
from ._body import Birth, Ending
from ._child import live
from ._host import Host
from ._leash import Terminated, running_loops
from ._link import Link
from ._place import Place, enter_thread

_PAUSES_S = (0.1, 0.4, 1.0)  # between looks for a loop: it may begin just after one; each costs a walk over all objects


class ThreadBody(Host):
    """A worker thread. Raises RuntimeError when no thread can be started."""

    def __init__(self, birth: Birth) -> None:
        super().__init__(birth.options.name)
        self.pid = os.getpid()
        self._outfit = birth.outfit
        self._place = Place(birth.thread_id, birth.options.name, "thread")
        self._has_ended_loop = False
        self.when_over(birth.loop, lambda failure: birth.on_end(Ending(failure=failure)))
        self.start()

    def run(self) -> None:
        """See Host."""
        enter_thread(self._place)
        control = Link(socket.socket(fileno=self._outfit.control))
        try:
            live(self._place, control, self._outfit.port, owns_interpreter=False)
        finally:
            control.close()

    @property
    def native_thread(self) -> int | None:
        """The kernel's number of it."""
        return self.native_id

    def stop(self) -> None:
        """End the loop that runs in it, or that begins to soon."""
        self._place.is_stopping = True
        self._end_loop(_PAUSES_S)

    def _end_loop(self, pauses_s: tuple[float, ...] = ()) -> None:
        if self.is_over() or self._has_ended_loop:
            return
        hub = None if self._place.hub is None else self._place.hub()
        for loop in [hub.loop] if hub is not None and hub.loop.is_running() else running_loops():
            try:
                loop.call_soon_threadsafe(self._end_if_here, loop)
            except RuntimeError:  # it is closed
                pass
        if pauses_s and self._loop is not None and asyncio._get_running_loop() is self._loop:
            self._loop.call_later(pauses_s[0], self._end_loop, pauses_s[1:])

    def _end_if_here(self, loop: Any) -> None:
        """Called by each loop that was found: end the one in this thread, once, as if its program had raised."""
        if threading.get_ident() != self.ident or self._has_ended_loop:
            return
        self._has_ended_loop = True
        hub = getattr(loop, "_multiloop_hub", None)
        if hub is None or (hub.fatal is None and not hub.is_ending):
            raise Terminated
        if hub.fatal is not None:  # else it cleans up already
            hub.fatal(Terminated())

    def abandon(self) -> None:
        """Ask it to stop, and let it be."""
        self.tell_nobody()
        self._place.is_stopping = True
        self._end_loop()

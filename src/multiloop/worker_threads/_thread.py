"""Workers of the kind `thread`: a thread of this interpreter, with a place of its own and nothing else.

What lives here: what the thread does, and how it is asked to stop. What must not: isolation; there is none.

It computes in parallel only on a free-threaded Python, or in code that releases the lock. Nothing can stop a thread:
`stop` ends the loop that runs in it; what runs without one is reported as stuck.
"""

from __future__ import annotations

import os
import socket

from . import _port  # noqa: F401 - tells places of new loops
from ._body import Birth, Ending
from ._child import live
from ._host import Host
from ._leash import stop_loop
from ._link import Link
from ._place import Place, enter_thread


class ThreadBody(Host):
    """A worker thread. Raises RuntimeError when no thread can be started."""

    def __init__(self, birth: Birth) -> None:
        super().__init__(birth.options.name)
        self.pid = os.getpid()
        self._outfit = birth.outfit
        self._place = Place(birth.thread_id, birth.options.name, "thread")
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
        """End the loop that runs in it, if any."""
        self._place.is_stopping = True
        if self._place.hub is not None and (running := self._place.hub()) is not None:
            stop_loop(running.loop)

    def abandon(self) -> None:
        """Ask it to stop, and let it be."""
        self.tell_nobody()
        self.stop()

"""Workers of the kind `thread`: a thread of this interpreter, with a place of its own and nothing else.

What lives here: the thread, and how it is asked to stop. What must not: isolation; there is none.

It computes in parallel only on a free-threaded Python, or in code that releases the lock. Nothing can stop a thread:
`stop` ends the loop that runs in it; what runs without one is reported as stuck.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from . import _port  # noqa: F401 - tells places of new loops
from ._body import Ending, OnEnd, Outfit
from ._child import live
from ._leash import stack_of, stop_loop
from ._link import Link
from ._options import Options
from ._place import Place, enter_thread

if TYPE_CHECKING:
    import asyncio


class ThreadBody:
    """A worker thread. Raises RuntimeError when no thread can be started."""

    def __init__(
        self,
        options: Options,
        outfit: Outfit,
        place: Place,
        thread_id: int,
        loop: asyncio.AbstractEventLoop,
        on_end: OnEnd,
    ) -> None:
        self.pid = os.getpid()
        self._loop = loop
        self._on_end: OnEnd | None = on_end
        self._place = Place(thread_id, options.name, "thread")
        self._thread = threading.Thread(target=self._run, args=(outfit,), name=options.name, daemon=True)
        self._thread.start()

    def _run(self, outfit: Outfit) -> None:
        enter_thread(self._place)
        failure: BaseException | None = None
        control = Link(socket.socket(fileno=outfit.control))
        try:
            live(self._place, control, outfit.port, owns_interpreter=False)
        except BaseException as error:
            failure = error
        control.close()
        try:
            self._loop.call_soon_threadsafe(self._ended, Ending(failure=failure))
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    @property
    def native_thread(self) -> int | None:
        """The kernel's number of its thread."""
        return self._thread.native_id

    def _ended(self, ending: Ending) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(ending)

    def stop(self) -> None:
        """End the loop that runs in it, if any."""
        self._place.is_stopping = True
        if self._place.hub is not None and (running := self._place.hub()) is not None:
            stop_loop(running.loop)

    def stack(self) -> str:
        """Where it is."""
        return stack_of(self._thread.ident or 0)

    def abandon(self) -> None:
        """Ask it to stop, and let it be."""
        self._on_end = None
        self.stop()

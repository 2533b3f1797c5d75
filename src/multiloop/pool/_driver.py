"""On which loop a pool does its I/O: the caller's, or one of its own on a thread of its own.

What lives here: `Driver`. What must not: workers, tasks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from ..loop import Hub, hub, loop_factory


class Driver:
    """A loop, its hub, and how to reach it from other threads."""

    def __init__(self, of: Hub, thread: threading.Thread | None) -> None:
        self.hub = of
        self.loop = of.loop
        self.thread = thread  # our own; None: the caller's loop
        self._thread_id = threading.get_ident()

    @classmethod
    def of_caller(cls) -> Driver:
        """The loop that runs in this thread."""
        return cls(hub(), None)

    @classmethod
    def of_own(cls, name: str) -> Driver:
        """Start a thread with a loop of its own."""
        made: list[Driver] = []
        started = threading.Event()

        def work() -> None:
            loop = loop_factory("auto")()
            asyncio.set_event_loop(None)
            try:
                loop.call_soon(begin)
                loop.run_forever()
            finally:
                loop.close()

        def begin() -> None:
            made.append(cls(hub(), thread))
            started.set()

        # A daemon: how the program's end waits for tasks is decided by the pool (`_exit`), not by this thread.
        thread = threading.Thread(target=work, name=f"multiloop-pool-{name}", daemon=True)
        thread.start()
        started.wait()
        return made[0]

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's."""
        return threading.get_ident() == self._thread_id

    @property
    def is_alive(self) -> bool:
        """Whether the loop can still do anything."""
        return not self.loop.is_closed() and (self.thread is not None or self.loop.is_running())

    def call(self, function: Callable[..., Any], *args: Any) -> bool:
        """Call on the loop, from any thread; False when the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def end(self) -> None:
        """Let our own thread end; nothing on the caller's loop."""
        if self.thread is not None:
            self.loop.call_soon(self.loop.stop)

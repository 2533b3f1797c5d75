"""How a worker notices that its primary is gone, whatever its loop does.

What lives here: `Lifeline`, and `end_process`. What must not: what the loop does then (`_worker`, `_forks._member`).
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import _limits as limits

_PRINTING_S = 0.2  # that who reads what this process has printed may take for the rest of it


class Lifeline:
    """Notices the death of the primary on a thread of its own, and ends this process if its loop does not.

    Args:
        descriptor: the end of a pipe that only the primary can write to.
        grace_s: what the loop may take to end the process itself.
        exit_code: what the process ends with otherwise.
        channel: a socket to the primary whose end says the same (on Linux); the loop notices that by itself.
        is_let_go: whether this process may go on without the channel; asked on the thread.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        grace_s: float = limits.ORPHAN_GRACE_S,
        exit_code: int = 1,
        channel: int = -1,
        is_let_go: Callable[[], bool] = lambda: False,
    ) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._grace_s = grace_s
        self._exit_code = exit_code
        self._channel = channel
        self._is_let_go = is_let_go
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Callable[[], Any] | None = None
        threading.Thread(target=self._watch, name="multiloop-lifeline", daemon=True).start()

    def when_cut(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
        """Call this on the loop when the primary is gone."""
        self._callback = callback
        self._loop = loop

    def _watch(self) -> None:
        if self._channel >= 0 and sys.platform == "linux":
            self._watch_channel()
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while not poll.poll():  # nobody writes: there is only the end of file
            pass
        if self._loop is None or self._callback is None:
            os._exit(self._exit_code)  # nothing is served
        try:
            self._loop.call_soon_threadsafe(self._callback)
        except RuntimeError:  # it is at its end anyway
            pass
        time.sleep(self._grace_s)
        os._exit(self._exit_code)

    def _watch_channel(self) -> None:
        """Return when the lifeline is cut; end this process when only the channel is, and it was not let go."""
        # Not poll(): while that waits for a socket which the loop closes, the socket stays open for its other end.
        with select.epoll() as epoll:
            epoll.register(self._descriptor, select.EPOLLIN)
            epoll.register(self._channel, select.EPOLLRDHUP | select.EPOLLONESHOT)
            while all(descriptor != self._descriptor for descriptor, _ in epoll.poll()):
                time.sleep(self._grace_s)  # the loop reads what was sent before, perhaps that it is let go
                if not self._is_let_go():
                    end_process(self._exit_code)


def end_process(exit_code: int) -> None:
    """End this process from a thread, whatever the others do. What was printed is written, if somebody takes it at once."""
    try:
        printing = threading.Thread(target=flush_printed, daemon=True)
        printing.start()
        printing.join(_PRINTING_S)
    except RuntimeError:  # the interpreter is at its end, and starts no thread any more
        pass
    os._exit(exit_code)


def flush_printed() -> None:
    """Write what was printed and is still kept here; for who ends the process without the interpreter's own end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass

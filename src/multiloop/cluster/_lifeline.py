"""How a worker notices that its primary is gone, whatever its loop does.

What lives here: `Lifeline`. What must not: what the loop does then (`_worker`, `_forks._member`).
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import _limits as limits


class Lifeline:
    """Notices the death of the primary on a thread of its own, and ends this process if its loop does not.

    Args:
        descriptor: the end of a pipe that only the primary can write to.
        grace_s: what the loop may take to end the process itself.
        exit_code: what the process ends with otherwise.
    """

    def __init__(self, descriptor: int, *, grace_s: float = limits.ORPHAN_GRACE_S, exit_code: int = 1) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._grace_s = grace_s
        self._exit_code = exit_code
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Callable[[], Any] | None = None
        threading.Thread(target=self._watch, name="multiloop-lifeline", daemon=True).start()

    def when_cut(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
        """Call this on the loop when the primary is gone."""
        self._callback = callback
        self._loop = loop

    def _watch(self) -> None:
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

"""How a worker's process ends, whatever runs in it.

What lives here: ending it at once, soon, and after its main thread; asking a server that is not ours to end. What must
not: when (`_member`).

A loop can be cut, but threads that are no daemons keep a Python program for ever: here they have a moment.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time

from ... import _limits as limits
from .._lifeline import end_process, flush_printed


def exit_now() -> None:
    """End this process with exit code 0, here."""
    flush_printed()
    os._exit(0)


def exit_soon() -> None:
    """Let this process end by itself within a moment, else end it with exit code 0."""

    def wait() -> None:
        time.sleep(limits.LEAVE_S)
        end_process(0)

    threading.Thread(target=wait, name="multiloop-leaves", daemon=True).start()


def exit_after_main(leaves_at_s: float) -> None:
    """When the main thread is done, give the other threads a moment, or what the grace leaves; then exit code 0.

    Args:
        leaves_at_s: the end of the grace (`time.monotonic`); infinite when there is none.
    """

    def wait() -> None:
        threading.main_thread().join()
        left_s = limits.THREADS_LEAVE_S if leaves_at_s == math.inf else leaves_at_s - time.monotonic()
        time.sleep(max(limits.LEAVE_S, left_s))
        end_process(0)

    threading.Thread(target=wait, name="multiloop-leaves", daemon=True).start()


def tell_foreign_server() -> None:
    """Let an asyncio server that is not ours end as it knows best: most take SIGTERM for that (uvicorn, hypercorn).

    Some send it to themselves again when they are done (uvicorn does): then it is held back, because this worker ends as it
    was told to, with exit code 0.
    """
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

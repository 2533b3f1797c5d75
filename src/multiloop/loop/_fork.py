"""What a forked child must not do to its parent's loop.

What lives here: `guard`. What must not: threads (each module begins anew in a child, see `_offload`).

An epoll instance is shared across a fork: a child that leaves `run` closes its copy of the loop, and each descriptor that
it stops watching would be watched no more in the parent either, which would then sleep for ever. So a child that is
forked while a loop runs gets an epoll instance of its own under the same number, which knows no descriptor.
"""

from __future__ import annotations

import asyncio
import os
import select
import weakref

_running: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """See to it that no child can disturb this loop."""
    _running.add(loop)


def _backend_of(loop: asyncio.AbstractEventLoop) -> int:
    if hasattr(loop, "_get_backend_id"):  # uvloop
        return int(loop._get_backend_id())
    return int(loop._selector.fileno())  # type: ignore[attr-defined]


def _forked() -> None:
    for loop in list(_running):
        if not loop.is_closed():
            try:
                with select.epoll() as fresh:
                    os.dup2(fresh.fileno(), _backend_of(loop), inheritable=False)
            except (AttributeError, OSError):
                continue  # another kind of loop
    _running.clear()


if hasattr(os, "register_at_fork") and hasattr(select, "epoll"):
    os.register_at_fork(after_in_child=_forked)

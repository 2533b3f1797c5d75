"""What a channel needs of its loop: a transport, made at once, and memory to read into.

What lives here: `attach` and `scratch_of`. What must not: the channel.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

_READ_BYTES = 128 * 1024


def scratch_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Return the memory into which all channels of this loop read: it is empty again before the next one reads."""
    try:
        return loop._multiloop_scratch  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        made = loop._multiloop_scratch = memoryview(bytearray(_READ_BYTES))  # type: ignore[attr-defined]
        return made


def attach(loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> None:
    """Make a transport for a connected socket at once: the first step of the coroutine does it, no task is needed."""
    coroutine = cast(Coroutine[Any, Any, Any], loop.connect_accepted_socket(factory, sock))
    waiter = coroutine.send(None)
    waiter._asyncio_future_blocking = False

    def end(waiter: asyncio.Future[Any]) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            pass

    waiter.add_done_callback(end)

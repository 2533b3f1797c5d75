"""What a channel needs of its loop: a transport, made at once, and memory to read into.

What lives here: `attach` (with `drive`, which others need as well) and `scratch_of`. What must not: the channel.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

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
    drive(loop.connect_accepted_socket(factory, sock), lambda pair: None, lambda error: None)


def drive(
    connecting: Coroutine[Any, Any, Any], made: Callable[[Any], object], failed: Callable[[Exception], object]
) -> None:
    """Run one of the loop's coroutines that make a transport by hand: its first step does all the work, and gives the
    future that its second one waits for. A task for each connection would double its cost.

    Args:
        made: called with the transport and its protocol.
        failed: called with what went wrong; then the socket is still the caller's.
    """
    try:
        waiter = connecting.send(None)
    except StopIteration as stop:
        made(stop.value)
        return
    except Exception as error:
        failed(error)
        return
    waiter._asyncio_future_blocking = False

    def end(waiter: asyncio.Future[Any]) -> None:
        try:
            connecting.send(None)
        except StopIteration as stop:
            made(stop.value)
        except Exception as error:
            failed(error)

    waiter.add_done_callback(end)

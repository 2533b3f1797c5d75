"""Which request a loop serves, told from outside while it is blocked.

What lives here: the two ways in which a server can be asked, and `current_request` for servers that only say. What must
not: any server.

Everything here runs on the watchdog's thread while the loop's stands still: it reads, and a reader that fails says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple


class Served(NamedTuple):
    """A request: how a report names it ("GET /cart"), its id if it has one, the span that was opened for it, if any."""

    text: str
    id: str | None = None
    span: Any = None


ByFrame = Callable[[FrameType], Served | None]
ByTask = Callable[[asyncio.AbstractEventLoop, "asyncio.Task[Any] | None"], Served | None]

_by_frame: list[ByFrame] = []
_by_task: list[ByTask] = []


def name_requests(by_frame: ByFrame, by_task: ByTask) -> None:
    """Let a server name what it serves, at no cost per request.

    Args:
        by_frame: given a frame of the loop's stack, innermost first, returns the request that it works on, or None.
        by_task: given the loop and its current task, if any, does the same where the frames say nothing.
    """
    _by_frame.append(by_frame)
    _by_task.append(by_task)


def served_in_frame(frame: FrameType) -> Served | None:
    """Return the request that a frame works on."""
    for name in _by_frame:
        try:
            found = name(frame)
        except Exception:  # it looks at a foreign frame in any state: no reason to lose the report
            continue
        if found is not None:
            return found
    return None


def served_by_loop(loop: asyncio.AbstractEventLoop) -> Served | None:
    """Return the request that the current task of a loop works on."""
    try:
        task = asyncio.current_task(loop)
    except RuntimeError:
        task = None
    for name in _by_task:
        try:
            found = name(loop, task)
        except Exception:
            continue
        if found is not None:
            return found
    return None


def as_served(request: Any) -> Served | None:
    """Name what a server set as `health.current_request`: text, or something with a method and a path."""
    if request is None:
        return None
    if isinstance(request, str):
        return Served(request)
    try:
        path = getattr(request, "path", None)
        return Served(f"{request.method} {path}" if path is not None else str(request))
    except Exception:  # it is read while the server changes it
        return None

"""Which request a loop serves at this moment, told from outside: for the reports of a blocked loop.

What lives here: finding an exchange in the frames of a stack or by the loop's current task. What must not: anything that a
request would feel; it all runs on the watchdog's thread while the loop stands still, and only reads.

    frames: an exchange, a Request, a WebSocket, or a bound method of one (ASGI's `receive`) among a function's arguments,
            or among the variables of its closure
    task:   the connection whose exchange or session has the loop's current task (where frames cannot be seen)

Both hold for the compiled form, which has no frames of its own: the application's frames have the arguments.
"""

from __future__ import annotations

import inspect
import weakref
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any

from ..health import Served, name_requests
from ._exchange import DONE, Exchange

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

    from ._service import HttpService

_BOUND = (MethodType, BuiltinMethodType)

_services: weakref.WeakSet[HttpService] = weakref.WeakSet()


def may_be_asked(service: HttpService) -> None:
    """Let the requests of this service be named in reports."""
    _services.add(service)


def served_in_frame(frame: FrameType) -> Served | None:
    """Return the request that a frame was called for."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[:count]
    if code.co_flags & inspect.CO_VARARGS:
        names += code.co_varnames[count : count + 1]
    names += code.co_freevars  # a callback's: what Node's face answers with later
    if not names:
        return None
    values = frame.f_locals
    for name in names:
        value = values.get(name)
        for one in value if type(value) is tuple else (value,):
            found = _named(one)
            if found is not None:
                return found
    return None


def served_by_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> Served | None:
    """Return the request whose exchange or session has this task; without a task, the only one that is being begun."""
    begun: list[Exchange] = []
    for service in tuple(_services):
        if service.loop is not loop:
            continue
        for connection in list(service.connections):
            for one in (connection.current, connection.upgraded):
                if one is None:
                    continue
                its_task = getattr(one, "task", one)  # WSGI's have none: their work is on threads
                if task is not None and its_task is task:
                    return _named(one)
                if its_task is None and _is_begun(one):
                    begun.append(one)
    is_ours = task is None or task.get_name() in ("request", "handler")
    return _named(begun[0]) if is_ours and len(begun) == 1 else None


def _is_begun(one: Any) -> bool:
    """Whether it is in its first step. In Node's face many may wait for a callback, and look the same."""
    is_node = type(one).__name__ == "NodeExchange"
    return isinstance(one, Exchange) and one.started and one.reply_state != DONE and not is_node


def _named(value: Any) -> Served | None:
    """The request that a value belongs to. Looks at types alone: a foreign object may do anything when it is asked."""
    kind = type(value)
    if kind in _BOUND:
        value = value.__self__  # ASGI's `receive` and `send`
        kind = type(value)
    if issubclass(kind, Exchange):
        ids = value.connection.service.request_ids
        return Served(f"{value.method} {value.path.decode('ascii', 'replace')}", ids.known(value))
    # By name: most of these are loaded only where they are used.
    match kind.__module__, kind.__name__:
        case ("multiloop.http._request", "Request") | ("multiloop.http._handler", "NodeResponse"):
            return _named(value._exchange)
        case "multiloop.http._websocket", "AsgiWebSocket":
            return Served(f"WebSocket {value.path.decode('ascii', 'replace')}")
        case "multiloop.http._websocket_native", "WebSocket":
            return Served(f"WebSocket {value.request.path}")
        case "multiloop.http._websocket_native", "NativeSession":
            return Served(f"WebSocket {value.socket.request.path}")
    return None


name_requests(served_in_frame, served_by_task)

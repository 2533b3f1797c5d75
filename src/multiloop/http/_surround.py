"""What stands between the server and the application when somebody looks: the ids of requests.

What lives here: `surround`, which puts it there, once, before the first request. What must not: anything that a request
feels when nobody looks: then the application is called as it is.

    access log, JSON logs ─▶ the application gets its request's id in `logs.request_id` (a context variable)

The context is the request's own: an ASGI application's or async handler's task, a WSGI thread's turn. A sync handler runs
in its connection's, where the next request sets the next id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import logs
from ._target import Interface

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._request_ids import RequestIds
    from ._service import HttpService

App = Callable[..., Any]


def surround(service: HttpService) -> None:
    """Let `service` call its application with all that is asked for round it."""
    if service.has_access_log or logs.wants_request_ids():
        ids = service.request_ids
        service.app = _with_ids(service.app, service.interface, ids)
        if service.websocket is not None:
            service.websocket = _websocket_with_ids(service.websocket, ids)


def exchange_of(interface: Interface, arguments: tuple[Any, ...]) -> Exchange:
    """Return the exchange that an application is called for."""
    if interface is Interface.ASGI:
        owner = arguments[1].__self__  # `receive` is bound to it, or to a WebSocket's session
        return getattr(owner, "exchange", owner)  # type: ignore[no-any-return]
    if interface is Interface.WSGI:
        return arguments[1].__self__  # type: ignore[no-any-return]
    return arguments[0]._exchange  # type: ignore[no-any-return]


def _with_ids(app: App, interface: Interface, ids: RequestIds) -> App:
    set_id, of = logs.request_id.set, ids.of

    def identified(*arguments: Any) -> Any:
        set_id(of(exchange_of(interface, arguments)))
        return app(*arguments)

    return identified


def _websocket_with_ids(handler: App, ids: RequestIds) -> App:
    def identified(socket: Any) -> Any:
        logs.request_id.set(ids.of(socket.request._exchange))
        return handler(socket)

    return identified

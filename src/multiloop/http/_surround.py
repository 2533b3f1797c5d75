"""What stands between the server and the application when somebody looks: the ids of requests, and their spans.

What lives here: `surround`, which puts it there, once, before the first request. What must not: anything that a request
feels when nobody looks: then the application is called as it is.

    access log, JSON logs ─▶ the application gets its request's id in `logs.request_id` (a context variable)
    OpenTelemetry, set up by the end of the start ─▶ it is called inside the span of its request

The context is the request's own: an ASGI application's or async handler's task, a WSGI thread's turn. A sync handler runs
in its connection's, where the next request sets the next id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _telemetry, logs
from ._target import Interface

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._service import HttpService


def surround(service: HttpService) -> None:
    """Let `service` call its application with all that is asked for round it."""
    if service.has_access_log or logs.wants_request_ids():
        set_id, of = logs.request_id.set, service.request_ids.of
        _call_first(service, lambda exchange: set_id(of(exchange)))
    tracer = _telemetry.tracer()
    if tracer is not None:
        from ._spans import RequestSpans

        spans = RequestSpans(service, tracer)
        service.trace(spans.ended)
        _call_first(service, spans.begin)


def exchange_of(interface: Interface, arguments: tuple[Any, ...]) -> Exchange:
    """Return the exchange that an application is called for."""
    if interface is Interface.ASGI:
        owner = arguments[1].__self__  # `receive` is bound to it, or to a WebSocket's session
        return getattr(owner, "exchange", owner)  # type: ignore[no-any-return]
    if interface is Interface.WSGI:
        return arguments[1].__self__  # type: ignore[no-any-return]
    return arguments[0]._exchange  # type: ignore[no-any-return]


def _call_first(service: HttpService, function: Callable[[Exchange], Any]) -> None:
    """Have `function` called before the application, in its context, with the exchange."""
    app, interface, websocket = service.app, service.interface, service.websocket

    def surrounded(*arguments: Any) -> Any:
        function(exchange_of(interface, arguments))
        return app(*arguments)

    service.app = surrounded
    if websocket is not None:

        def opened(socket: Any) -> Any:
            function(socket.request._exchange)
            return websocket(socket)

        service.websocket = opened

"""Requests as spans of OpenTelemetry, where the program traces.

What lives here: `RequestSpans`. What must not: when there are any (`_surround`).

    traceparent ─▶ the span begins as the application is called; it is the current one there ─▶ ends with the reply

A span always ends: with the reply, else with the exchange, whose connection was cut.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._service import HttpService

_CUT = "the connection was cut before the reply was complete"


class RequestSpans:
    """The spans of one service's requests that are being answered."""

    def __init__(self, service: HttpService, tracer: Any) -> None:
        self._tracer = tracer
        self._proxies = service.proxies
        self._trace = sys.modules["opentelemetry.trace"]
        self._context = sys.modules["opentelemetry.context"]
        from opentelemetry import propagate  # type: ignore[import-not-found,unused-ignore]  # the program has it

        self._propagate: Any = propagate
        self._open: weakref.WeakKeyDictionary[Exchange, tuple[Any, Any]] = weakref.WeakKeyDictionary()

    def begin(self, exchange: Exchange) -> None:
        """Begin the span of a request, and make it the current one of this context."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers}
        parent = self._propagate.extract(carrier)
        span = self._tracer.start_span(
            exchange.method,
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            attributes=self._attributes(exchange, carrier),
        )
        cut = weakref.finalize(exchange, self._cut, span)
        cut.atexit = False
        self._open[exchange] = span, cut
        self._context.attach(self._trace.set_span_in_context(span, parent))  # ends with the request's context

    def ended(self, exchange: Exchange) -> None:
        """The reply is complete."""
        span, cut = self._open.pop(exchange, (None, None))
        if span is None or cut.detach() is None:
            return
        span.set_attribute("http.response.status_code", exchange.status)
        span.set_attribute("http.response.body.size", exchange.sent_bytes)
        if exchange.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def _cut(self, span: Any) -> None:
        span.set_status(self._trace.StatusCode.ERROR, _CUT)
        span.end()

    def _attributes(self, exchange: Exchange, headers: dict[str, str]) -> dict[str, Any]:
        connection = exchange.connection
        client = connection.peer()
        if self._proxies is not None:
            client = self._proxies.client_of(client, exchange.headers)
        server = connection.listener.server
        found = {
            "http.request.method": exchange.method,
            "url.scheme": "https" if connection.listener.is_tls else "http",
            "url.path": exchange.path.decode("latin-1"),
            "url.query": exchange.query.decode("latin-1"),
            "network.protocol.version": exchange.http_version,
            "server.address": server[0] if server else None,
            "server.port": server[1] if server else None,
            "client.address": client[0] if client is not None else None,
            "user_agent.original": headers.get("user-agent"),
        }
        return {key: value for key, value in found.items() if value}

"""The access log: one line for each reply, text or JSON, never waiting for where it goes.

What lives here: what of an exchange stands in the line. What must not: the line itself, escaping and writing (`logs`).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from .. import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._exchange import Exchange


def access_writer(log_format: str) -> Callable[[Exchange], None]:
    """Return what logs an exchange whose reply has ended. The format is that of the process's log, if it is set up."""
    if not logs.is_configured():
        logs.configure(logs.LogSettings(format=log_format))
    write = logs.access_logger()

    def access(exchange: Exchange) -> None:
        connection = exchange.connection
        service = connection.service
        client = connection.peer()
        if service.proxies is not None:
            client = service.proxies.client_of(client, exchange.headers)
        target = exchange.path.decode("latin-1")
        if exchange.query:
            target = f"{target}?{exchange.query.decode('latin-1')}"
        write(
            logs.Access(
                client[0] if client is not None else "-",
                exchange.method,
                target,
                exchange.http_version,
                exchange.status,
                exchange.sent_bytes,
                perf_counter() - exchange.started_at_s,
                service.request_ids.of(exchange),
            )
        )

    return access

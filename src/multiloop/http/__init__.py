"""HTTP: a server for handlers, ASGI and WSGI applications, and a client.

What lives here: the public names, found late: an application's worker that only serves loads no client, and a program that
only fetches loads no server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import fetch as fetch
    from ._client_agent import Agent as Agent
    from ._client_agent import Timeouts as Timeouts
    from ._client_reply import Reply as Reply
    from ._client_request import ClientRequest as ClientRequest
    from ._client_request import request as request
    from ._config import HttpConfig as HttpConfig
    from ._config import TlsConfig as TlsConfig
    from ._exchange import ReplyError as ReplyError
    from ._lifespan import LifespanFailed as LifespanFailed
    from ._messages import Response as Response
    from ._request import Headers as Headers
    from ._request import Request as Request
    from ._server import Server as Server
    from ._server import create_server as create_server
    from ._server import handler as handler
    from ._server import serve as serve
    from ._service import HttpService as HttpService
    from ._static import StaticFiles as StaticFiles
    from ._static import static as static
    from ._websocket_native import WebSocket as WebSocket
    from ._websocket_native import WebSocketClosed as WebSocketClosed

_HOMES = {
    "Agent": "_client_agent",
    "ClientRequest": "_client_request",
    "Headers": "_request",
    "HttpConfig": "_config",
    "HttpService": "_service",
    "LifespanFailed": "_lifespan",
    "Reply": "_client_reply",
    "ReplyError": "_exchange",
    "Request": "_request",
    "Response": "_messages",
    "Server": "_server",
    "StaticFiles": "_static",
    "Timeouts": "_client_agent",
    "TlsConfig": "_config",
    "WebSocket": "_websocket_native",
    "WebSocketClosed": "_websocket_native",
    "create_server": "_server",
    "fetch": "_client",
    "handler": "_server",
    "request": "_client_request",
    "serve": "_server",
    "static": "_static",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value

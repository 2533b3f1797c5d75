"""The client's engine: aiohttp behind our names.

What lives here: everything that knows aiohttp: one session for an agent, one attempt of a request, what its errors mean.
What must not: what users see. Imported late: aiohttp takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from .. import __version__
from ..dns._lookup import SocketAddress, addresses
from ..errors import BadReply, ReplyIncomplete, RequestTimeout, TooManyRedirects, UsageError
from ..loop import Operation, begin, offload_to

if TYPE_CHECKING:
    from ._client_agent import Agent, Timeouts
    from ._client_options import RequestOptions

_USER_AGENT = f"multiloop/{__version__}"


class Progress:
    """How far one attempt has come; told by aiohttp's tracing."""

    __slots__ = ("_deadline", "_loop", "_reply_s", "phase", "reused")

    def __init__(self, reply_s: float | None, deadline: asyncio.Timeout) -> None:
        self._loop = asyncio.get_running_loop()
        self._reply_s = reply_s
        self._deadline: asyncio.Timeout | None = deadline
        self.phase = "queue"
        self.reused = False

    def sent(self) -> None:
        """Something was sent: the reply's time runs from here."""
        self.phase = "reply"
        if self._reply_s is not None and self._deadline is not None:
            self._deadline.reschedule(self._loop.time() + self._reply_s)

    def connecting(self) -> None:
        """A connection is being made (again, after a redirect): the reply's time does not run."""
        self.phase = "connect"
        self.reused = False
        if self._deadline is not None:
            self._deadline.reschedule(None)

    def answered(self) -> None:
        """The head is there. aiohttp keeps this object with the reply: it must not lead to the task that has it."""
        self._deadline = None


class Engine:
    """The aiohttp session of one agent on one loop."""

    def __init__(self, agent: Agent) -> None:
        self._connector = _connector(agent)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.CookieJar(unsafe=True) if agent.cookies else aiohttp.DummyCookieJar(),
            headers={"User-Agent": _USER_AGENT, **agent.headers},
            trace_configs=[_tracing()],
        )
        if hasattr(self._session, "_retry_connection"):
            # aiohttp repeats on fresh connections, too, where the server may be at fault: fetch() repeats by itself.
            self._session._retry_connection = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._session.closed

    async def send(
        self, options: RequestOptions, timeouts: Timeouts, progress: Progress, data: Any
    ) -> aiohttp.ClientResponse:
        """Send one request, with its redirects; return when the reply's head is there."""
        more: dict[str, Any] = {}
        if options.server_hostname is not None:
            more["server_hostname"] = options.server_hostname
        return await self._session.request(
            options.method,
            options.url,
            params=options.params,
            data=data,
            headers=options.headers,
            allow_redirects=options.max_redirects > 0,
            max_redirects=options.max_redirects + 1,
            ssl=options.tls,
            timeout=aiohttp.ClientTimeout(
                total=timeouts.total, connect=timeouts.queue, sock_connect=timeouts.connect, sock_read=None
            ),
            trace_request_ctx=progress,
            **more,
        )

    async def close(self) -> None:
        """Close every connection, and wait until they are closed."""
        await self._session.close()

    def __repr__(self) -> str:
        return (
            f"{len(self._connector._acquired)} connections in use" if hasattr(self._connector, "_acquired") else "open"
        )


def _connector(agent: Agent) -> aiohttp.BaseConnector:
    common: dict[str, Any] = {
        "limit": agent.max_total_sockets,
        "limit_per_host": agent.max_sockets,
        "force_close": not agent.keep_alive,
    }
    if agent.keep_alive:
        common["keepalive_timeout"] = agent.keep_alive_timeout
    if agent.path is not None:
        return aiohttp.UnixConnector(agent.path, **common)
    return aiohttp.TCPConnector(
        resolver=_Resolver(agent.timeouts.connect), ssl=agent.tls, local_addr=agent.local_address, **common
    )


def _tracing() -> aiohttp.TraceConfig:
    tracing = aiohttp.TraceConfig()

    async def connecting(_session: Any, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.connecting()

    async def reused(_session: Any, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.reused = True

    async def sent(_session: Any, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.sent()

    tracing.on_connection_create_start.append(connecting)
    tracing.on_connection_reuseconn.append(reused)
    tracing.on_request_headers_sent.append(sent)
    tracing.on_request_chunk_sent.append(sent)
    return tracing


class _Resolver(AbstractResolver):
    """Names through our own threads: slow ones take at most half of them, and errors carry the name."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        version = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family, 0)
        op: Operation[list[tuple[int, SocketAddress]]] = begin()
        offload_to(op, addresses, (host, port, version), slow=True)
        async with asyncio.timeout(self._timeout_s):
            found = await op
        return [
            ResolveResult(
                hostname=host, host=_text(where), port=port, family=each, proto=0, flags=int(socket.AI_NUMERICHOST)
            )
            for each, where in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _text(where: SocketAddress) -> str:
    return f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else where[0]


# --- what errors mean -------------------------------------------------------------------------------------------------
@contextmanager
def translated(
    url: str, timeouts: Timeouts, progress: Progress | None, deadline: asyncio.Timeout | None
) -> Iterator[None]:
    """Turn aiohttp's errors into ours and the system's, at the one boundary between the two."""
    try:
        yield
    except TimeoutError as error:
        phase = _phase(error, progress, deadline)
        raise RequestTimeout(phase, getattr(timeouts, phase), url) from error
    except aiohttp.TooManyRedirects as error:
        raise TooManyRedirects(len(error.history) - 1, str(error.history[-1].url)) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise UsageError(f"not an HTTP URL: {error}") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise _named(error.certificate_error, error) from error
    except aiohttp.ClientConnectorError as error:
        raise _named(error.os_error, error) from error
    except aiohttp.ClientPayloadError as error:
        raise ReplyIncomplete("the connection ended within the body", url) from error
    except aiohttp.ServerDisconnectedError as error:
        raise ReplyIncomplete("the connection ended before the reply", url) from error
    except aiohttp.ClientResponseError as error:
        raise BadReply(f"not HTTP ({' '.join(error.message.split())})", url) from error
    except aiohttp.ClientOSError as error:
        raise OSError(error.errno, error.strerror or str(error), url) from error
    except aiohttp.ClientConnectionError as error:
        raise ReplyIncomplete(str(error) or "the connection ended", url) from error
    except ValueError as error:  # a header with a line break in it, and the like
        raise UsageError(f"{error}: {url}") from None


def _phase(error: TimeoutError, progress: Progress | None, deadline: asyncio.Timeout | None) -> str:
    if deadline is not None and deadline.expired():
        return "body" if progress is None else "reply"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "queue" if progress is None or progress.phase == "queue" else "connect"
    return "total"


def _named(error: Any, connecting: Any) -> BaseException:
    """Return the system's error with the address that was meant in it."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return RequestTimeout("connect", None, f"{connecting.host}:{connecting.port}")
    path = getattr(connecting, "path", None)
    if isinstance(error, socket.gaierror | ssl.SSLError):
        error.filename = error.filename or connecting.host
        return error
    if isinstance(error, OSError) and error.errno is not None:
        name = path or f"{connecting.host}:{connecting.port}"
        return OSError(error.errno, os.strerror(error.errno), name)
    return error  # type: ignore[no-any-return]


def is_dead_connection(error: BaseException) -> bool:
    """Whether this is how a kept connection looks that the server had closed."""
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )

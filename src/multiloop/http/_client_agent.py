"""`Agent`: who keeps connections of the client, and what holds for all its requests.

What lives here: the options, and the life of the sessions behind an agent: made when first needed, one for each loop,
closed at the end of the loop at the latest. What must not: aiohttp itself; that is `_client_engine`'s, imported late
and off the loop, because it takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from .. import _limits as limits
from ..errors import ClosedError, UsageError
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, hub, launch, offload
from ._client_headers import checked_headers

if TYPE_CHECKING:
    from ._client_engine import Engine

Tls = bool | ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the phases of a request may take, in seconds; None is no limit.

    total: everything, redirects and the body included. queue: until a connection is had, waiting for a free one and
    connecting included. connect: for the name, and again for TCP with TLS. reply: from the last byte sent to the head of
    the reply, however slowly it drips. body: silence within the body.
    """

    total: float | None = None
    queue: float | None = None
    connect: float | None = limits.AGENT_CONNECT_TIMEOUT_S
    reply: float | None = limits.AGENT_REPLY_TIMEOUT_S
    body: float | None = limits.AGENT_BODY_TIMEOUT_S

    def __post_init__(self) -> None:
        for name in ("total", "queue", "connect", "reply", "body"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise UsageError(f"Timeouts({name}={seconds!r}): above 0, or None for no limit")

    def given(self, timeout: float | Timeouts | None) -> Timeouts:
        """Return what holds for a request: a number is its total, None leaves everything."""
        if timeout is None:
            return self
        return timeout if isinstance(timeout, Timeouts) else replace(self, total=timeout)


class Agent:
    """Keeps connections for requests, with limits: `fetch(url, agent=agent)`.

    Requests over a limit wait for a connection, first come, first served. Idle connections keep no program running, and
    are closed with the agent (`async with`, `await agent.close()`) or with the loop. Without an agent of your own, all
    requests of a loop share one with the defaults.

    Args:
        keep_alive: keep connections for later requests.
        keep_alive_timeout: for so many seconds.
        max_sockets: connections to one host (scheme, name and port); 0: no limit.
        max_total_sockets: connections in all; 0: no limit.
        timeouts: for each request, unless it brings its own.
        tls: True checks certificates against the system's authorities, False does not check at all; or a context.
        cookies: take cookies from replies and send them back.
        local_address: (host, port) to connect from.
        path: connect to this Unix socket, whatever the host.
        headers: sent with every request, unless it brings its own.
    """

    def __init__(
        self,
        *,
        keep_alive: bool = True,
        keep_alive_timeout: float = limits.AGENT_KEEP_ALIVE_S,
        max_sockets: int = limits.AGENT_MAX_SOCKETS_PER_HOST,
        max_total_sockets: int = limits.AGENT_MAX_SOCKETS_TOTAL,
        timeouts: Timeouts | None = None,
        tls: Tls = True,
        cookies: bool = False,
        local_address: tuple[str, int] | None = None,
        path: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        if max_sockets < 0 or max_total_sockets < 0:
            raise UsageError("Agent(max_sockets=, max_total_sockets=): 0 for no limit, or above")
        if path is not None and local_address is not None:
            raise UsageError("Agent(path=, local_address=): a Unix socket has no local address to choose")
        if not isinstance(tls, bool | ssl.SSLContext):
            raise TypeError(f"tls= is True, False or an ssl.SSLContext, not {type(tls).__name__}")
        self.keep_alive = keep_alive
        self.keep_alive_timeout = keep_alive_timeout
        self.max_sockets = max_sockets
        self.max_total_sockets = max_total_sockets
        self.timeouts = timeouts or Timeouts()
        self.tls = tls
        self.cookies = cookies
        self.local_address = local_address
        self.path = path
        self.headers = dict(checked_headers(headers))
        if any(name.lower() == "content-length" for name in self.headers):
            raise UsageError("Agent(headers=): a Content-Length belongs to one request")
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._opening: asyncio.Future[None] | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def _use(self) -> Engine:
        """Return the engine of the running loop, made now if there is none."""
        loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise ClosedError("this Agent is closed: make a new one")
            if self._loop is not loop:  # the loop before is over: its guard has closed what was there
                self._loop, self._engine, self._opening = loop, None, None
            if self._engine is not None and not self._engine.closed:
                return self._engine
            if self._opening is not None:
                await asyncio.shield(self._opening)
                continue
            self._opening = loop.create_future()
            try:
                if "multiloop.http._client_engine" not in sys.modules:
                    await offload(_import_engine)
                self._open()
            finally:
                self._opening.set_result(None)
                self._opening = None

    def _open(self) -> None:
        from ._client_engine import Engine

        engine = self._engine = Engine(self)
        # A suspended asynchronous generator is what every loop closes at its end, also one that is not ours.
        self._guard = _close_at_the_end(engine)
        try:
            self._guard.__anext__().send(None)
        except StopIteration:
            pass

    @overload
    def close(self) -> Operation[None]: ...
    @overload
    def close(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def close(self, *, callback: ErrorFirst | None = None) -> AnyOperation[None]:
        """Close every connection; requests in flight fail. Awaiting waits until they are closed. Closing twice is fine."""
        op: AnyOperation[None] = launch(self._close(), callback)
        self._closed = True
        return op

    async def _close(self) -> None:
        guard, self._guard, self._engine = self._guard, None, None
        if guard is not None:
            await guard.aclose()

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Agent {'closed' if self._closed else 'idle' if self._engine is None else self._engine!r}>"


def _import_engine() -> None:
    from . import _client_engine  # noqa: F401


async def _close_at_the_end(engine: Engine) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await engine.close()


def default_agent() -> Agent:
    """Return the agent that the requests of this loop share."""
    loop: Any = hub().loop
    try:
        agent: Agent = loop._multiloop_agent
    except AttributeError:
        agent = loop._multiloop_agent = Agent()
    return agent

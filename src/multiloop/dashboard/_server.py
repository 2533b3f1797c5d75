"""The dashboard's own server: one address, on the primary's loop, so it answers while every worker is blocked.

What lives here: `Dashboard`, the observer of a primary. What must not: rules of access (`_guard`), figures (`_model`,
`_figures`), HTTP itself: it is served by the same `http` that serves applications.

    primary ─ notices, reports, blocks, ends ─▶ Model, Sums         each second: a snapshot ─▶ Model ─▶ pages that follow
    scraper ─▶ /metrics: workers are asked for their newest, those that answer at once are waited for ─▶ Sums ─▶ a thread
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from .. import _limits as limits
from .._wire import messages as wire
from ..cluster._acceptor import Acceptor
from ..cluster._listeners import open_listeners
from ..cluster._observer import Notice, Observed
from ..cluster._settings import AdminSettings, ListenAddress
from ..errors import ConfigError
from ..http._config import HttpConfig
from ..http._messages import Response
from ..http._request import Request
from ..http._service import HttpService
from ..http._sharing import local_address
from ..http._target import Interface
from ..loop import offload
from ..stats import WorkerStatistics
from ._exposition import expose
from ._figures import FAMILIES, figures_of_cluster, figures_of_worker, place_of
from ._guard import Guard
from ._model import Model
from ._routes import Routes
from ._streams import Streams, message
from ._sums import Sums

log = logging.getLogger("multiloop.dashboard")

_GATHER_S = 0.1  # events that come together travel together
_BATCH = 16  # connections accepted in one turn
_PRIMARY = 0  # the number under which the primary's own figures stand
_CONFIG = HttpConfig(max_body_size=16 * 1024, max_requests_per_connection=1000)


class Dashboard:
    """Watches one primary and shows it.

    Raises ConfigError (one line, exit code 6) when the address cannot be listened on.
    """

    def __init__(self, settings: AdminSettings) -> None:
        address = ListenAddress(host=settings.host or "*", port=settings.port)
        try:
            self._listeners = open_listeners([address])
        except ConfigError as error:
            raise ConfigError(f"--admin: {error}", exit_code=error.exit_code) from None
        self.settings = settings
        self.port: int = self._listeners[0].sock.getsockname()[1]
        self.token = settings.token or secrets.token_urlsafe(24)
        self._guard = Guard(
            self.token,
            host=settings.host,
            port=self.port,
            hosts=settings.hosts,
            actions=settings.actions,
            metrics_open=settings.metrics_open,
        )
        self._model = Model()
        self._users = Sums()  # the users' metrics
        self._streams = Streams()
        self._due: set[int] = set()  # workers whose newest report a scrape waits for
        self._fresh: asyncio.Future[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._sent_event = 0
        self._sent_offenders = 0

    # -- where ---------------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        """The page's address, without the token."""
        host = self.settings.host
        if host in ("", "*", "0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def links(self) -> dict[str, str]:
        """What `multiloop status` tells the server's own user."""
        return {"dashboard": f"{self.url}?token={self.token}"}

    # -- the observer --------------------------------------------------------------------------------------------------
    def start(self, primary: Observed) -> None:
        """Serve from now on."""
        self._primary = primary
        self._loop = asyncio.get_running_loop()
        self._sums = Sums()  # our own figures
        self._sums.describe(FAMILIES)
        self._scraping = asyncio.Lock()
        self._routes = Routes(self._guard, self)
        names = tuple(listener.name for listener in self._listeners)
        self._service = HttpService(self._answer, Interface.HANDLER, _CONFIG, listeners=names)
        self._acceptor = Acceptor(self._loop, self, _BATCH)  # type: ignore[arg-type]  # only `adopt` is used
        self._starting = self._loop.create_task(self._serve())
        self._next_s = self._loop.time()
        self._timer = self._loop.call_soon(self._tick)
        if self.settings.token:
            log.info("dashboard: %s (with the token that was given)", self.url)
        else:
            log.info("dashboard: %s?token=%s", self.url, self.token)
        if self.settings.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning("the dashboard listens on %s: without TLS its token can be read on the way", self.settings.host)

    async def _serve(self) -> None:
        await self._service.start()
        for index, listener in enumerate(self._listeners):
            self._acceptor.listen(listener.sock.detach(), index, listener.sock.family)
        await offload(expose, (), "")  # loads the encoders now: the first scrape need not wait for them

    def close(self) -> None:
        """Serve no more."""
        for listener in self._listeners:
            listener.close()
        if hasattr(self, "_timer"):
            self._timer.cancel()
            self._starting.cancel()
            if self._gathering is not None:
                self._gathering.cancel()
            self._acceptor.close()
            self._streams.close()
            self._service.close_now()

    def noticed(self, notice: Notice) -> None:
        """Something happened in the cluster."""
        self._model.event(time.time(), notice.level, notice.text, notice.detail)
        self._gather()

    def heard(self, number: int, told: Any) -> None:
        """A worker told something about itself."""
        if isinstance(told, wire.Report):
            self._due.discard(number)
            if not self._due and self._fresh is not None and not self._fresh.done():
                self._fresh.set_result(None)
        elif isinstance(told, wire.Metrics):
            self._users.describe(told.described)
            self._users.update(number, self._place(number), told.values)
        elif isinstance(told, wire.Blocked):
            self._model.blocked(time.time(), number, told.block)
            self._gather()

    def ended(self, worker: WorkerStatistics, why: str) -> None:
        """A worker is gone."""
        self._sums.replace(worker.number, place_of(worker), figures_of_worker(worker))
        self._sums.ended(worker.number)
        self._users.ended(worker.number)
        self._model.ended(time.time(), worker, why)
        self._due.discard(worker.number)
        self._gather()

    def _place(self, number: int) -> str:
        for worker in self._primary.statistics().workers:
            if worker.number == number:
                return place_of(worker)
        return ""

    # -- pages ---------------------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        """Take a snapshot, tell the pages; once a second, also while nobody looks: charts begin before somebody does."""
        self._next_s = max(self._next_s + limits.SAMPLE_INTERVAL_S, self._loop.time())
        self._timer = self._loop.call_at(self._next_s, self._tick)
        try:
            self._model.sample(self._primary.statistics())
            if len(self._streams):
                self._streams.send(message("state", self._model.state()) + self._news())
        except Exception:
            log.exception("the dashboard could not look at the cluster")

    def _gather(self) -> None:
        if self._gathering is None and hasattr(self, "_loop"):
            self._gathering = self._loop.call_later(_GATHER_S, self._send_news)

    def _send_news(self) -> None:
        self._gathering = None
        if len(self._streams) and (news := self._news()):
            self._streams.send(news)

    def _news(self) -> bytes:
        """Return the events and offenders that no page has yet."""
        news = b""
        if self._model.newest_event > self._sent_event:
            news += message("events", self._model.events(self._sent_event))
            self._sent_event = self._model.newest_event
        if self._model.offenders.version != self._sent_offenders:
            news += message("offenders", self._model.offenders.as_plain())
            self._sent_offenders = self._model.offenders.version
        return news

    def everything(self) -> dict[str, Any]:
        """Return all that a page shows."""
        return {
            "state": self._model.state(),
            "history": self._model.history.as_plain(),
            "events": self._model.events(),
            "offenders": self._model.offenders.as_plain(),
            "actions": self._guard.actions,
            "csrf": self._guard.csrf if self._guard.actions else "",
            "interval": limits.SAMPLE_INTERVAL_S,
            "span": limits.HISTORY_S,
        }

    def follow(self) -> AsyncIterator[bytes]:
        """Give everything, then what changes."""
        if news := self._news():
            self._streams.send(news)  # so that nothing is told twice to those who have everything
        return self._streams.follow(message("hello", self.everything()))

    def stack(self, number: int) -> str | None:
        """Return the stack of an offender."""
        return self._model.offenders.stack(number)

    @property
    def open_pages(self) -> int:
        """How many follow now."""
        return len(self._streams)

    # -- probes and scrapers -------------------------------------------------------------------------------------------
    def ready(self) -> dict[str, int]:
        """Return how many workers of each application can take a connection now."""
        found = self._primary.statistics()
        ready = {app.name: 0 for app in found.apps}
        stopping = {app.name for app in found.apps if app.state == "stopping"}
        for worker in found.workers:
            ready[worker.app] += worker.state == "ready" and worker.app not in stopping
        return ready

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of the whole cluster, as fresh as its workers can make them at once."""
        async with self._scraping:
            await self._freshen()
            found = self._primary.statistics()
            self._sums.replace(_PRIMARY, "", figures_of_cluster(found))
            for worker in found.workers:
                self._sums.replace(worker.number, place_of(worker), figures_of_worker(worker))
            ours = self._sums.totals()
            users = [total for total in self._users.totals() if total[0] not in FAMILIES]
            return await offload(expose, ours + users, accept)

    async def _freshen(self) -> None:
        self._due = self._primary.ask_for_reports()
        if self._due:
            self._fresh = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._fresh, limits.FRESH_S)
            self._fresh = None

    # -- requests ------------------------------------------------------------------------------------------------------
    def adopt(self, sock: socket.socket, *, listener: int, prefix: bytes) -> None:
        """Serve a connection, if there are not too many."""
        if len(self._service.connections) >= limits.MAX_ADMIN_CONNECTIONS:
            sock.close()
        else:
            self._service.adopt(sock, listener=listener, prefix=prefix)

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        return self._routes(request, _local_host(request))

    async def act(self, command: str, arguments: dict[str, Any]) -> Any:
        """Do what the page asks for. Raises CommandFailed."""
        said = f"asked for on the dashboard: {command} {arguments or ''}".strip()
        log.info("%s", said)
        self.noticed(Notice("info", said))
        return await self._primary.command(command, arguments)


def _local_host(request: Request) -> str:
    """Return the address that the client connected to, as it would stand in a Host header."""
    address = local_address(request._exchange.connection.transport)
    if address is None:
        return ""
    return f"[{address[0]}]" if ":" in address[0] else address[0]

"""The admin address: which path gives what, to whom.

What lives here: `Routes`, the handler of its server. What must not: the rules of access (`_guard`), what the answers
say (`_model`, `_exposition`).

    GET  /                         the page (the token in the query signs in)
    GET  /events                   everything as it happens (server-sent events)
    GET  /api/state  /api/stack    the same once; the stack of an offender
    GET  /metrics                  OpenMetrics for the whole cluster
    GET  /health/live  /ready      for probes
    POST /api/reload /scale /restart    with --admin-actions
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .._limits import MAX_STREAMS
from ..cluster._control import CommandFailed
from ..http._messages import Response
from ..http._request import Request
from ._guard import Access, Facts, Guard, Refusal
from ._page import HEADERS, page, sign_in
from ._text import shown


class Source(Protocol):
    """What the routes ask."""

    def everything(self) -> dict[str, Any]:
        """Return all that a page shows."""

    def stack(self, number: int) -> str | None:
        """Return the stack of an offender."""

    def follow(self) -> AsyncIterator[bytes]:
        """Give everything, then what changes, as server-sent events."""

    def ready(self) -> dict[str, int]:
        """Return how many workers of each application can take a connection."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type."""

    async def act(self, command: str, arguments: dict[str, Any]) -> Any:
        """Do something. Raises CommandFailed."""

    @property
    def open_pages(self) -> int:
        """How many follow now."""


@dataclass(frozen=True, slots=True)
class _Route:
    access: Access
    answer: Callable[[Request, Facts], Response | Awaitable[Response]]
    methods: tuple[str, ...] = ("GET", "HEAD")


class Routes:
    """Answers requests, after the guard was asked."""

    def __init__(self, guard: Guard, source: Source) -> None:
        self._guard = guard
        self._source = source
        self._routes = {
            "/": _Route(Access.PAGE, self._page),
            "/events": _Route(Access.VIEW, self._events, ("GET",)),
            "/api/state": _Route(Access.VIEW, lambda request, facts: _json(source.everything())),
            "/api/stack": _Route(Access.VIEW, self._stack),
            "/metrics": _Route(Access.METRICS, self._metrics),
            "/health/live": _Route(Access.OPEN, lambda request, facts: _json({"status": "live"})),
            "/health/ready": _Route(Access.OPEN, self._ready),
            "/api/reload": _Route(Access.ACTION, self._act, ("POST",)),
            "/api/scale": _Route(Access.ACTION, self._act, ("POST",)),
            "/api/restart": _Route(Access.ACTION, self._act, ("POST",)),
        }

    def __call__(self, request: Request, local_host: str = "") -> Response | Awaitable[Response]:
        """Answer a request that came to this address of ours."""
        facts = facts_of(request, local_host)
        route = self._routes.get(request.path)
        refusal = self._guard.judge(
            facts, route.access if route is not None else None, route.methods if route is not None else ()
        )
        if refusal is not None or route is None:
            return self._refused(refusal, route)
        return route.answer(request, facts)

    def _refused(self, refusal: Refusal | None, route: _Route | None) -> Response:
        assert refusal is not None
        if refusal.status == 401 and route is not None and route.access is Access.PAGE:
            text, headers = sign_in()
            return Response(text, 401, headers)
        headers = dict(HEADERS)
        if refusal.allow:
            headers["allow"] = refusal.allow
        if refusal.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(f"{refusal.reason}\n", refusal.status, headers)

    # -- looking -------------------------------------------------------------------------------------------------------
    def _page(self, request: Request, facts: Facts) -> Response:
        text, headers = page()
        if self._guard.has_query_token(facts):
            headers = {**headers, "set-cookie": self._guard.set_cookie()}
        return Response(text, 200, headers)

    def _events(self, request: Request, facts: Facts) -> Response:
        if self._source.open_pages >= MAX_STREAMS:
            return Response("too many pages are open\n", 503, {**HEADERS, "retry-after": "5"})
        return Response(self._source.follow(), 200, {**HEADERS, "content-type": "text/event-stream"})

    def _stack(self, request: Request, facts: Facts) -> Response:
        number = request.query.get("id", "")
        stack = self._source.stack(int(number)) if number.isascii() and number.isdigit() else None
        if stack is None:
            return _json({"error": "there is no such offender (any more)"}, 404)
        return _json({"stack": stack})

    async def _metrics(self, request: Request, facts: Facts) -> Response:
        text, content_type = await self._source.metrics(request.headers.get("accept", ""))
        return Response(text, 200, {**HEADERS, "content-type": content_type})

    def _ready(self, request: Request, facts: Facts) -> Response:
        ready = self._source.ready()
        if all(ready.values()):
            return _json({"status": "ready", "workers": ready})
        return _json({"status": "not ready", "workers": ready}, 503)

    # -- acting --------------------------------------------------------------------------------------------------------
    async def _act(self, request: Request, facts: Facts) -> Response:
        try:
            arguments = await request.json()
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return _json({"error": "a JSON object is needed"}, 400)
        try:
            return _json(await self._source.act(request.path.removeprefix("/api/"), arguments))
        except CommandFailed as error:
            return _json({"error": shown(str(error))}, 409)


def facts_of(request: Request, local_host: str) -> Facts:
    """Return what the guard looks at. A header that comes twice is joined, and so matches nothing."""
    headers = request.headers
    return Facts(
        method=request.method,
        host=headers.get("host"),
        local_host=local_host,
        origin=headers.get("origin"),
        fetch_site=headers.get("sec-fetch-site"),
        fetch_mode=headers.get("sec-fetch-mode"),
        authorization=headers.get("authorization"),
        cookie=headers.get("cookie"),
        csrf=headers.get("x-csrf-token"),
        content_type=headers.get("content-type"),
        query_token=request.query.get("token") if request.query_string else None,
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(value, status, {**HEADERS, "content-type": "application/json"})

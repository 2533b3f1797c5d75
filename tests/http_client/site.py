"""A site for the client's tests: aiohttp's server, so that both ends are not ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Site:
    """What the server saw, and where it is."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[str] = []
        self.connections: set[Any] = set()
        self.busy = self.most_busy = 0


@asynccontextmanager
async def serve(*, tls: ssl.SSLContext | None = None, path: str | None = None, **options: Any) -> AsyncIterator[Site]:
    """Serve the site for the length of a block."""
    site = Site()
    app = web.Application(middlewares=[_counting(site)], client_max_size=1 << 30)
    app.router.add_route("*", "/echo", _echo)
    app.router.add_route("*", "/redirect/{count}", _redirect)
    app.router.add_route("*", "/status/{status}", _status)
    app.router.add_route("*", "/slow", _slow)
    app.router.add_route("*", "/big/{size}", _big)
    app.router.add_route("*", "/stall", _stall)
    app.router.add_route("*", "/cookie", _cookie)
    app.router.add_route("*", "/both", _both)
    app.router.add_route("*", "/refuse", _refuse)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, **options)
    await runner.setup()
    listener: web.BaseSite
    listener = web.UnixSite(runner, path) if path else web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await listener.start()
    if path is None:
        port = listener._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        site.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
    else:
        site.url = "http://whatever"
    try:
        yield site
    finally:
        await runner.cleanup()


def _counting(site: Site) -> Any:
    @web.middleware
    async def count(request: web.Request, handler: Any) -> Any:
        site.seen.append(f"{request.method} {request.rel_url}")
        site.connections.add(request.transport)
        site.busy += 1
        site.most_busy = max(site.busy, site.most_busy)
        try:
            return await handler(request)
        finally:
            site.busy -= 1

    return count


async def _echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "query": dict(request.query),
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.decode("latin-1"),
        }
    )


async def _redirect(request: web.Request) -> web.Response:
    left = int(request.match_info["count"])
    raise web.HTTPFound(f"/redirect/{left - 1}" if left > 1 else "/echo")


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]), text="status")


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query.get("s", "30")))
    return web.Response(text="slow")


async def _big(request: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse()
    if "compress" in request.query:
        reply.enable_compression()
    await reply.prepare(request)
    left = int(request.match_info["size"])
    while left > 0:
        piece = b"x" * min(65536, left)
        try:
            await reply.write(piece)
        except ConnectionError:
            break
        left -= len(piece)
    return reply


async def _stall(request: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"Content-Length": "1000"})
    await reply.prepare(request)
    await reply.write(b"some")
    if "cut" in request.query:
        assert request.transport is not None
        request.transport.abort()
    else:
        await asyncio.sleep(30)
    return reply


async def _cookie(request: web.Request) -> web.Response:
    reply = web.Response(text=request.cookies.get("crumb", "none"))
    reply.set_cookie("crumb", "sweet")
    return reply


async def _both(request: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse()
    await reply.prepare(request)
    async for piece in request.content.iter_any():
        await reply.write(piece.upper())
    return reply


async def _refuse(request: web.Request) -> web.Response:
    return web.Response(status=413, text="too much", headers={"Connection": "close"})

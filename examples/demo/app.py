"""The lesson in one page: what a blocked event loop does to everybody, and where the work belongs instead.

    multiloop serve app:app --app-dir examples/demo        (or: make serve)

A plain ASGI application, no framework. Every answer names the worker (its process id) that gave it. The work runs in
`multiloop.pool`; DEMO_ENGINE=ray (or ray://host:port, dask://host:port) moves it to other machines.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from multiloop.pool import Pool

# The link to the dashboard, token and all: fine for a demo that only this machine reaches, never for a real application.
DASHBOARD = os.environ.get("DEMO_DASHBOARD", "")
PAGE = Path(__file__).with_name("page.html").read_text().replace("{dashboard}", html.escape(DASHBOARD)).encode()
POLICY = b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
WORKER = os.getpid()
ENGINE = os.environ.get("DEMO_ENGINE", "local")
MOST_SECONDS = 5.0


# --- what the buttons do ------------------------------------------------------------------------------------------
async def page(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, PAGE, b"text/html; charset=utf-8")


async def ping(scope: Any, receive: Any, send: Any) -> None:
    """The probe of the chart. Each one comes on a connection of its own, so that every worker gets its turn."""
    await reply_json(send, {}, close=True)


async def fast(scope: Any, receive: Any, send: Any) -> None:
    await reply_json(send, {"did": "answered at once"})


async def block(scope: Any, receive: Any, send: Any) -> None:
    """Wrong: the work runs on the event loop, and everything else that this worker serves waits for it."""
    seconds = wanted_seconds(scope)
    digest = compute(seconds)
    await reply_json(send, {"did": f"computed {digest} on the loop"})


async def offload(scope: Any, receive: Any, send: Any) -> None:
    """Right: the same work in another process; the loop goes on serving while it waits for the result."""
    seconds = wanted_seconds(scope)
    digest = await scope["state"]["pool"].run(compute, seconds)
    await reply_json(send, {"did": f"computed {digest} off the loop"})


async def upload(scope: Any, receive: Any, send: Any) -> None:
    """Take a body piece by piece: a gigabyte costs no more memory than a kilobyte."""
    size = pieces = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        pieces += 1
        if not message.get("more_body"):
            break
    await reply_json(send, {"did": f"took {size:,} bytes in {pieces:,} pieces", "bytes": size})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that sends back what it gets."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text") or f"{len(message.get('bytes') or b'')} bytes"
        await send({"type": "websocket.send", "text": json.dumps({"worker": WORKER, "did": f"echoed {text!r}"})})


HTTP = {
    ("GET", "/"): page,
    ("GET", "/ping"): ping,
    ("GET", "/fast"): fast,
    ("GET", "/block"): block,
    ("GET", "/offload"): offload,
    ("POST", "/upload"): upload,
}


# --- the work -----------------------------------------------------------------------------------------------------
def compute(seconds: float) -> str:
    """Use this much of a processor's time, as a report, a thumbnail or a model would."""
    digest = b""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        digest = hashlib.sha256(digest * 32).digest()
    return digest.hex()[:8]


def wanted_seconds(scope: Any) -> float:
    """Read `?seconds=`; what makes no sense is 1.5, what is too much is MOST_SECONDS."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    try:
        seconds = float(query["seconds"][0])
    except (KeyError, ValueError):
        return 1.5
    return min(seconds, MOST_SECONDS) if seconds >= 0 else 1.5


# --- ASGI ---------------------------------------------------------------------------------------------------------
async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        if scope["path"] == "/echo":
            await echo(scope, receive, send)
        else:
            await send({"type": "websocket.close"})
    elif handler := HTTP.get((scope["method"], scope["path"])):
        await handler(scope, receive, send)
    else:
        await reply_json(send, {"did": "found nothing here"}, status=404)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Start and end with the worker: one process beside it computes; it starts when it is first needed."""
    await receive()  # lifespan.startup
    async with Pool(workers=1, engine=ENGINE, name="demo") as pool:
        scope["state"]["pool"] = pool
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


async def reply_json(send: Any, answer: dict[str, Any], *, status: int = 200, close: bool = False) -> None:
    body = json.dumps({"worker": WORKER, **answer}).encode()
    await reply(send, body, b"application/json", status=status, close=close)


async def reply(send: Any, body: bytes, kind: bytes, *, status: int = 200, close: bool = False) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", POLICY),
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

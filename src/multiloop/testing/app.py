"""The application that `RequestChecker` asks: `multiloop serve multiloop.testing.app:app`.

What lives here: `app`, ASGI. What must not: anything that a server needs.

Every request that has an id (`x-request-id`) is noted twice in the file that $MULTILOOP_CHECK_LOG names: when it begins
and when it ends, one line each, appended whole. The reply repeats the id, says which process it was, and has a body that
only this request has, so that a mixed-up reply shows.

    /               the reply, at once             /slow?0.3       after 0.3 s
    /echo           the request's body             /stream?1000    1000 bytes, in pieces
    /block?1        holds the loop for 1 s         /spin           holds it in C code for ever
    /die?9          a signal to the own process    /segv           reads address 0
    /leak?1000000   keeps so many bytes            /events         server-sent events until the client or server leaves
    WebSocket       echoes

It can kill and hang its process: never serve it to others.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOG_VARIABLE = "MULTILOOP_CHECK_LOG"
BODY_BYTES = 512
_PIECE_BYTES = 65536

_leaked: list[bytes] = []
_count = 0
_log = -1


def body_for(request_id: bytes) -> bytes:
    """Return the body that belongs to a request's id, and to no other."""
    return hashlib.sha256(request_id).hexdigest().encode() * (BODY_BYTES // 64)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one request, or live through the lifespan."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(receive, send)
    else:
        await _http(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    global _log
    path = os.environ.get(LOG_VARIABLE)
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.startup" and path:
            _log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if path:
            _note(kind.rpartition(".")[2], b"")
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _note(what: str, request_id: bytes) -> None:
    if _log >= 0:
        try:
            os.write(_log, b"%b %b %d %d\n" % (what.encode(), request_id, os.getpid(), _count))
        except OSError:  # no room left: that is a fault that somebody tries
            pass


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    global _count
    _count += 1
    request_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    if request_id:
        _note("began", request_id)
    path, query = scope["path"], scope["query_string"].decode("ascii", "replace")
    received = await _body(receive)
    if path == "/events":
        await _events(scope, receive, send)
        return
    special = _SPECIAL.get(path)
    if special is not None:
        await special(query)
    if path == "/echo":
        body = received
    elif path == "/stream":
        body = b""  # of which there may be as much as anybody likes: it is never all there
    elif path == "/pid":
        body = b"%d" % os.getpid()
    else:
        body = body_for(request_id)
    headers = [
        (b"content-length", b"%d" % (int(query) if path == "/stream" else len(body))),
        (b"x-request-id", request_id),
        (b"x-pid", b"%d" % os.getpid()),
        (b"x-received", hashlib.sha256(received).hexdigest().encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/stream":
        for left in range(int(query), 0, -_PIECE_BYTES):
            piece = b"x" * min(_PIECE_BYTES, left)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": body})
    if request_id:
        _note("ended", request_id)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _events(scope: Message, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % os.getpid(), "more_body": True})
        await asyncio.sleep(0.2)


async def _websocket(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": message.get("text") or ""})


# --- faults -------------------------------------------------------------------------------------------------------
async def _slow(query: str) -> None:
    await asyncio.sleep(float(query or 0.3))


async def _block(query: str) -> None:
    time.sleep(float(query or 1))  # noqa: ASYNC251 - that is what it is for


async def _spin(query: str) -> None:
    import re

    re.match(r"(a+)+$", "a" * 60 + "b")  # years, in C code that holds the interpreter's lock


async def _die(query: str) -> None:
    os.kill(os.getpid(), int(query or 9))


async def _segv(query: str) -> None:
    import ctypes

    ctypes.string_at(0)


async def _leak(query: str) -> None:
    _leaked.append(b"x" * int(query or 1_000_000))


_SPECIAL = {"/slow": _slow, "/block": _block, "/spin": _spin, "/die": _die, "/segv": _segv, "/leak": _leak}
